"""Read state dicts without running code from the file, and say what does not fit."""

from __future__ import annotations

import errno
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from common.errors import InputError
from common.files import BROKEN_PICKLE
from common.state_dicts import differences

_SHOWN = 5
_CODE_SIGNS = ("GLOBAL", "call reduce")  # in the refusals of torch, as against bytes that are no pickle


def _damaged(path: Path, reason: str) -> InputError:
    return InputError(
        f"Weights {path} cannot be read: {reason}.", "The file is damaged or incomplete: fetch it again."
    )


def _read_pickle(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if any(sign in str(error) for sign in _CODE_SIGNS):
            raise InputError(
                f"Weights {path} hold Python objects besides tensors; loading them would run their code.",
                "Use the published file, or save its state dict alone as safetensors.",
            ) from error
        raise _damaged(path, "it is no PyTorch file") from error
    except (*BROKEN_PICKLE, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise  # a permission or a disk, not the content; EINVAL comes from seeking in a file cut short
        raise _damaged(path, "it is no whole PyTorch file") from error


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a ``.safetensors`` file or a PyTorch file, which may wrap its tensors as ``state_dict``.

    Returns:
        Name -> tensor; floating point tensors as float32, on the CPU.

    Raises:
        InputError: the file is missing, damaged, holds code, no tensors, or numbers that are not finite.
    """
    if not path.is_file():
        raise InputError(f"Weights {path} do not exist.", "Check the path.")
    if path.suffix == ".safetensors":
        try:
            content: object = load_file(path)
        except SafetensorError as error:
            raise _damaged(path, str(error)) from error
    else:
        content = _read_pickle(path)
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"Weights {path} hold no state dict.", "Expected a mapping of names to tensors.")
    state = {}
    for name, value in content.items():
        if not isinstance(value, Tensor):
            kind = type(value).__name__
            raise InputError(
                f"Weights {path} hold a {kind} under '{name}'; expected only tensors.",
                "Use the published file.",
            )
        state[str(name)] = value.float() if value.is_floating_point() else value
    if not all(bool(value.isfinite().all()) for value in state.values() if value.is_floating_point()):
        raise _damaged(path, "it holds numbers that are not finite")
    return state


def load_strictly(model: nn.Module, state: Mapping[str, Tensor], path: Path, architecture: str) -> None:
    """Give ``model`` (which may lie on ``meta``) the tensors of ``state``; every name and shape must fit.

    Raises:
        InputError: naming up to five differences.
    """
    lines = differences(model.state_dict(), state)
    if lines:
        more = f"; and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
        raise InputError(
            f"Weights {path} do not fit {architecture}: {'; '.join(lines[:_SHOWN])}{more}.",
            f"Give the file of {architecture}, or choose the architecture of this file.",
        )
    model.load_state_dict(state, strict=True, assign=True)
