"""What a device can do faster: reasons why not, shared by everything that offers such options."""

from __future__ import annotations

import functools
import logging
import os
import shutil

import torch

from common.errors import ResourceError

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}
"""Names of precisions, and the type to which autocast rounds (None: no rounding)."""

log = logging.getLogger(__name__)


@functools.cache
def warn_once(message: str) -> None:
    """Log a warning the first time it is given: a fall-back is decided wherever a thing is made or loaded."""
    log.warning(message)


def no_compiler(device: torch.device) -> str | None:
    """Say why nothing can be compiled for ``device``; None if it can."""
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        return None if has_triton() else "Triton is not installed, or does not know this GPU"
    names = [os.environ.get("CXX", "g++"), "clang++"]
    return None if any(map(shutil.which, names)) else "there is no C++ compiler (install g++, or set CXX)"


def check_bfloat16(device: torch.device, key: str) -> None:
    """Refuse bfloat16 where it is impossible, and say where it gains nothing.

    Args:
        device: where it is to be used.
        key: of the configuration that asks for it, such as ``masker.precision``.

    Raises:
        ResourceError: the GPU cannot compute in bfloat16.
    """
    if device.type == "cuda":
        if not torch.cuda.is_bf16_supported(including_emulation=False):
            raise ResourceError(
                f"{torch.cuda.get_device_name(device)} cannot compute in bfloat16.", f"Set {key}=float32."
            )
    elif not torch.cpu._is_amx_tile_supported() and not torch.cpu._is_avx512_bf16_supported():
        warn_once(f"{key}=bfloat16 gains nothing: this CPU has no instructions for it.")
