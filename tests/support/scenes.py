"""Drawn scenes: a coloured square on a textured ground, with its mask."""

import numpy as np


def scene(seed=0, size=48, colour=(220, 60, 40), texture=40, at=None):
    """Return uint8 (size, size, 3) and the square's mask, bool (size, size)."""
    rng = np.random.default_rng(seed)
    image = rng.integers(60, 60 + texture, (size, size, 3), dtype=np.uint8)
    image[..., 2] += 90
    mask = np.zeros((size, size), dtype=bool)
    x, y = at if at is not None else (size // 3, size // 3)
    mask[y : y + size // 3, x : x + size // 3] = True
    noise = rng.integers(0, 12, (size, size, 3))
    image[mask] = (np.array(colour) + noise)[mask].clip(0, 255).astype(np.uint8)
    return image, mask
