"""Prompts from maps and masks: best and worst points, boxes. All stay on the device and in the batch.

Nothing here asks the device for a value: no ``item``, no boolean indexing, no branch on data.
"""

from __future__ import annotations

import torch
from torch import Tensor

POSITIVE, NEGATIVE, NO_POINT = 1, 0, -1


def pixel_points(index: Tensor, width: int) -> Tensor:
    """Turn row-major pixel indices (...) into float points (..., 2), (x, y)."""
    return torch.stack((index % width, index // width), dim=-1).float()


def highest_points(maps: Tensor) -> Tensor:
    """Return the pixel of the largest value of each map.

    Args:
        maps: float (N, T, H, W).

    Returns:
        float (N, T, 2), (x, y); the first in reading order where several are equal.
    """
    return pixel_points(maps.flatten(2).max(-1).indices, maps.shape[-1])


def lowest_points(maps: Tensor, window: Tensor | None = None) -> Tensor:
    """Return the pixel of the smallest value of each map inside a window.

    Args:
        maps: float (N, H, W).
        window: bool (N, H, W) or (H, W), where to look; everywhere if None. Nothing to find in an empty
            window: the point is then (0, 0).

    Returns:
        float (N, 2), (x, y).
    """
    if window is not None:
        maps = maps.masked_fill(~window, torch.inf)
    return pixel_points(maps.flatten(1).min(-1).indices, maps.shape[-1])


Box = tuple[float, float, float, float]


def mask_boxes(masks: Tensor, fallback: Box) -> tuple[Tensor, Tensor]:
    """Return the tight box of each mask.

    Args:
        masks: bool (N, H, W).
        fallback: the box of an empty mask; numbers, since a tensor would have to be copied to the device.

    Returns:
        boxes: float (N, 4), x0 y0 x1 y1, the first and the last pixel, both inside.
        empty: bool (N,), which masks have no pixel.
    """
    height, width = masks.shape[-2:]
    columns, rows = masks.any(dim=1), masks.any(dim=2)
    x = torch.arange(width, device=masks.device)
    y = torch.arange(height, device=masks.device)
    # Numbers are filled in, not given to ``where``, which would copy them to a GPU and wait for that.
    no_column, no_row = ~columns, ~rows
    sides = (
        x.expand_as(columns).masked_fill(no_column, width).amin(1),
        y.expand_as(rows).masked_fill(no_row, height).amin(1),
        x.expand_as(columns).masked_fill(no_column, -1).amax(1),
        y.expand_as(rows).masked_fill(no_row, -1).amax(1),
    )
    empty = no_row.all(dim=1)
    boxes = [side.float().masked_fill(empty, value) for value, side in zip(fallback, sides, strict=True)]
    return torch.stack(boxes, dim=1), empty


def box_windows(boxes: Tensor, size: tuple[int, int], end_inside: bool) -> Tensor:
    """Return the pixels of each box as bool (N, H, W).

    Args:
        boxes: float (N, 4), x0 y0 x1 y1.
        size: (H, W).
        end_inside: whether column x1 and row y1 belong to the window.
    """
    x = torch.arange(size[1], device=boxes.device, dtype=boxes.dtype)
    y = torch.arange(size[0], device=boxes.device, dtype=boxes.dtype)
    x0, y0, x1, y1 = (side[:, None] for side in boxes.unbind(1))
    if end_inside:
        columns, rows = (x >= x0) & (x <= x1), (y >= y0) & (y <= y1)
    else:
        columns, rows = (x >= x0) & (x < x1), (y >= y0) & (y < y1)
    return rows[:, :, None] & columns[:, None, :]


def frame_prompts(maps: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
    """Assemble the prompts of the first pass: target (+), background (-), then one (+) per part.

    Args:
        maps: float (N, T, H, W), the target's map first, then the parts'.
        negative: float (N, 2), the background point.

    Returns:
        points: float (N, T + 1, 2).
        labels: int64 (N, T + 1).
    """
    positive = highest_points(maps)
    points = torch.cat((positive[:, :1], negative[:, None], positive[:, 1:]), dim=1)
    labels = torch.full(points.shape[:2], POSITIVE, device=maps.device, dtype=torch.int64)
    labels[:, 1].fill_(NEGATIVE)
    return points, labels


def add_point(points: Tensor, labels: Tensor, point: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Append one point (N, 2) and its label (N,) to the prompts of each frame."""
    return torch.cat((points, point[:, None]), dim=1), torch.cat((labels, label[:, None]), dim=1)
