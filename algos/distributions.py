"""The policy's distribution: a normal clamped (DrQ-v2) or squashed (SAC) into the action range."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


class TruncatedNormal:
    """Normal distribution whose samples are clamped to (-1, 1) with a straight-through gradient.

    Source: DrQ-v2 (Yarats et al. 2021), section 3.1; noise clipping as in TD3 (Fujimoto et al. 2018).

    Args:
        loc: float (N, A), means in [-1, 1].
        scale: standard deviation, the same for all entries; a tensor where it changes between replays.
        epsilon: how far samples stay inside the range.
    """

    def __init__(self, loc: Tensor, scale: float | Tensor, epsilon: float = 1e-6) -> None:
        if not isinstance(scale, Tensor) and scale < 0:
            raise ValueError(f"scale: expected a value >= 0, got {scale}")
        self.loc = loc
        self.scale = scale
        self.bound = 1.0 - epsilon

    @property
    def mean(self) -> Tensor:
        """The mode, which evaluation acts by: float (N, A)."""
        return self.loc

    def sample(self, clip: float | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Return float (N, A) samples; gradients reach ``loc`` as if nothing had been clamped.

        Args:
            clip: limit of the noise added to the mean, or None.
            generator: source of the noise, on the device of ``loc``.
        """
        shape, device, dtype = self.loc.shape, self.loc.device, self.loc.dtype
        noise = torch.randn(shape, generator=generator, device=device, dtype=dtype) * self.scale
        if clip is not None:
            noise = noise.clamp(-clip, clip)
        raw = self.loc + noise
        return raw + (raw.clamp(-self.bound, self.bound) - raw).detach()

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density of ``value`` (N, A) under the normal before clamping, per entry."""
        scale = torch.as_tensor(self.scale, dtype=self.loc.dtype, device=self.loc.device).clamp(min=1e-6)
        return -0.5 * ((value - self.loc) / scale).square() - scale.log() - 0.5 * math.log(2 * math.pi)


class SquashedNormal:
    """Normal distribution whose samples pass through tanh.

    Source: SAC (Haarnoja et al. 2018), appendix C.

    Args:
        loc: float (N, A), means before squashing.
        scale: float (N, A), standard deviations before squashing.
    """

    def __init__(self, loc: Tensor, scale: Tensor) -> None:
        self.loc = loc
        self.scale = scale

    @property
    def mean(self) -> Tensor:
        """The squashed mean, which evaluation acts by: float (N, A) in [-1, 1]."""
        return torch.tanh(self.loc)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Return float (N, A) samples; see ``sample_with_log_prob``."""
        return self.sample_with_log_prob(generator)[0]

    def sample_with_log_prob(self, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Return samples (N, A), through which gradients flow, and the log density of each, (N, 1).

        Args:
            generator: source of the noise, on the device of ``loc``.
        """
        shape, device, dtype = self.loc.shape, self.loc.device, self.loc.dtype
        noise = torch.randn(shape, generator=generator, device=device, dtype=dtype)
        raw = self.loc + noise * self.scale
        normal = -0.5 * noise.square() - self.scale.log() - 0.5 * math.log(2 * math.pi)
        # log(1 - tanh(x)^2), written so that nothing cancels where tanh is nearly 1.
        slope = 2 * (math.log(2) - raw - F.softplus(-2 * raw))
        return torch.tanh(raw), (normal - slope).sum(-1, keepdim=True)
