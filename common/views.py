"""Pictures of one camera, (H, W, 3), and of V cameras at once, (V, H, W, 3): what is the same for both."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def view_count(shape: Sequence[int]) -> int:
    """Return V of the shape of a picture: (H, W, 3), which is one view, or (V, H, W, 3).

    Raises:
        ValueError: it is neither.
    """
    if len(shape) not in (3, 4):
        raise ValueError(f"expected the shape (H, W, C) or (V, H, W, C), got {tuple(shape)}")
    return 1 if len(shape) == 3 else int(shape[0])


def stacked_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """Return (V * C, H, W), what ``channels_first`` makes of a picture of that shape."""
    height, width, channels = shape[-3:]
    return view_count(shape) * channels, height, width


def channels_first(pictures: np.ndarray, several: bool) -> np.ndarray:
    """Return pictures as encoders read them: the views' channels one after another, cameras in their order.

    Source: RL-ViGen's Adroit environments, which join the cameras of a moment before they stack moments.

    Args:
        pictures: (..., H, W, C), or (..., V, H, W, C) where there are several cameras.
        several: whether there are.

    Returns:
        (..., V * C, H, W); a view of the data for one camera.
    """
    moved = np.moveaxis(pictures, -1, -3)
    return moved.reshape(*moved.shape[:-4], -1, *moved.shape[-2:]) if several else moved


def apart(row: np.ndarray, views: int) -> np.ndarray:
    """Undo ``side_by_side``: (H, V * W, ...) becomes (V, H, W, ...)."""
    return np.stack(np.split(row, views, axis=1))


def side_by_side(pictures: np.ndarray) -> np.ndarray:
    """Join views in one row: (V, H, W, ...) becomes (H, V * W, ...)."""
    return np.concatenate(list(pictures), axis=1)
