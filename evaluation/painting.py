"""Panels: small pictures enlarged without smoothing, with masks, outlines, points and boxes drawn on them.

Everything is drawn by Pillow, so that a strip and every frame of a video come from one hand.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

PANEL = 252
POSITIVE = "#2ca02c"
NEGATIVE = "#d62728"
BOX = "#ffbf00"
TINT = (64, 160, 255)
TRUTH = (255, 255, 255)
INK, GREY = "#1a1a1a", "#6b6b6b"
LEGEND_LINE = 24
Legend = Sequence[tuple[str, str]]  # kinds of ``marker`` and what they mean
_MARKER = 18  # pixels across
_SMOOTH = 8  # markers are drawn this much larger, then shrunk
_DARK = 0.35


@dataclass(frozen=True)
class Prompts:
    """Prompts of one frame, drawn over it.

    Attributes:
        points: float (P, 2), (x, y) pixels.
        labels: int (P,), 1 keep, 0 drop; others are not drawn.
        box: float (4,), x0 y0 x1 y1, or None; or several, (B, 4).
        views: how many pictures side by side they belong to, P / views each.
    """

    points: np.ndarray
    labels: np.ndarray
    box: np.ndarray | None = None
    views: int = 1


@dataclass(frozen=True)
class Panel:
    """One cell of a picture.

    Attributes:
        image: uint8 (H, W, 3) RGB; bool or float (H, W), drawn in grey from 0 to 1; or a float (H, W)
            similarity map when ``heat`` is set.
        heat: draw ``image`` as a heat map over its own range.
        prompts: drawn on top; the first positive point, of each view, is a star.
        note: short text under the panel.
        mask: bool (H, W): the image is darkened outside and outlined in blue.
        truth: bool (H, W): outlined in white.
        views: how many pictures lie side by side in ``image``; each is drawn as large as one alone.
    """

    image: np.ndarray
    heat: bool = False
    prompts: Prompts | None = None
    note: str = ""
    mask: np.ndarray | None = None
    truth: np.ndarray | None = None
    views: int = 1


def paint(panel: Panel, side: int = PANEL) -> Image.Image:
    """Draw one panel, RGB: each pixel as a square, as large as fits ``side``; a larger panel is shrunk."""
    pixels = _colours(panel)
    longest = max(pixels.shape[0], -(-pixels.shape[1] // panel.views))
    scale = side // longest if longest <= side else side / longest
    if panel.mask is not None:
        dark = (pixels.mean(2, keepdims=True) * _DARK).astype(np.uint8)
        pixels = np.where(panel.mask[..., None], pixels, dark)
    large = enlarge(pixels, scale)
    for region, colour in ((panel.truth, TRUTH), (panel.mask, TINT)):
        if region is not None:
            large[_outline(enlarge(region, scale))] = colour
    image = Image.fromarray(large)
    if panel.prompts is not None:
        _draw_prompts(image, panel.prompts, scale)
    return image


def enlarge(pixels: np.ndarray, scale: float) -> np.ndarray:
    """Repeat every pixel of (H, W, ...) ``scale`` times in both directions; below 1, leave pixels out."""
    rows, columns = (
        np.minimum(((np.arange(max(1, round(length * scale))) + 0.5) / scale).astype(int), length - 1)
        for length in pixels.shape[:2]
    )
    return pixels[rows[:, None], columns]


def _colours(panel: Panel) -> np.ndarray:
    """Return a panel's image as uint8 (H, W, 3)."""
    image = panel.image
    if panel.heat:
        from matplotlib import colormaps

        low, high = float(image.min()), float(image.max())
        colours = colormaps["inferno"]((image - low) / max(high - low, 1e-9))
        return (colours[..., :3] * 255).round().astype(np.uint8)
    if image.ndim == 2:
        grey = (image.astype(np.float32).clip(0, 1) * 255).round().astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    return image


def _outline(region: np.ndarray, width: int = 2) -> np.ndarray:
    """Return the pixels of bool (H, W) outside the region and within ``width`` of it; they hide nothing."""
    grown = region
    for _ in range(width):
        padded = np.pad(grown, 1)
        sides = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
        grown = np.logical_or.reduce((grown, *sides))
    return grown & ~region


def _draw_prompts(image: Image.Image, prompts: Prompts, scale: float) -> None:
    if prompts.box is not None:
        # Pixel x covers [x, x + 1) here; both ends of a box are inside.
        for x0, y0, x1, y1 in np.reshape(prompts.box, (-1, 4)).tolist():
            corners = (x0 * scale, y0 * scale, (x1 + 1) * scale - 1, (y1 + 1) * scale - 1)
            ImageDraw.Draw(image).rectangle(corners, outline=BOX, width=2)
    kinds = [kind for part in np.split(prompts.labels, prompts.views) for kind in marker_kinds(part)]
    # The first point, the best match of the target, is drawn last: on top.
    for point, kind in reversed(list(zip(prompts.points, kinds, strict=True))):
        if kind:
            sprite = marker(kind)
            x, y = (round((float(value) + 0.5) * scale - _MARKER / 2) for value in point)
            image.paste(sprite, (x, y), sprite)


def marker_kinds(labels: np.ndarray) -> list[str]:
    """Return how each point is drawn: ``best``, ``keep``, ``drop``, or nothing for points that are none."""
    kinds = ["keep" if label == 1 else "drop" if label == 0 else "" for label in labels]
    if "keep" in kinds:
        kinds[kinds.index("keep")] = "best"
    return kinds


@functools.cache
def marker(kind: str) -> Image.Image:
    """Return a marker, RGBA: ``best`` is a star, ``keep`` a disc, ``drop`` a cross; or box, mask, truth."""
    size = _MARKER * _SMOOTH
    sprite = Image.new("RGBA", (size, size))
    draw, middle = ImageDraw.Draw(sprite), size / 2
    if kind == "best":
        for radius, colour in ((0.5, "white"), (0.40, POSITIVE)):
            draw.polygon(_star(middle, radius * size), fill=colour)
    elif kind == "keep":
        for radius, colour in ((0.36, "white"), (0.29, POSITIVE)):
            draw.circle((middle, middle), radius * size, fill=colour)
    elif kind == "drop":
        for reach, width, colour in ((0.36, 0.26, "white"), (0.32, 0.15, NEGATIVE)):
            low, high = middle - reach * size, middle + reach * size
            draw.line((low, low, high, high), fill=colour, width=round(width * size))
            draw.line((low, high, high, low), fill=colour, width=round(width * size))
    else:
        edges_of: dict[str, str | tuple[int, ...]] = {"box": BOX, "mask": TINT, "truth": TRUTH}
        if kind == "truth":  # white shows on dark only
            draw.rectangle((0, 0, size, size), fill="#404040")
        draw.rectangle(
            (0.16 * size, 0.16 * size, 0.84 * size, 0.84 * size),
            outline=edges_of[kind],
            width=round(0.12 * size),
        )
    return sprite.resize((_MARKER, _MARKER), Image.Resampling.LANCZOS)


def _star(middle: float, radius: float) -> list[tuple[float, float]]:
    points = []
    for corner in range(10):
        reach = radius if corner % 2 == 0 else 0.45 * radius
        angle = math.pi * (corner / 5 - 0.5)
        points.append((middle + reach * math.cos(angle), middle + reach * math.sin(angle)))
    return points


class Sheet:
    """A white page to put panels and text on.

    Args:
        width, height: in pixels.
    """

    def __init__(self, width: int, height: int) -> None:
        self.image = Image.new("RGB", (width, height), "white")
        self._draw = ImageDraw.Draw(self.image)

    def paste(self, image: Image.Image, x: int, y: int) -> None:
        """Put a picture, RGB or RGBA, with its upper left corner at (x, y)."""
        self.image.paste(image, (x, y), image if image.mode == "RGBA" else None)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        size: int = 15,
        anchor: str = "la",
        bold: bool = False,
        colour: str = INK,
    ) -> None:
        """Write a line; ``anchor`` is Pillow's: l m r and a (scender) m (iddle) s (baseline)."""
        self._draw.text((x, y), text, fill=colour, font=font(size, bold), anchor=anchor)

    def legend(self, x: int, y: int, lines: Sequence[Legend]) -> None:
        """Write markers and what they mean, from ``legend_lines``, below ``y``."""
        for number, line in enumerate(lines):
            place, middle = x, y + number * LEGEND_LINE + LEGEND_LINE // 2
            for kind, meaning in line:
                self.paste(marker(kind), place, middle - _MARKER // 2)
                self.text(place + _MARKER + 6, middle, meaning, 14, "lm", colour=GREY)
                place += _entry_width(meaning)


def legend_lines(entries: Legend, width: int) -> list[Legend]:
    """Break a legend into lines of at most ``width`` pixels."""
    lines: list[list[tuple[str, str]]] = []
    used = 0
    for entry in entries:
        if not lines or used + _entry_width(entry[1]) > width:
            lines.append([])
            used = 0
        lines[-1].append(entry)
        used += _entry_width(entry[1])
    return list(lines)


def _entry_width(meaning: str) -> int:
    return _MARKER + 28 + text_width(meaning, 14)


@functools.cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, which comes with matplotlib."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def text_width(text: str, size: int = 15, bold: bool = False) -> int:
    """Return how wide a line is, in pixels."""
    return math.ceil(font(size, bold).getlength(text))
