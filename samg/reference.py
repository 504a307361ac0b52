"""The one annotated image that tells the masker what matters; checked before any model is loaded."""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from common.errors import InputError
from common.files import atomic_path, read_json, write_json
from samg.images import binarise, halo_share, is_binary, read_rgb

logger = logging.getLogger(__name__)

_MAX_COVER = 0.95
_MAX_HALO = 0.30
_FARTHEST = 1e9  # pixels; float32, in which points are kept, has no room for all numbers
_MASK_CURE = "Redraw it with annotate.py, or save a binary mask as PNG: 255 on the object, 0 elsewhere."
_POINTS_CURE = "Give extra_points_list as x y pairs inside the image, such as 40 24 23 68."


@dataclass(frozen=True, eq=False)
class Reference:
    """A reference image with the masks and points of what the agent should see.

    Attributes:
        image: uint8 (H, W, 3) RGB.
        mask: bool (H, W), the whole target.
        part_masks: bool (M, H, W), parts that each get a point prompt of their own.
        points: float32 (P, 2), (x, y) pixels that each get one, too.
        cutouts: uint8 (1 + M, H, W, 3), the targets on black, main mask first: pixels of the mask files where
            these are cut-outs, those of the image where they are binary; read in compat mode only.
        sources: where each of these came from, for people.
    """

    image: np.ndarray
    mask: np.ndarray
    part_masks: np.ndarray
    points: np.ndarray
    cutouts: np.ndarray
    sources: tuple[str, ...] = ()

    @classmethod
    def load(
        cls,
        original_image: str | os.PathLike[str],
        masked_image: str | os.PathLike[str],
        extra_points_list: Any = (),
        extra_masked_images_list: Iterable[str | os.PathLike[str]] | None = (),
        image_size: int | None = None,
    ) -> Reference:
        """Read and check a reference.

        Args:
            original_image: the plain render.
            masked_image: the target as a cut-out on black or as a binary mask.
            extra_points_list: (x, y) pairs, or their numbers in one flat list, array, tensor or text.
            extra_masked_images_list: masks of parts, in the same form as ``masked_image``.
            image_size: side in pixels at which the environment renders; None: any square will do.

        Raises:
            InputError: a file is missing, damaged or of another size; a mask is empty or covers everything;
                a point is no pair of finite numbers inside the image.
        """
        parts = extra_masked_images_list or ()
        if isinstance(parts, str | os.PathLike):
            parts = (parts,)
        image, image_path = read_rgb(original_image, "reference image")
        if image_size is not None:  # before the points, which a smaller image would not hold
            _check_resolution(image, image_path.name, image_size)
        files = [read_rgb(path, "mask image", expect_grey=True) for path in (masked_image, *parts)]
        for pixels, path in files:
            if pixels.shape != image.shape:
                raise InputError(
                    f"mask image {path} is {_size(pixels)} pixels, but reference image {image_path} is "
                    f"{_size(image)}.",
                    "Make both from the same render, at the same size.",
                )
        masks = [binarise(pixels) for pixels, _ in files]
        cutouts = []
        for (pixels, path), mask in zip(files, masks, strict=True):
            _check_mask(mask, f"mask image {path}")
            cutouts.append(image * mask[..., None] if is_binary(pixels) else pixels)
            _warn_halo(image, cutouts[-1], mask, path)
        points = parse_points(extra_points_list)
        sources = (image_path.name, *(path.name for _, path in files))
        return cls._checked(image, masks[0], masks[1:], points, np.stack(cutouts), sources)

    @classmethod
    def from_arrays(
        cls,
        image: np.ndarray,
        mask: np.ndarray,
        points: Any = (),
        part_masks: Iterable[np.ndarray] = (),
    ) -> Reference:
        """Make a reference of uint8 (H, W, 3), bool (H, W), points as in ``load`` and bool (M, H, W).

        Raises:
            InputError: as ``load``.
        """
        masks = [np.asarray(mask), *(np.asarray(part) for part in part_masks)]
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"image: expected uint8 (H, W, 3), got {image.dtype} {image.shape}")
        for index, one in enumerate(masks):
            if one.dtype != np.bool_ or one.shape != image.shape[:2]:
                raise ValueError(
                    f"mask {index}: expected bool {image.shape[:2]}, got {one.dtype} {one.shape}"
                )
            _check_mask(one, f"mask {index}")
        cutouts = np.stack([image * one[..., None] for one in masks])
        return cls._checked(image, masks[0], masks[1:], parse_points(points), cutouts, ())

    @classmethod
    def _checked(
        cls,
        image: np.ndarray,
        mask: np.ndarray,
        part_masks: Sequence[np.ndarray],
        points: np.ndarray,
        cutouts: np.ndarray,
        sources: tuple[str, ...],
    ) -> Reference:
        height, width = image.shape[:2]
        if height != width:
            raise InputError(
                f"The reference image is {_size(image)} pixels, but observations are square.",
                "Render the reference with the environment's own camera and image size.",
            )
        for number, (x, y) in enumerate(points):
            if not (0 <= x <= width - 1 and 0 <= y <= height - 1):
                raise InputError(
                    f"Point {number} of extra_points_list, ({x:g}, {y:g}), lies outside the {_size(image)} "
                    "reference image.",
                    _POINTS_CURE,
                )
            if not mask[round(float(y)), round(float(x))]:
                logger.warning("point (%g, %g) does not lie on the reference mask", x, y)
        parts = np.stack(part_masks) if len(part_masks) else np.zeros((0, height, width), dtype=bool)
        return cls(image, mask, parts, points, cutouts, sources)

    @property
    def size(self) -> int:
        """Height and width of the image, in pixels."""
        return int(self.image.shape[0])

    def check_resolution(self, image_size: int) -> None:
        """Raise ``InputError`` unless the image has the resolution at which the environment renders."""
        _check_resolution(self.image, self.sources[0] if self.sources else "", image_size)

    def digest(self, cutouts: bool = False) -> str:
        """Return the SHA-256 of what a masker reads of this reference, in hex."""
        arrays = {
            "image": self.image,
            "mask": self.mask,
            "part_masks": self.part_masks,
            "points": self.points,
            **({"cutouts": self.cutouts} if cutouts else {}),
        }
        digest = hashlib.sha256()
        for name, array in arrays.items():
            digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def save(self, directory: Path) -> None:
        """Write the reference as PNG images and one JSON file into ``directory``."""
        directory.mkdir(parents=True, exist_ok=True)
        _write_png(directory / "image.png", self.image)
        for index, mask in enumerate((self.mask, *self.part_masks)):
            _write_png(directory / f"mask_{index}.png", mask.astype(np.uint8) * 255)
            _write_png(directory / f"cutout_{index}.png", self.cutouts[index])
        record = {"points": self.points.tolist(), "masks": len(self.cutouts), "sources": list(self.sources)}
        write_json(directory / "reference.json", record)

    @classmethod
    def restore(cls, directory: Path) -> Reference:
        """Read what ``save`` wrote.

        Raises:
            InputError: a file is missing or damaged.
        """
        record = read_json(directory / "reference.json", "reference record")
        try:
            count, points, sources = int(record["masks"]), record["points"], tuple(record["sources"])
            if count < 1:
                raise ValueError("a mask")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(
                f"reference record {directory / 'reference.json'} lacks {error}.", "Fit the masker again."
            ) from error
        image = read_rgb(directory / "image.png", "reference image")[0]
        masks = [_read_mask(directory / f"mask_{index}.png") for index in range(count)]
        cutouts = [read_rgb(directory / f"cutout_{index}.png", "cut-out")[0] for index in range(count)]
        return cls._checked(image, masks[0], masks[1:], parse_points(points), np.stack(cutouts), sources)


def parse_points(values: Any) -> np.ndarray:
    """Return float32 (P, 2) of (x, y) pairs, or of numbers x y x y ...

    Args:
        values: pairs or numbers as a list, array or tensor; or text, such as ``40 24 23 68`` or ``40,24``;
            None is no point.

    Raises:
        InputError: something is not a number, not finite, or not one of a pair.
    """
    items = _items(values)
    nested = [_is_sequence(item) for item in items]
    if any(nested) and not all(nested):
        raise InputError("extra_points_list mixes pairs and single numbers.", _POINTS_CURE)
    if all(nested):
        for item in items:
            if len(list(item)) != 2:
                raise InputError(f"Point {list(item)} is not an x, y pair.", _POINTS_CURE)
        items = [number for item in items for number in item]
    if len(items) % 2:
        raise InputError(
            f"extra_points_list has {len(items)} numbers, which make no x, y pairs.", _POINTS_CURE
        )
    return np.array([_number(item) for item in items], dtype=np.float32).reshape(-1, 2)


def _items(values: Any) -> list[Any]:
    """Return the pairs or numbers of whatever holds them; arrays and tensors become lists at every level."""
    if values is None:
        return []
    if isinstance(values, str):
        return values.replace(",", " ").split()
    plain = values.tolist() if hasattr(values, "tolist") else values
    if not _is_sequence(plain) or isinstance(plain, Mapping):
        raise InputError(f"extra_points_list is {values!r}, expected a list of points.", _POINTS_CURE)
    return [item.tolist() if hasattr(item, "tolist") else item for item in plain]


def _is_sequence(item: Any) -> bool:
    return isinstance(item, Iterable) and not isinstance(item, str | bytes)


def _number(item: Any) -> float:
    try:
        number = float(item)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"extra_points_list holds {item!r:.60}, which is not a number.", _POINTS_CURE
        ) from error
    if not math.isfinite(number) or abs(number) > _FARTHEST:
        raise InputError(f"extra_points_list holds {item!r}, which is not finite.", _POINTS_CURE)
    return number


def _check_resolution(image: np.ndarray, name: str, image_size: int) -> None:
    if image.shape[:2] != (image_size, image_size):
        cure = "make a reference of that size with annotate.py"
        if image.shape[0] == image.shape[1]:
            cure = f"set image_size={image.shape[0]}, or {cure}"
        raise InputError(
            f"The reference image {name} is {_size(image)} pixels, but the environment renders "
            f"{image_size} x {image_size}.".replace("  ", " "),
            f"{cure[0].upper()}{cure[1:]}.",
        )


def _check_mask(mask: np.ndarray, name: str) -> None:
    cover = float(mask.mean())
    if cover == 0:
        raise InputError(f"{name} is empty: no pixel is brighter than the background.", _MASK_CURE)
    if cover > _MAX_COVER:
        raise InputError(f"{name} covers {cover:.0%} of the image, so it masks nothing.", _MASK_CURE)


def _warn_halo(image: np.ndarray, pixels: np.ndarray, mask: np.ndarray, path: Path) -> None:
    share = halo_share(image, pixels, mask)
    if share > _MAX_HALO:
        logger.warning(
            "%.0f %% of the pixels of mask image %s look like a dark JPEG halo, not like the object; a PNG "
            "mask would be exact",
            100 * share,
            path,
        )


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]} x {pixels.shape[0]}"


def _write_png(path: Path, pixels: np.ndarray) -> None:
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")


def _read_mask(path: Path) -> np.ndarray:
    pixels = read_rgb(path, "mask image", expect_grey=True)[0]
    return pixels[..., 0] > 127
