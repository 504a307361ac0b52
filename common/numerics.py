"""What a device can do faster: reasons why not, shared by everything that offers such options."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch

from common.errors import ConfigError, ResourceError, unknown_choice

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}
"""Names of precisions, and the type to which autocast rounds (None: no rounding)."""

log = logging.getLogger(__name__)


@functools.cache
def warn_once(message: str) -> None:
    """Log a warning the first time it is given: a fall-back is decided wherever a thing is made or loaded."""
    log.warning(message)


def _asked(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which PyTorch's questions about "the" GPU are about this one."""
    return torch.cuda.device(device) if torch.cuda.is_available() else contextlib.nullcontext()


def no_compiler(device: torch.device) -> str | None:
    """Say why nothing can be compiled for ``device``; None if it can."""
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        with _asked(device):
            if not has_triton():
                return "Triton is not installed, or does not know this GPU"
        # Triton builds what starts its kernels.
        language, variable, usual, other = "C", "CC", "gcc", "clang"
    else:
        language, variable, usual, other = "C++", "CXX", "g++", "clang++"
    if any(map(shutil.which, (os.environ.get(variable, usual), other))):
        return _compiling_fails(device)
    return f"there is no {language} compiler (install {usual}, or set {variable})"


@functools.cache
def _compiling_fails(device: torch.device) -> str | None:
    """Compile and run a function of one line, and return what went wrong; None: nothing.

    A compiler may be there and Python's headers, or the compiler that PyTorch wants, may not.
    """
    number = time.time_ns() % 10**6  # a function that no cache knows
    try:
        torch.compile(lambda x: x + number, dynamic=False)(torch.zeros(8, device=device))
    except Exception as error:  # whatever it is, it would be the same in the middle of a run
        return f"a trial failed ({' '.join(str(error).split())[:200]})"
    return None


def bfloat16_gains(device: torch.device) -> bool:
    """Return whether ``device`` has instructions that make bfloat16 faster than float32."""
    if device.type == "cuda":
        with _asked(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


@contextlib.contextmanager
def full_precision_convolutions() -> Iterator[None]:
    """Let GPUs convolve in float32, and not in TF32, which keeps 10 of 23 bits and is PyTorch's default."""
    cudnn = torch.backends.cudnn
    before, cudnn.allow_tf32 = cudnn.allow_tf32, False
    try:
        yield
    finally:
        cudnn.allow_tf32 = before


def training_autocast(device: torch.device) -> torch.autocast:
    """Return the context of bfloat16 for training; idle where it is emulated at several times the cost."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=bfloat16_gains(device))


def check_bfloat16(device: torch.device, key: str) -> None:
    """Refuse bfloat16 where it is impossible, and say where it gains nothing.

    Args:
        device: where it is to be used.
        key: of the configuration that asks for it, such as ``masker.precision``.

    Raises:
        ResourceError: the GPU cannot compute in bfloat16.
    """
    if bfloat16_gains(device):
        return
    if device.type == "cuda":
        raise ResourceError(
            f"{torch.cuda.get_device_name(device)} cannot compute in bfloat16.", f"Set {key}=float32."
        )
    warn_once(f"{key}=bfloat16 gains nothing: this CPU has no instructions for it.")


@dataclass(frozen=True)
class Numerics:
    """What agents and maskers can choose of how they compute; what each choice means, subclasses say."""

    key: ClassVar[str]  # of the configuration, where the choices stand
    words: ClassVar[tuple[str, ...]] = ("precision",)  # choices that are names; all others are switches

    precision: str = "float32"
    compile: bool = False
    cuda_graph: bool = False
    channels_last: bool = False

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> None:
        """Refuse values that are no choice.

        Raises:
            ConfigError: naming the key and what is possible.
        """
        for name, value in options.items():
            if name not in cls.words and not isinstance(value, bool):
                raise ConfigError(f"{cls.key}.{name}={value} is not possible.", "Use true or false.")
        if options.get("precision", "float32") not in PRECISIONS:
            raise unknown_choice(f"{cls.key}.precision", options["precision"], PRECISIONS)

    def on(self, device: torch.device) -> Self:
        """Return what of this is possible on ``device``; what is not, and only costs time, is logged.

        Raises:
            ConfigError: CUDA graphs without a CUDA device.
            ResourceError: the device cannot compute in bfloat16.
        """
        if self.cuda_graph and device.type != "cuda":
            raise ConfigError(
                f"{self.key}.cuda_graph=true needs a CUDA device, and device is {device}.",
                f"Set {self.key}.cuda_graph=false or device=cuda.",
            )
        if self.precision == "bfloat16":
            check_bfloat16(device, f"{self.key}.precision")
        reason = no_compiler(device) if self.compile else None
        if reason is None:
            return self
        warn_once(f"{self.key}.compile=true is ignored: {reason}.")
        return replace(self, compile=False)

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """Return the context in which networks compute.

        No rounded copy of a weight is kept: an update takes steps, and the actor would be asked of the critic
        of before its step. Frozen networks have none anyway.
        """
        dtype = PRECISIONS[self.precision]
        return torch.autocast(device.type, dtype, cache_enabled=False) if dtype else contextlib.nullcontext()

    def eager(self) -> AbstractContextManager[Any]:
        """Return a context in which compiled networks run uncompiled."""
        return torch.compiler.set_stance("force_eager") if self.compile else contextlib.nullcontext()
