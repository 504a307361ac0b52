"""A frozen ResNet-18, cut off after its second stage, and where its ImageNet weights come from."""

from __future__ import annotations

import contextlib
import http.client
import urllib.error
import urllib.request
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from algos.weight_files import check_state, read_state
from common.errors import InputError
from common.files import sha256_file
from common.paths import existing_file

IMAGENET, RANDOM = "imagenet", "random"
LAST_LAYER = "layer2"
_CURE = "Give torchvision's file as agent.encoder_weights=<file>, or draw them: agent.encoder_weights=random."
_MISSING = "Name one that is there: agent.encoder_weights=<file>, or draw them: agent.encoder_weights=random."
_TIMEOUT = 10.0  # seconds
_WHAT = "ResNet-18 weights"
_NO_NETWORK = (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError)


def find_weights(name: str) -> Path | None:
    """Return the file that ``name`` stands for; None for drawn weights.

    Args:
        name: ``imagenet`` (torchvision's cache, else torchvision's download), ``random``, or a file.

    Raises:
        InputError: the file does not exist, or cannot be fetched.
    """
    if name == RANDOM:
        return None
    if name != IMAGENET:
        return existing_file(name, "The file of the encoder's weights", _MISSING)
    published = _published()
    # Where torchvision's loader puts it; the eight characters in the name begin its SHA-256.
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(published.url).name
    if not path.is_file():
        _download(published)
    if not sha256_file(path).startswith(path.stem.rsplit("-", 1)[1]):
        raise InputError(f"ResNet-18 weights {path} are damaged: the digest differs.", "Delete the file.")
    return path


def _published() -> Any:
    """Return torchvision's entry of the weights that PIE-G uses."""
    from torchvision.models import ResNet18_Weights  # takes seconds to import, and one agent needs it

    return ResNet18_Weights.IMAGENET1K_V1


def _resnet18() -> nn.Module:
    """Return torchvision's whole network with drawn weights."""
    from torchvision.models import resnet18

    return resnet18()


def _download(published: Any) -> None:
    try:
        # Asked once, with a short timeout: the download itself has none.
        request = urllib.request.Request(published.url, method="HEAD")
        urllib.request.urlopen(request, timeout=_TIMEOUT).close()
        published.get_state_dict(progress=False, check_hash=True)
    except (*_NO_NETWORK, RuntimeError) as error:  # RuntimeError: the digest of what came differs
        raise InputError(
            f"ImageNet weights of ResNet-18 are not on this machine and could not be fetched ({error}).",
            _CURE,
        ) from error


def frozen_resnet() -> nn.Sequential:
    """Return torchvision's ResNet-18 up to ``layer2``, with its own names and drawn weights.

    The network maps float32 (M, 3, H, W) to (M, 128, H / 8, W / 8), rounded up. No parameter is trainable;
    the statistics of its BatchNorm layers follow ``train`` and ``eval`` like everywhere.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for name, layer in _resnet18().named_children():
        layers[name] = layer
        if name == LAST_LAYER:
            break
    return nn.Sequential(layers).requires_grad_(False)


def load_weights(network: nn.Sequential, path: Path) -> None:
    """Give what ``frozen_resnet`` returned the weights of a whole ResNet-18.

    Raises:
        InputError: the file is damaged or of another network.
    """
    state = read_state(path, _WHAT, _CURE)
    with torch.device("meta"):
        expected = _resnet18().state_dict()
    for name in expected:
        if name.endswith("num_batches_tracked"):  # files older than PyTorch 0.4.1 have none
            state.setdefault(name, torch.zeros((), dtype=torch.long))
    check_state(state, expected, path, "torchvision's resnet18", _CURE)
    network.load_state_dict({name: state[name] for name in network.state_dict()})


@contextlib.contextmanager
def batch_statistics(network: nn.Module) -> Iterator[None]:
    """Normalise by the statistics of what goes through, without moving the running ones."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    modes = [layer.training for layer in layers]
    try:
        for layer in layers:
            layer.training, layer.track_running_stats = True, False
        yield
    finally:
        for layer, mode in zip(layers, modes, strict=True):
            layer.training, layer.track_running_stats = mode, True
