"""Ten tables of either difficulty, generated: stone and wood, or whole pictures of places.

RL-ViGen's Adroit levels cover the table with one of ten pictures from its repository: materials in its easy
levels; towns, bricks and foils in its hard ones. These are our own, and belong to random streams that nothing
is trained on.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from common.seeding import counter_rng
from envs.procedural_scenes import Layer, garden, landscape, noise, room

TABLES = 10
VERSION = 1  # raise it when a picture changes: results record it


@lru_cache(maxsize=2 * TABLES)
def table_picture(difficulty: str, index: int, size: int) -> np.ndarray:
    """Return picture ``index`` of ``TABLES`` for a table.

    Args:
        difficulty: ``easy`` (materials) or ``hard`` (places).
        index: from 0.
        size: side in pixels.

    Returns:
        uint8 (size, size, 3) RGB, read only: it is kept, for episodes come back to it.
    """
    rng = counter_rng(0, f"level-tables-{difficulty}", index)
    picture = _material(rng, size) if difficulty == "easy" else _place(rng, size, index)
    picture = picture.clip(0, 255).astype(np.uint8)
    picture.flags.writeable = False
    return picture


def _material(rng: np.random.Generator, size: int) -> np.ndarray:
    """Return stone (as fine in all directions) or wood (drawn out in one): two tones and their mixtures."""
    stretch = 1.0 if rng.random() < 0.5 else 6.0
    tone = _tone(rng)
    other = tone * rng.uniform(0.55, 0.85)
    share = 1 / (1 + np.exp(-2 * noise(rng, size, rng.uniform(1.2, 1.8), stretch)))
    grain = 4 * noise(rng, size, 0.3)
    return tone * share[..., None] + other * (1 - share[..., None]) + grain[..., None]


def _tone(rng: np.random.Generator) -> np.ndarray:
    """Return the tone of a stone or a wood: float32 (3,) RGB in [0, 255]."""
    hue, saturation, value = rng.uniform((10, 0.02, 0.45), (50, 0.6, 0.95))
    pixel = np.array([[[hue, saturation, value]]], np.float32)
    return cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0] * 255


def _place(rng: np.random.Generator, size: int, index: int) -> np.ndarray:
    """Return a place seen from where its layers lie over one another without a shift."""
    layers: list[Layer] = (room, garden, landscape)[index % 3](rng, size)
    picture = layers[0].image
    for layer in layers[1:]:
        alpha = np.ones((size, size, 1), np.float32) if layer.alpha is None else layer.alpha[..., None]
        picture = picture * (1 - alpha) + layer.image * alpha
    return picture
