"""Pictures from folders: which files are some, reading them, cutting random parts out of them."""

from __future__ import annotations

import math
import os
import threading
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from common.files import BROKEN_PICTURE

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm")
#: What ``open_image`` raises on a file that is no picture, is damaged, or would take gigabytes.
UNREADABLE = (*BROKEN_PICTURE, Warning, Image.DecompressionBombError)

_OPENING = threading.Lock()  # what warnings do is a setting of the whole process


def find_images(root: Path) -> list[Path]:
    """Return the pictures in ``root`` and its subfolders in a fixed order; links are followed."""
    found = [Path(folder, name) for folder, _, names in os.walk(root, followlinks=True) for name in names]
    return sorted(path for path in found if path.suffix.lower() in SUFFIXES)


def open_image(path: Path, width: int, height: int) -> Image.Image:
    """Return the whole picture in RGB; a JPEG may come smaller, but not below the given size in pixels.

    Raises:
        Exception: one of ``UNREADABLE``.
    """
    with _OPENING, warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        opened = Image.open(path)
    with opened as image:
        image.draft("RGB", (width, height))
        return image.convert("RGB")


def random_part(image: Image.Image, width: int, height: int, rng: np.random.Generator) -> Image.Image:
    """Return a random part of ``image``, 8 % of it or more, 3:4 to 4:3 in proportions, resized.

    Args:
        image: RGB.
        width: of the result in pixels.
        height: of the result.
        rng: decides size, proportions and place.
    """
    share, ratio = rng.uniform(0.08, 1.0), math.exp(rng.uniform(-1, 1) * math.log(4 / 3))
    area = share * image.width * image.height
    wide, high = min(math.sqrt(area * ratio), image.width), min(math.sqrt(area / ratio), image.height)
    left, top = rng.uniform(0, image.width - wide), rng.uniform(0, image.height - high)
    box = (left, top, min(left + wide, image.width), min(top + high, image.height))
    return image.resize((width, height), Image.Resampling.BILINEAR, box=box)
