"""Image augmentations, applied to stacks of frames on the device."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def random_shift(obs: Tensor, pad: int = 4, generator: torch.Generator | None = None) -> Tensor:
    """Shift each observation by up to ``pad`` pixels in each direction, repeating its border.

    The shift is the same for all channels (hence all frames of a stack) of an observation and is resampled
    bilinearly. Source: DrQ-v2 (Yarats et al. 2021), section 3.1.

    Args:
        obs: float32 (N, C, S, S), any range.
        pad: largest shift in pixels.
        generator: source of the shifts, on the device of ``obs``.

    Returns:
        float32 (N, C, S, S).
    """
    count, _, height, width = obs.shape
    if height != width:
        raise ValueError(f"obs: expected square frames, got {height} x {width}")
    padded_size = height + 2 * pad
    padded = F.pad(obs, (pad, pad, pad, pad), mode="replicate")
    # grid_sample's coordinates run over [-1, 1] from the outer edges of the first and last pixel.
    centres = (torch.arange(height, device=obs.device, dtype=obs.dtype) * 2 + 1) / padded_size - 1
    shift = torch.randint(0, 2 * pad + 1, (count, 2), generator=generator, device=obs.device)
    offset = shift.to(obs.dtype) * (2.0 / padded_size)
    columns = (centres + offset[:, :1]).unsqueeze(1).expand(count, height, width)
    rows = (centres + offset[:, 1:]).unsqueeze(2).expand(count, height, width)
    grid = torch.stack([columns, rows], dim=-1)
    return F.grid_sample(padded, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
