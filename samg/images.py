"""Reading reference images and masks: every file is read whole, and what had to be converted is logged."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from common.errors import InputError
from common.files import BROKEN_PICTURE
from common.paths import existing_file, resolve

logger = logging.getLogger(__name__)

_LIT = 16  # a cut-out's background after JPEG: its brightest channel stays at or below this
_WHITE = 239
_GREY_SPREAD = 12
_CURE = "Save it again as an 8-bit RGB PNG."


def locate(path: str | os.PathLike[str], what: str) -> Path:
    """Return the file at ``path``; where a ``.jpg`` is missing, the ``.png`` of the same name.

    Raises:
        InputError: neither exists.
    """
    found = resolve(path)
    if not found.exists() and found.suffix.lower() in (".jpg", ".jpeg"):
        sibling = resolve(Path(path).with_suffix(".png"))
        if sibling.exists():
            logger.warning("%s %s does not exist; using %s", what, path, sibling.name)
            return sibling
    return existing_file(path, what)


def read_rgb(path: str | os.PathLike[str], what: str, expect_grey: bool = False) -> tuple[np.ndarray, Path]:
    """Read an image completely.

    Args:
        path: the file; see ``locate``.
        what: how messages call it, such as "reference image".
        expect_grey: a grey image needs no notice (masks are grey).

    Returns:
        uint8 (H, W, 3) RGB, and the path that was read.

    Raises:
        InputError: missing, not an image, truncated, or of a kind that has no RGB form.
    """
    found = locate(path, what)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(found) as check:
                check.verify()
            with Image.open(found) as image:
                image.load()
                return _to_rgb(image, f"{what} {path}", expect_grey), found
    except UnidentifiedImageError as error:
        problem = "is not an image" if found.stat().st_size else "is an empty file"
        raise InputError(f"{what} {path} {problem}.", "Give a PNG or JPEG file.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{what} {path} is far too large ({error}).", _CURE) from error
    except BROKEN_PICTURE as error:
        raise InputError(f"{what} {path} is damaged ({error}).", "Copy or save it again.") from error


def _to_rgb(image: Image.Image, name: str, expect_grey: bool) -> np.ndarray:
    """Convert any common mode to uint8 (H, W, 3); transparency becomes black."""
    if image.mode == "RGB":
        return np.asarray(image)
    if image.mode == "F":
        raise InputError(f"{name} holds floating-point values.", _CURE)
    if not (expect_grey and image.mode in ("1", "L")):
        logger.warning("%s is of mode %s; converted to RGB", name, image.mode)
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.max(initial=0) > 255:
            values = (values.clip(0, 65535) + 128) // 257
        return np.repeat(values.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        coloured = image.convert("RGBA")
        black = Image.new("RGBA", coloured.size, (0, 0, 0, 255))
        return np.asarray(Image.alpha_composite(black, coloured).convert("RGB"))
    return np.asarray(image.convert("RGB"))


def is_binary(pixels: np.ndarray) -> bool:
    """Return whether a mask file is a binary mask, not a cut-out of the object on black.

    Binary are black and white, exactly or as JPEG left it, and files that hold nothing but 0 and 1.

    Args:
        pixels: uint8 (H, W, 3).
    """
    brightest, darkest = pixels.max(axis=2), pixels.min(axis=2)
    top = int(brightest.max())
    if top <= 1:
        return top == 1
    lit = brightest > _LIT
    if not lit.any() or int((brightest - darkest)[lit].max()) > _GREY_SPREAD:
        return False
    two_valued = len(np.unique(brightest)) <= 2 and top > 127
    return two_valued or float((brightest[lit] >= _WHITE).mean()) >= 0.8


def binarise(pixels: np.ndarray) -> np.ndarray:
    """Turn a mask file's pixels into a mask.

    A binary mask is split in the middle. Anything else is a cut-out, the object on black: a pixel belongs to
    it when its brightest channel exceeds 16.

    Args:
        pixels: uint8 (H, W, 3).

    Returns:
        bool (H, W).
    """
    brightest = pixels.max(axis=2)
    if not is_binary(pixels):
        return brightest > _LIT
    return brightest > (0 if brightest.max() <= 1 else 127)


def halo_share(image: np.ndarray, cutout: np.ndarray, mask: np.ndarray) -> float:
    """Return the share of a mask's pixels that look like JPEG's dark halo around a cut-out.

    A halo pixel is dark in the cut-out although the image is clearly brighter there.

    Args:
        image: uint8 (H, W, 3), the reference image.
        cutout: uint8 (H, W, 3), the mask file's pixels.
        mask: bool (H, W), not empty.
    """
    shown, kept = image.max(axis=2).astype(np.int16), cutout.max(axis=2).astype(np.int16)
    halo = mask & (kept <= 96) & (shown - kept > 32)
    return float(halo.sum() / mask.sum())
