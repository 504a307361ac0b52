"""Weights of encoders from files: read without running code, checked name by name."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from common.errors import InputError
from common.files import BROKEN_PICKLE
from common.state_dicts import differences

_SHOWN = 5


def read_state(path: Path, what: str, cure: str) -> dict[str, Tensor]:
    """Read a state dict (``.safetensors``, or PyTorch's own format) without running code from the file.

    Args:
        path: the file.
        what: the weights, in words.
        cure: what to do about a file that will not do.

    Raises:
        InputError: it is damaged, incomplete or holds anything but named tensors.
    """
    try:
        if path.suffix == ".safetensors":
            content: Any = safetensors.torch.load_file(path)
        else:
            # From memory: of a file cut short, seeking fails with an error that looks like the disk's.
            content = torch.load(io.BytesIO(path.read_bytes()), map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, *BROKEN_PICKLE) as error:
        raise InputError(
            f"{what} {path} cannot be read: damaged, incomplete, or more than tensors.", cure
        ) from error
    if not isinstance(content, Mapping) or not all(isinstance(v, Tensor) for v in content.values()):
        raise InputError(f"{what} {path} hold no state dict.", cure)
    return dict(content)


def check_state(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path, network: str, cure: str
) -> None:
    """Raise ``InputError`` unless every name and shape is as ``expected`` and every number finite.

    Args:
        state: what ``read_state`` returned.
        expected: tensors of those shapes, by name.
        path: the file.
        network: whose weights they should be, in words.
        cure: as of ``read_state``.
    """
    wrong = differences(expected, state)
    wrong += [f"{name} is not finite" for name, tensor in state.items() if not tensor.isfinite().all()]
    if wrong:
        more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise InputError(f"Weights {path} do not fit {network}: {'; '.join(wrong[:_SHOWN])}{more}.", cure)
