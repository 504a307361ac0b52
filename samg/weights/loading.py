"""Build networks from released or drawn weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from common.errors import unknown_choice
from efficientvit import VARIANTS, EfficientViTSam
from samg.dinov2 import ARCHITECTURES, DINO_SIZE, DinoV2, adapt_state
from samg.paper import ENCODERS, PaperNetworks, check_encoders
from samg.weights import hub
from samg.weights.drawn import drawn_state
from samg.weights.hub import PathLike
from samg.weights.record import WeightFile, WeightsRecord
from samg.weights.state import load_strictly, read_state

_TABLE_518 = 1 + 37 * 37

RELEASED = {"paper": {"sam": "l1", "dino": "vitb14"}, "fast": {"sam": "l0", "dino": "vits14"}}
"""The full-size variants, and which released networks each of them means."""


def _components(encoders: Sequence[str], sam: str, dino: str) -> dict[str, str]:
    """Return component -> architecture of what must be loaded; SAM always is, because it decodes."""
    check_encoders(tuple(encoders))
    if sam not in VARIANTS:
        raise unknown_choice("EfficientViT-SAM", sam, VARIANTS)
    if dino not in ARCHITECTURES:
        raise unknown_choice("DINOv2", dino, ARCHITECTURES)
    return {"sam": sam, "dino": dino} if "dino" in encoders else {"sam": sam}


def find_paper_weights(
    weights: PathLike | Sequence[PathLike] | None = None,
    encoders: Sequence[str] = ENCODERS,
    sam: str = "l1",
    dino: str = "vitb14",
) -> dict[str, Path]:
    """Return the files of the full-size networks, downloading those that are nowhere on this machine.

    Args:
        weights: a folder, a file, or several; what they lack is looked for in ``efficientvit/checkpoints``,
            the hub's cache and the hub.
        encoders: the encoders in use; without ``dino`` its file is not needed.
        sam: ``l0``, ``l1``, ``l2``, ``xl0`` or ``xl1``.
        dino: ``vitb14`` or ``vits14``.

    Returns:
        ``sam`` and, if needed, ``dino`` -> path.

    Raises:
        InputError: a file is missing and cannot be downloaded.
    """
    return hub.find_files(weights, _components(encoders, sam, dino))


def verify_paper(
    weights: PathLike | Sequence[PathLike] | None = None,
    encoders: Sequence[str] = ENCODERS,
    sam: str = "l1",
    dino: str = "vitb14",
) -> dict[Path, WeightFile]:
    """Return path -> record of the weights that are on this machine; the network is not asked.

    Raises:
        InputError: a file is missing, or one of the hub's cache has another digest than the hub's.
    """
    components = _components(encoders, sam, dino)
    paths = hub.find_files(weights, components, fetch=False)
    return {paths[name]: hub.describe_file(paths[name], name, kind) for name, kind in components.items()}


def download_weights(variant: str) -> dict[Path, WeightFile]:
    """Fetch a variant's released weights into the hub's cache, verify them, return path -> its record."""
    components = _components(ENCODERS, **RELEASED[variant])
    paths = hub.download(components)
    return {paths[name]: hub.describe_file(paths[name], name, kind) for name, kind in components.items()}


def _empty(component: str, architecture: str, dino_size: int = DINO_SIZE) -> nn.Module:
    """Return a network without values; initial ones, replaced at once, would take seconds to draw."""
    with torch.device("meta"):
        return EfficientViTSam(architecture) if component == "sam" else DinoV2(architecture, dino_size)


def _fill(network: nn.Module, state: dict[str, Tensor], path: Path, architecture: str) -> None:
    if isinstance(network, DinoV2):
        load_strictly(network.model, adapt_state(state, network.size), path, architecture)
    else:
        load_strictly(network, state, path, architecture)


def _assemble(
    networks: dict[str, nn.Module], encoders: Sequence[str], device: torch.device | str
) -> PaperNetworks:
    sam, dino = networks["sam"], networks.get("dino")
    assert isinstance(sam, EfficientViTSam) and (dino is None or isinstance(dino, DinoV2))
    return PaperNetworks(sam, dino, tuple(encoders)).to(device)


def load_paper_networks(
    weights: PathLike | Sequence[PathLike] | None = None,
    device: torch.device | str = "cpu",
    encoders: Sequence[str] = ENCODERS,
    sam: str = "l1",
    dino: str = "vitb14",
    dino_size: int = DINO_SIZE,
    variant: str = "paper",
) -> tuple[PaperNetworks, WeightsRecord]:
    """Load the full-size networks.

    Args:
        weights: see ``find_paper_weights``.
        device: where the networks go.
        encoders: feature maps to compare, among ``dino`` and ``sam``.
        sam: EfficientViT-SAM variant.
        dino: DINOv2 variant.
        dino_size: side of the frames that DINOv2 sees, 448 or 224 pixels.
        variant: the masker that they are for, part of the record.

    Raises:
        InputError: a file is missing, damaged, holds code, or does not fit; one sentence and the cure.
    """
    components = _components(encoders, sam, dino)
    paths = find_paper_weights(weights, encoders, sam, dino)
    networks, files = {}, []
    for name, kind in components.items():
        files.append(hub.describe_file(paths[name], name, kind))
        networks[name] = _empty(name, kind, dino_size)
        _fill(networks[name], read_state(paths[name]), paths[name], files[-1].architecture)
    return _assemble(networks, encoders, device), WeightsRecord(variant, tuple(files))


def random_paper_networks(
    seed: int = 0,
    device: torch.device | str = "cpu",
    encoders: Sequence[str] = ENCODERS,
    sam: str = "l1",
    dino: str = "vitb14",
    dino_size: int = DINO_SIZE,
) -> PaperNetworks:
    """Return full-size networks with drawn weights (``samg.weights.drawn``): real times, senseless masks."""
    components = _components(encoders, sam, dino)
    networks = {name: _empty(name, kind, dino_size) for name, kind in components.items()}
    for name, network in networks.items():
        module = network.model if isinstance(network, DinoV2) else network
        shapes = {key: tuple(value.shape) for key, value in module.state_dict().items()}
        if name == "dino":  # the published table is that of 518 pixels
            shapes["pos_embed"] = (1, _TABLE_518, shapes["pos_embed"][2])
        _fill(network, drawn_state(shapes, seed), Path("drawn"), name)
    return _assemble(networks, encoders, device)
