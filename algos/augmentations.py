"""Image augmentations, applied to stacks of frames on the device; all randomness comes from a generator."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def random_shift(obs: Tensor, pad: int = 4, generator: torch.Generator | None = None) -> Tensor:
    """Shift each observation by up to ``pad`` pixels in each direction, repeating its border.

    The shift is the same for all channels (hence all frames of a stack) of an observation and is resampled
    bilinearly. Source: DrQ-v2 (Yarats et al. 2021), section 3.1. See ``crop_shift``.

    Args:
        obs: (N, C, S, S), any dtype and range.
        pad: largest shift in pixels.
        generator: source of the shifts, on the device of ``obs``.

    Returns:
        float32 (N, C, S, S).
    """
    obs = obs.float()
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


def crop_shift(obs: Tensor, pad: int = 4, generator: torch.Generator | None = None) -> Tensor:
    """Shift as ``random_shift`` does, from the same random numbers, by copying pixels.

    The shifts are whole pixels, so the bilinear grid only re-reads pixels, with a rounding error of up to
    0.004 grey levels (of 255) in float32; the copy is exact and takes about 0.4 of the time on a CPU.

    Args:
        obs: (N, C, S, S), any dtype and range.
        pad: largest shift in pixels.
        generator: source of the shifts, on the device of ``obs``.

    Returns:
        (N, C, S, S) of the dtype of ``obs``.
    """
    count, channels, height, width = obs.shape
    if height != width:
        raise ValueError(f"obs: expected square frames, got {height} x {width}")
    shift = torch.randint(0, 2 * pad + 1, (count, 2), generator=generator, device=obs.device)
    places = torch.arange(height, device=obs.device) - pad
    columns = (places + shift[:, :1]).clamp(0, width - 1)
    rows = (places + shift[:, 1:]).clamp(0, height - 1)
    pixels = (rows[:, :, None] * width + columns[:, None, :]).view(count, 1, -1).expand(-1, channels, -1)
    return obs.flatten(2).gather(2, pixels).view(obs.shape)


def random_overlay(obs: Tensor, images: Tensor, alpha: float = 0.5) -> Tensor:
    """Blend one image into all frames of each observation.

    Source: SVEA (Hansen et al. 2021); the images come from ``algos.overlays``.

    Args:
        obs: uint8 or float (N, 3 * k, H, W) in [0, 255].
        images: uint8 or float (N, 3, H, W) in [0, 255].
        alpha: share of the image.

    Returns:
        float32 (N, 3 * k, H, W) in [0, 255].
    """
    blended = obs.float().unflatten(1, (-1, 3)).lerp(images.float().unsqueeze(1), alpha)
    return blended.flatten(1, 2)


def erase_frequencies(obs: Tensor, low: Tensor | float, width: Tensor | float) -> Tensor:
    """Remove the square ring of frequencies ``low <= max(|fx|, |fy|) < low + width`` from every channel.

    Source: SRM (Huang et al. 2022), with the square ring of its code. That code transforms over the three
    colours too; the ring is the same for all of them, so that step cancels and is left out.

    Args:
        obs: float32 (N, C, H, W).
        low: inner limit in cycles per pixel, 0 to 0.5.
        width: of the ring.

    Returns:
        float32 (N, C, H, W); values may leave the range of ``obs``.
    """
    size = obs.shape[-2:]
    vertical = torch.fft.fftfreq(size[0], device=obs.device).abs().unsqueeze(1)
    frequency = torch.maximum(vertical, torch.fft.rfftfreq(size[1], device=obs.device))
    kept = (frequency < low) | (frequency >= low + width)
    return torch.fft.irfft2(torch.fft.rfft2(obs) * kept, s=size)


def random_frequency_mask(
    obs: Tensor,
    generator: torch.Generator | None = None,
    probability: float = 0.5,
    max_frequency: float = 0.5,
    max_width: float = 0.05,
) -> Tensor:
    """Remove one random ring of frequencies from the whole batch, or change nothing.

    Source: SRM (Huang et al. 2022); limits are rounded to two decimals as in its code.

    Args:
        obs: float32 (N, C, H, W).
        generator: source of the ring, on the device of ``obs``.
        probability: of removing anything.
        max_frequency: largest inner limit, in cycles per pixel.
        max_width: largest width.

    Returns:
        float32 (N, C, H, W).
    """
    chance, low, width = torch.rand(3, generator=generator, device=obs.device).unbind()
    low, width = (low * max_frequency).round(decimals=2), (width * max_width).round(decimals=2)
    return torch.where(chance < probability, erase_frequencies(obs, low, width), obs)
