"""Which points of the reference become prompts of their own, when a number of them is asked for."""

from __future__ import annotations

import numpy as np

from common.errors import ConfigError
from samg.reference import Reference


def choose_extra_points(reference: Reference, wanted: bool | int) -> np.ndarray:
    """Return the extra points of a reference, float32 (P, 2), (x, y).

    Args:
        reference: its own points come first, in their order.
        wanted: true for all of them, false for none, or P; missing ones are spread over the mask.

    Raises:
        ConfigError: the mask has fewer pixels than points are wanted.
    """
    if isinstance(wanted, bool):
        return reference.points if wanted else reference.points[:0]
    listed = reference.points[:wanted]
    return np.concatenate((listed, spread_points(reference.mask, listed, wanted - len(listed))))


def spread_points(mask: np.ndarray, taken: np.ndarray, count: int) -> np.ndarray:
    """Spread points over a mask: each is the pixel farthest from all before it (Gonzalez, 1985).

    Pixels at the mask's edge are left out where others remain, since their features are half background.
    Without any point before it, the first is the pixel nearest to the centre of the mask.

    Args:
        mask: bool (H, W).
        taken: float (K, 2), (x, y) of the points that are there already.
        count: how many to add.

    Returns:
        float32 (count, 2), (x, y).

    Raises:
        ConfigError: the mask has fewer pixels than that.
    """
    rows, columns = np.nonzero(_inside(mask) if _inside(mask).sum() >= count else mask)
    pixels = np.stack((columns, rows), axis=1).astype(np.float32)
    if count > len(pixels):
        raise ConfigError(
            f"masker.extra_points asks for {count} points beside those listed, but the mask has only "
            f"{len(pixels)} pixels.",
            "Ask for fewer.",
        )
    chosen = [point for point in np.asarray(taken, np.float32)]
    for _ in range(count):
        if chosen:
            squares = np.square(pixels[:, None] - np.stack(chosen)[None]).sum(2)
            chosen.append(pixels[squares.min(1).argmax()])
        else:
            chosen.append(pixels[np.square(pixels - pixels.mean(0)).sum(1).argmin()])
    return np.array(chosen[len(taken) :], np.float32).reshape(count, 2)


def _inside(mask: np.ndarray) -> np.ndarray:
    """Return the pixels of a mask whose eight neighbours belong to it too."""
    height, width = mask.shape
    padded = np.pad(mask, 1)
    neighbours = [padded[y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return np.logical_and.reduce(neighbours)
