"""Resizes that must be exact: Pillow's bilinear filter on uint8, and bilinear steps composed into one matrix.

Pillow resamples in two separable passes with 22-bit integer coefficients and rounds to uint8 between them;
computed the same way here, the result equals Pillow's in every pixel on every device, without a host copy.
"""

from __future__ import annotations

import functools
import itertools

import torch
from torch import Tensor

_PRECISION_BITS = 22


def longest_side_shape(height: int, width: int, long_side: int) -> tuple[int, int]:
    """Return (height, width) scaled so that the longer side is ``long_side``, rounded half up as SAM does."""
    scale = long_side / max(height, width)
    return int(height * scale + 0.5), int(width * scale + 0.5)


@functools.lru_cache(maxsize=64)
def _pillow_taps(source: int, target: int) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]:
    """Return, tap by tap, the source indices and integer weights of every target pixel."""
    scale = source / target
    support = max(scale, 1.0)
    rows = []
    for x in range(target):
        centre = (x + 0.5) * scale
        first = max(int(centre - support + 0.5), 0)
        last = min(int(centre + support + 0.5), source)
        raw = [max(0.0, 1.0 - abs((i - centre + 0.5) / support)) for i in range(first, last)]
        total = sum(raw)
        rows.append((first, [int(0.5 + w / total * (1 << _PRECISION_BITS)) for w in raw]))
    taps = max(len(weights) for _, weights in rows)
    indices = tuple(tuple(min(first + k, source - 1) for first, _ in rows) for k in range(taps))
    weights = tuple(tuple(w[k] if k < len(w) else 0 for _, w in rows) for k in range(taps))
    return indices, weights


@functools.lru_cache(maxsize=64)
def _taps_on(source: int, target: int, device: torch.device) -> tuple[Tensor, Tensor]:
    indices, weights = _pillow_taps(source, target)
    return torch.tensor(indices, device=device), torch.tensor(weights, dtype=torch.int32, device=device)


def _pillow_pass(image: Tensor, target: int, dim: int) -> Tensor:
    """Resample int32 values in [0, 255] along ``dim`` (-1 or -2) to ``target`` and round as Pillow does.

    Weights are not negative and add up to one but for a few units of 2**-22: nothing needs to be cut off.
    """
    indices, weights = _taps_on(image.shape[dim], target, image.device)
    shape = list(image.shape)
    shape[dim] = target
    total = image.new_full(shape, 1 << (_PRECISION_BITS - 1))
    for index, weight in zip(indices, weights, strict=True):
        factor = weight if dim == -1 else weight.unsqueeze(-1)
        # In place: on a CPU fresh arrays of this size cost more than the arithmetic.
        total += image.index_select(dim, index).mul_(factor)
    return total.bitwise_right_shift_(_PRECISION_BITS)


def pillow_resize(images: Tensor, height: int, width: int) -> Tensor:
    """Resize as ``PIL.Image.resize((width, height), BILINEAR)`` does, on the images' device.

    Columns first, then rows: the order of every Pillow while the aspect ratio is kept. (From version 13 on it
    takes rows first where the height shrinks and the width grows.)

    Args:
        images: uint8 (N, H, W, C) in [0, 255].
        height: rows of the result.
        width: columns of the result.

    Returns:
        int32 (N, C, height, width) in [0, 255], fresh memory, equal to Pillow's in every pixel.

    Raises:
        ValueError: images of another type or number of axes.
    """
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise ValueError(
            f"images: expected uint8 of shape (N, H, W, C), got {images.dtype} {tuple(images.shape)}"
        )
    planes = images.permute(0, 3, 1, 2).to(torch.int32, memory_format=torch.contiguous_format)
    return _pillow_pass(_pillow_pass(planes, width, -1), height, -2)


def bilinear_matrix(source: int, target: int) -> Tensor:
    """Return the float64 (target, source) matrix of one axis of ``F.interpolate(mode="bilinear")``.

    Half-pixel centres (align_corners=False), edges clamped, no antialiasing.
    """
    position = ((torch.arange(target, dtype=torch.float64) + 0.5) * (source / target) - 0.5).clamp_(min=0)
    low = position.floor().long().clamp_(max=source - 1)
    high = (low + 1).clamp_(max=source - 1)
    fraction = (position - low).unsqueeze(1)
    matrix = torch.zeros(target, source, dtype=torch.float64)
    matrix.scatter_add_(1, low.unsqueeze(1), 1 - fraction)
    matrix.scatter_add_(1, high.unsqueeze(1), fraction)
    return matrix


@functools.lru_cache(maxsize=64)
def _composed(
    stages: tuple[int, ...], crop: int, target: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    matrix = torch.eye(stages[0], dtype=torch.float64)
    for source, size in itertools.pairwise(stages):
        matrix = bilinear_matrix(source, size) @ matrix
    matrix = bilinear_matrix(crop, target) @ matrix[:crop]
    return matrix.to(device=device, dtype=dtype)


def composed_resize(
    stages: tuple[int, ...],
    target: int,
    crop: int | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return one axis of several bilinear resizes in a row as one matrix; do not write to it (it is cached).

    Args:
        stages: sizes passed through, for instance (64, 256, 1024).
        target: size at the end.
        crop: how much of the last stage is kept before the last resize; default all of it.
        device: where the matrix is wanted.
        dtype: its type; composed in float64 whatever it is.

    Returns:
        (target, stages[0]) matrix U; a square map S becomes ``U_rows @ S @ U_columns.T``.
    """
    return _composed(stages, crop or stages[-1], target, torch.device(device), dtype)


def resize_maps(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Apply one composed operator per axis: (..., G, G) -> (..., H, W), H and W the rows of the operators."""
    return rows @ maps @ columns.T


def prompt_frame_scale(image_size: tuple[int, int], frame: int) -> tuple[float, float]:
    """Return the factors (x, y) from image pixels to the prompt frame whose long side is ``frame``."""
    height, width = image_size
    if min(height, width) < 1:
        raise ValueError(f"image_size: expected positive (H, W), got {image_size}")
    rows, columns = longest_side_shape(height, width, frame)
    return columns / width, rows / height
