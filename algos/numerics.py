"""How updates are computed, as opposed to what: layout, precision, compilation, CUDA graphs."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from common.errors import ConfigError, unknown_choice
from common.numerics import PRECISIONS, check_bfloat16, no_compiler

SHIFTS = ("crop", "bilinear")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Numerics:
    """Choices that change the speed of an update and the last bits of its results (``bfloat16``: more).

    Attributes:
        precision: of convolutions and matrix products in updates: ``float32``, or ``bfloat16`` (parameters,
            losses, optimisers and ``act`` stay float32).
        channels_last: convolve in channels-last layout; the same sums in another order.
        shift: random shifts copy pixels (``crop``) or re-read them through a bilinear grid (``bilinear``, as
            DrQ-v2's code does), which rounds by up to 0.004 of 255 and takes longer.
        compile: compile the networks' forward and backward passes; needs a C++ compiler (on a GPU: Triton).
        cuda_graph: record an update once and replay it as one launch; needs a CUDA device.
    """

    precision: str = "float32"
    channels_last: bool = True
    shift: str = "crop"
    compile: bool = False
    cuda_graph: bool = False

    @classmethod
    def of(cls, options: Numerics | Mapping[str, Any] | None) -> Numerics:
        """Return the choices named in ``options``, defaults for the others.

        Raises:
            ConfigError: an unknown name or value.
        """
        if isinstance(options, Numerics):
            return options
        given = dict(options or {})
        known = {field.name for field in fields(cls)}
        for name, value in given.items():
            if name not in known:
                raise unknown_choice("key of agent.numerics", name, known)
            if name not in ("precision", "shift") and not isinstance(value, bool):
                raise ConfigError(f"agent.numerics.{name}={value} is not possible.", "Use true or false.")
        chosen = cls(**given)
        if chosen.precision not in PRECISIONS:
            raise unknown_choice("agent.numerics.precision", chosen.precision, PRECISIONS)
        if chosen.shift not in SHIFTS:
            raise unknown_choice("agent.numerics.shift", chosen.shift, SHIFTS)
        return chosen

    def on(self, device: torch.device) -> Numerics:
        """Return what of this is possible on ``device``; what is not, and only costs time, is logged.

        Raises:
            ConfigError: CUDA graphs without a CUDA device.
            ResourceError: the device cannot compute in bfloat16.
        """
        if self.cuda_graph and device.type != "cuda":
            raise ConfigError(
                f"agent.numerics.cuda_graph=true needs a CUDA device, and device is {device}.",
                "Set agent.numerics.cuda_graph=false or device=cuda.",
            )
        if self.precision == "bfloat16":
            check_bfloat16(device, "agent.numerics.precision")
        reason = no_compiler(device) if self.compile else None
        if reason is None:
            return self
        log.warning("agent.numerics.compile=true is ignored: %s.", reason)
        return Numerics(**{**asdict(self), "compile": False})

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """Return the context in which an update is computed."""
        dtype = PRECISIONS[self.precision]
        return torch.autocast(device.type, dtype) if dtype else contextlib.nullcontext()

    def eager(self) -> AbstractContextManager[Any]:
        """Return a context in which compiled networks run uncompiled."""
        return torch.compiler.set_stance("force_eager") if self.compile else contextlib.nullcontext()

    def apply(self, networks: Iterable[nn.Module]) -> None:
        """Tell networks how to compute."""
        for network in networks:
            for module in network.modules():
                if isinstance(module, ImageNetwork):
                    module.channels_last = self.channels_last
            if self.compile:
                network.compile()


class ImageNetwork(nn.Module):
    """A network that begins with images; ``Numerics.apply`` sets their layout."""

    channels_last: bool = True


def centred(obs: Tensor, channels_last: bool) -> Tensor:
    """Return observations in [-0.5, 0.5] as the encoders want them.

    Args:
        obs: (N, C, H, W) in [0, 255], uint8 or float.
        channels_last: the layout in memory of what is returned; the shape stays.

    Returns:
        float32 (N, C, H, W).
    """
    if channels_last:  # while a pixel is still one byte
        obs = obs.contiguous(memory_format=torch.channels_last)
    # One fresh array instead of three: large ones cost more than the arithmetic.
    return (obs / 255.0).sub_(0.5)
