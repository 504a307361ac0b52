"""How updates are computed, as opposed to what: layout, precision, compilation, CUDA graphs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from common.errors import unknown_choice
from common.numerics import Numerics

SHIFTS = ("crop", "bilinear")


@dataclass(frozen=True)
class AgentNumerics(Numerics):
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

    key = "agent.numerics"
    words = ("precision", "shift")

    channels_last: bool = True
    shift: str = "crop"

    @classmethod
    def of(cls, options: AgentNumerics | Mapping[str, Any] | None) -> AgentNumerics:
        """Return the choices named in ``options``, defaults for the others.

        Raises:
            ConfigError: an unknown name or value.
        """
        if isinstance(options, AgentNumerics):
            return options
        given = dict(options or {})
        known = {field.name for field in fields(cls)}
        for name in given:
            if name not in known:
                raise unknown_choice("key of agent.numerics", name, known)
        cls.check(given)
        chosen = cls(**given)
        if chosen.shift not in SHIFTS:
            raise unknown_choice("agent.numerics.shift", chosen.shift, SHIFTS)
        return chosen

    def apply(self, networks: Iterable[nn.Module]) -> None:
        """Tell networks how to compute."""
        for network in networks:
            for module in network.modules():
                if isinstance(module, ImageNetwork):
                    module.channels_last = self.channels_last
            if self.compile:
                network.compile()


class ImageNetwork(nn.Module):
    """A network that begins with images; ``AgentNumerics.apply`` sets their layout."""

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
