"""Point features of the target: pooled over a mask, or sampled at a point (SAM-G, section "Identify")."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def mask_on_grid(mask: Tensor, grid: int) -> Tensor:
    """Return which cells of a feature grid belong to a mask.

    A cell belongs when at least half of its (triangle-filtered) area does. An object thinner than a cell
    fills none by half; then the best-covered cells stand for it, so the result is never empty.

    Args:
        mask: bool (H, W), not empty.
        grid: G.

    Returns:
        bool (G, G).
    """
    share = F.interpolate(
        mask[None, None].float(), size=(grid, grid), mode="bilinear", align_corners=False, antialias=True
    )[0, 0]
    return share >= share.max().clamp(max=0.5)


def pooled_feature(feature_map: Tensor, cells: Tensor) -> Tensor:
    """Return the unit target vector: half the mean and half the channel-wise maximum over the cells.

    Args:
        feature_map: float (C, G, G), raw features.
        cells: bool (G, G), not empty.

    Returns:
        float (C,), of length 1.
    """
    inside = feature_map[:, cells]
    return F.normalize(0.5 * inside.mean(dim=1) + 0.5 * inside.amax(dim=1), dim=0)


def bilinear_cells(feature_map: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Mix the four cells around fractional grid positions; positions beyond the border are clamped.

    Args:
        feature_map: float (C, G, G).
        x: float (P,), column in cells, 0 being the centre of the first cell.
        y: float (P,), row in cells.

    Returns:
        float (P, C), not normalised.
    """
    last = feature_map.shape[-1] - 1
    x, y = x.clamp(0, last), y.clamp(0, last)
    left, top = x.floor().long(), y.floor().long()
    right, bottom = (left + 1).clamp(max=last), (top + 1).clamp(max=last)
    dx, dy = x - left, y - top
    upper = feature_map[:, top, left] * (1 - dx) + feature_map[:, top, right] * dx
    lower = feature_map[:, bottom, left] * (1 - dx) + feature_map[:, bottom, right] * dx
    return (upper * (1 - dy) + lower * dy).T


def point_features(feature_map: Tensor, points: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Return unit features at image points; pixel p lies at cell ``(p + 0.5) * G / W - 0.5``.

    Args:
        feature_map: float (C, G, G), raw features.
        points: float (P, 2), (x, y) in image pixels.
        image_size: (H, W) of the image.

    Returns:
        float (P, C), rows of length 1.
    """
    grid = feature_map.shape[-1]
    x = (points[:, 0] + 0.5) * grid / image_size[1] - 0.5
    y = (points[:, 1] + 0.5) * grid / image_size[0] - 0.5
    return F.normalize(bilinear_cells(feature_map, x, y), dim=1)


def unit_noise(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw float32 Gaussian directions of length 1 along the last axis, on the CPU."""
    return F.normalize(torch.randn(shape, generator=generator), dim=-1)
