"""Pictures found beside results, made small enough to travel inside a page."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from common.errors import InputError
from evaluation.report.loading import Picture

WIDEST = 1600  # pixels
HIGHEST = 2400


@dataclass(frozen=True)
class Embedded:
    """A picture ready to be shown.

    Attributes:
        name: file name, different for every picture of a report.
        caption: whose it is.
        png: its bytes.
        size: width and height in pixels.
    """

    name: str
    caption: str
    png: bytes
    size: tuple[int, int]

    @property
    def data_uri(self) -> str:
        """The picture as text for an ``src`` attribute."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


def embed_pictures(pictures: Sequence[Picture]) -> list[Embedded]:
    """Read pictures; larger ones are reduced to 1600 x 2400 pixels at most.

    Raises:
        InputError: pictures cannot be read; all of them are named.
    """
    embedded, faults = [], []
    for index, picture in enumerate(pictures):
        try:
            png, size = _fitted(picture)
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            faults.append(f"{picture.path}: {error}")
            continue
        stem = re.sub(r"[^A-Za-z0-9+._-]", "_", picture.path.stem)
        embedded.append(Embedded(f"{index + 1:02d}-{stem}.png", picture.caption, png, size))
    if faults:
        raise InputError(
            "\n  ".join(["pictures beside the results cannot be read:", *faults]),
            "Remove them, or leave pictures out with --pictures 0.",
        )
    return embedded


def _fitted(picture: Picture) -> tuple[bytes, tuple[int, int]]:
    with Image.open(picture.path) as image:
        image.load()
        if image.width <= WIDEST and image.height <= HIGHEST:
            return picture.path.read_bytes(), image.size
        small = image.convert("RGB")
        small.thumbnail((WIDEST, HIGHEST), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "PNG", optimize=True)
    return buffer.getvalue(), small.size
