"""The embedded ``tiny`` networks: SAM-G's two feature maps and a SAM-shaped decoder, small enough for a CPU.

The layout follows the full-size pipeline: a dense *correspondence* map stands in for DINOv2 (``dino``), a
coarser map for SAM's image embedding (``sam``), and a two-way transformer decodes points, boxes and masks.
Two departures from SAM keep few weights obedient: a point's token carries the correspondence feature under
the point, and the decoder's last layer sees those features at every pixel. Ignored points are masked out of
every attention instead of being replaced by a padding token. Everything runs on an 84x84 grid; frames of
another size are resized on the way in and logits on the way out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from common.errors import InputError
from common.files import read_json, sha256_file
from common.paths import PROJECT_ROOT, resolve
from efficientvit.output import SamOutput
from samg.networks import Encoded
from samg.numerics import MaskerNumerics, TunableNetworks
from samg.tiny_fused import FusedDecoder
from samg.tiny_modules import (
    CORRESPONDENCE,
    DIM,
    SIZE,
    SKIP_42,
    SKIP_84,
    TOKEN_GRID,
    ConvNorm,
    TinyDecoder,
    TinyEncoder,
    upsample,
)

ARCHITECTURE = "samg-tiny-2"
WEIGHTS = PROJECT_ROOT / "samg" / "weights" / "tiny.safetensors"
_CURE = "Use the shipped file (weights=null), or make one with pretrain.py."

GRIDS = {"dino": 84, "sam": 42}
_PARTS = (TOKEN_GRID**2 * DIM, 42**2 * SKIP_42, SIZE**2 * SKIP_84, SIZE**2 * CORRESPONDENCE)


class TinyNetworks(TunableNetworks):
    """Implements ``samg.networks.SamgNetworks`` with small self-trained networks."""

    encoders: tuple[str, ...] = ("dino", "sam")
    defaults = MaskerNumerics(channels_last=True)

    def __init__(self) -> None:
        super().__init__()
        self.encoder = TinyEncoder()
        self.decoder: TinyDecoder | FusedDecoder = TinyDecoder()
        # Turns a cosine into a mask logit: scale * (cosine - offset), one pair per encoder; learned.
        self.map_scale = nn.Parameter(torch.full((2,), 10.0))
        self.map_offset = nn.Parameter(torch.full((2,), 0.5))
        self.presence: dict[str, float] = {}  # measured after training, see ``presence_threshold``

    def encode(self, frames: Tensor) -> Encoded:
        """Encode uint8 (N, H, W, 3) RGB frames; the embedding is one flat float row per frame."""
        maps, parts = self.encode_parts(frames)
        return Encoded(maps, self._exact(torch.cat([part.flatten(1) for part in parts], 1)))

    def encode_parts(self, frames: Tensor) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Do what ``encode`` does, and leave the embedding in the parts that ``decode_parts`` takes."""
        layout = torch.channels_last if self.numerics.channels_last else torch.contiguous_format
        pixels = to_pixels(frames, self.map_scale.dtype).contiguous(memory_format=layout)
        with self.numerics.autocast(frames.device):
            maps, parts = self.encoder(pixels)
        return maps, parts

    def similarity_operator(self, encoder: str, size: int) -> Tensor:
        """Return the bilinear resize matrix, float (size, G) for the encoder's grid G."""
        grid = GRIDS[encoder]
        identity = torch.eye(grid, device=self.map_scale.device)[None]
        return F.interpolate(identity, size=size, mode="linear", align_corners=False)[0].T.contiguous()

    def presence_threshold(self, encoders: Sequence[str]) -> float | None:
        """Return the calibrated cosine of these maps' mean (weights of before the calibration: None)."""
        return self.presence.get("+".join(sorted(encoders)))

    def decode(
        self,
        embedding: Tensor,
        image_size: tuple[int, int],
        points: Tensor,
        labels: Tensor,
        boxes: Tensor | None = None,
        mask_inputs: Tensor | None = None,
    ) -> SamOutput:
        """Decode one prompt set per image; see ``SamgNetworks.decode``. ``low_res`` is (N, 3, 84, 84)."""
        n = embedding.shape[0]
        widths = (DIM, SKIP_42, SKIP_84, CORRESPONDENCE)
        parts = [part.view(n, -1, w) for part, w in zip(embedding.split(_PARTS, 1), widths, strict=True)]
        height, width = image_size
        native = (height, width) == (SIZE, SIZE)
        points = points.to(embedding.dtype)
        if not native:
            points = _to_native(points, image_size)
            boxes = None if boxes is None else _to_native(boxes.view(n, 2, 2), image_size)
        if mask_inputs is not None and mask_inputs.shape[-1] != SIZE:
            mask_inputs = upsample(mask_inputs, SIZE)
        logits, iou = self.decode_parts(parts, points, labels, boxes, mask_inputs)
        full = logits if native else F.interpolate(logits, size=image_size, mode="bilinear")
        return SamOutput(full, iou, logits)

    def decode_parts(
        self,
        parts: list[Tensor],
        points: Tensor,
        labels: Tensor,
        boxes: Tensor | None = None,
        mask_inputs: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Decode in native pixels; see ``samg.tiny_modules.TinyDecoder``."""
        with self.numerics.autocast(parts[0].device):
            logits, iou = self.decoder(parts, points, labels, boxes, mask_inputs)
        return self._exact(logits), self._exact(iou)

    def hot_methods(self) -> list[tuple[nn.Module, str]]:
        """Return encoder and decoder."""
        return [(self.encoder, "forward"), (self.decoder, "forward")]

    def _exact(self, values: Tensor) -> Tensor:
        """Return in float32 what these networks' own ``numerics`` rounded; pretraining rounds by itself."""
        return values.float() if self.numerics.rounds else values

    def fuse(self) -> TinyNetworks:
        """Fold all batch norms and rearrange the decoder, for inference only; returns self."""
        self.eval()
        for module in self.modules():
            if isinstance(module, ConvNorm):
                module.fuse()
        if isinstance(self.decoder, TinyDecoder):
            self.decoder = FusedDecoder(self.decoder)
        return self.to(memory_format=torch.channels_last)


def to_pixels(frames: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return uint8 (N, H, W, 3) frames as the encoder wants them: (N, 3, 84, 84) in [-1, 1]."""
    pixels = frames.permute(0, 3, 1, 2).to(dtype)
    if tuple(pixels.shape[2:]) != (SIZE, SIZE):
        pixels = F.interpolate(pixels, size=(SIZE, SIZE), mode="bilinear", antialias=True)
    return pixels / 127.5 - 1


def _to_native(where: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Convert pixel centres (..., 2), (x, y), of an image of ``image_size`` (H, W) to the native grid."""
    x = (where[..., 0] + 0.5) * (SIZE / image_size[1]) - 0.5
    y = (where[..., 1] + 0.5) * (SIZE / image_size[0]) - 0.5
    return torch.stack([x, y], -1)


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a weights file of any architecture: float32 tensors by name, and the file's metadata.

    Raises:
        InputError: the file is missing or damaged.
    """
    if not path.is_file():
        raise InputError(f"The tiny weights {path} do not exist.", _CURE)
    try:
        with safe_open(path, framework="pt") as handle:
            metadata = handle.metadata() or {}
            return {key: handle.get_tensor(key).float() for key in handle.keys()}, metadata
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"The tiny weights {path} are not a whole safetensors file ({error}).", _CURE
        ) from error


def _read_record(sidecar: Path, weights: Path) -> dict[str, Any]:
    """Read how the weights were made, and make sure that they are those."""
    record = read_json(sidecar, "The record of the tiny weights")
    if not isinstance(record, dict) or record.get("sha256", "") not in ("", sha256_file(weights)):
        raise InputError(
            f"{weights} is not the file that {sidecar.name} describes: it is damaged, or was replaced alone.",
            "Restore both files together, or remove the record if the weights are your own.",
        )
    return record


def read_tiny_state(path: Path, networks: TinyNetworks) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a weights file and make sure that it fits the networks, which stay as they are.

    Args:
        path: of a safetensors file.
        networks: as ``pretrain.py`` trains them, not fused.

    Returns:
        float32 tensors as ``TinyNetworks.load_state_dict`` wants them, and the file's metadata.

    Raises:
        InputError: the file is missing, damaged, or of another architecture.
    """
    tensors, metadata = read_weights(path)
    found = metadata.get("architecture", "unnamed")
    if found != ARCHITECTURE:
        raise InputError(f"{path} holds weights of architecture {found!r}, expected {ARCHITECTURE!r}.", _CURE)
    check_state(path, tensors, networks)
    return tensors, metadata


def check_state(path: Path, tensors: Mapping[str, Tensor], networks: nn.Module) -> None:
    """Make sure that what ``path`` held is a whole state of ``networks``; raise ``InputError`` if not."""
    expected = networks.state_dict()
    wrong = sorted(set(expected) ^ set(tensors)) or [
        key for key, value in expected.items() if value.shape != tensors[key].shape
    ]
    if wrong:
        raise InputError(
            f"{path} does not fit the tiny networks: tensor {wrong[0]!r} is missing, superfluous or of "
            "another shape.",
            "The file comes from another version of this package; make a new one with pretrain.py.",
        )
    broken = [key for key, value in tensors.items() if not bool(value.isfinite().all())]
    if broken:
        raise InputError(
            f"{path} is damaged: tensor {broken[0]!r} holds values that are not finite.",
            _CURE,
        )


def read_tiny_record(path: Path) -> dict[str, Any]:
    """Return how the weights in ``path`` were made; empty where no record lies beside them.

    Raises:
        InputError: the record is of other weights.
    """
    sidecar = path.with_suffix(".json")
    return _read_record(sidecar, path) if sidecar.is_file() else {}


def load_tiny_networks(
    device: str | torch.device = "cpu", weights: str | Path | None = None
) -> tuple[TinyNetworks, dict[str, Any]]:
    """Load the embedded networks, ready for inference.

    Args:
        device: where they run.
        weights: a safetensors file made by ``pretrain.py``; None is the file shipped with the package.

    Returns:
        The networks (batch norms folded, no gradients) and the record of how the file was made.

    Raises:
        InputError: the file is missing, damaged, or of another architecture.
    """
    path = WEIGHTS if weights is None else resolve(weights)
    networks = TinyNetworks()
    tensors, metadata = read_tiny_state(path, networks)
    networks.load_state_dict(tensors)
    networks.presence = json.loads(metadata.get("presence", "{}"))
    record = {"architecture": metadata["architecture"], **read_tiny_record(path)}
    return networks.requires_grad_(False).fuse().to(device), record
