"""Random objects with exact masks: jointed limbs and clustered blobs, several views of each.

They stand beside the simulators' agents in training, both as rivals and as targets whose reference is another
view, so that a reference is worth reading even for a body the networks have never met.
"""

from __future__ import annotations

import colorsys

import cv2
import numpy as np
from numpy.random import Generator

from common.seeding import counter_rng

SIZE, _SCALE = 84, 4


def object_views(seed: int, index: int, views: int = 5) -> np.ndarray:
    """Return views of object ``index``: uint8 (views, 84, 84, 4) RGB and alpha."""
    rng = counter_rng(seed, "objects", index)
    kind = _limbs if rng.random() < 0.65 else _cluster
    return kind(rng, views)


def object_bank(seed: int, count: int, views: int = 5) -> np.ndarray:
    """Return the views of objects 0 to ``count`` - 1: uint8 (count, views, 84, 84, 4)."""
    return np.stack([object_views(seed, index, views) for index in range(count)])


def _colours(rng: Generator, count: int) -> list[tuple[float, ...]]:
    """Draw colours; half of the objects wear the tan that most simulated agents wear."""
    if rng.random() < 0.5:
        base = np.asarray([0.08 + rng.normal(0, 0.01), rng.uniform(0.4, 0.65), rng.uniform(0.6, 0.95)])
    else:
        base = np.asarray([rng.random(), rng.uniform(0.1, 0.9), rng.uniform(0.25, 1.0)])
    chosen = []
    for _ in range(count):
        own = rng.random(3) if rng.random() < 0.15 else base + rng.normal(0, 0.02, 3)
        rgb = colorsys.hsv_to_rgb(
            float(own[0]) % 1, float(np.clip(own[1], 0, 1)), float(np.clip(own[2], 0.1, 1))
        )
        chosen.append(tuple(255 * value for value in rgb))
    return chosen


def _limbs(rng: Generator, views: int) -> np.ndarray:
    """A tree of capsules with fixed lengths, widths and colours; the angles change from view to view."""
    count = int(rng.integers(2, 8))
    parents = [-1] + [int(rng.integers(max(0, i - 2), i)) for i in range(1, count)]
    lengths = rng.uniform(8, 26, count) * rng.uniform(0.5, 1.2)
    widths = rng.uniform(2.0, 6.5, count) * rng.uniform(0.7, 1.2)
    colours = _colours(rng, count)
    rest = rng.uniform(-np.pi, np.pi, count)
    pictures = []
    for _ in range(views):
        angles = rest + rng.normal(0, 0.5, count) + rng.normal(0, 0.6)
        ends = np.zeros((count, 2, 2))
        for i, parent in enumerate(parents):
            start = ends[parent, 1] if parent >= 0 else np.zeros(2)
            ends[i] = start, start + lengths[i] * np.asarray([np.cos(angles[i]), np.sin(angles[i])])
        ends = _centre(ends, rng)
        layer = _Layer()
        for i in rng.permutation(count):
            layer.capsule(ends[i, 0], ends[i, 1], float(widths[i]), colours[i])
        pictures.append(layer.reduced())
    return np.stack(pictures)


def _cluster(rng: Generator, views: int) -> np.ndarray:
    """Ellipses and polygons in a fixed arrangement that is turned and scaled from view to view."""
    count = int(rng.integers(1, 5))
    centres = rng.normal(0, 9, (count, 2))
    axes = rng.uniform(3, 12, (count, 2))
    outlines = [rng.normal(0, 1, (int(rng.integers(3, 7)), 2)) * axes[i] * 1.3 for i in range(count)]
    round_ones = rng.random(count) < 0.65
    colours = _colours(rng, count)
    pictures = []
    for _ in range(views):
        turn, scale = rng.uniform(-0.8, 0.8), rng.uniform(0.8, 1.2)
        matrix = scale * np.asarray([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        where = rng.uniform(22, SIZE - 22, 2)
        layer = _Layer()
        for i in range(count):
            centre = centres[i] @ matrix.T + where
            if round_ones[i]:
                layer.ellipse(centre, axes[i] * scale, float(np.degrees(turn)), colours[i])
            else:
                layer.polygon(outlines[i] @ matrix.T + centre, colours[i])
        pictures.append(layer.reduced())
    return np.stack(pictures)


def _centre(ends: np.ndarray, rng: Generator) -> np.ndarray:
    """Shift and shrink line segments (L, 2, 2) so that they fit the picture, at a random place."""
    low, high = ends.min((0, 1)), ends.max((0, 1))
    scale = min(1.0, (SIZE - 18) / max(float((high - low).max()), 1.0)) * rng.uniform(0.85, 1.0)
    room = SIZE - (high - low) * scale
    return (ends - low) * scale + room * rng.uniform(0.12, 0.88, 2)


class _Layer:
    """A canvas with alpha at four times the size."""

    def __init__(self) -> None:
        self.rgb = np.zeros((SIZE * _SCALE, SIZE * _SCALE, 3), np.float32)
        self.alpha = np.zeros((SIZE * _SCALE, SIZE * _SCALE), np.float32)

    def capsule(self, start: np.ndarray, end: np.ndarray, width: float, colour: tuple[float, ...]) -> None:
        """Draw a rounded bar, dark at its rim and light along the upper left."""
        a, b = (tuple(int(v * _SCALE) for v in point) for point in (start, end))
        cv2.line(self.alpha, a, b, 1.0, int(width * _SCALE))
        for share, shade, shift in ((1.0, 0.72, 0), (0.75, 1.0, -1), (0.3, 1.15, -2)):
            tone = tuple(min(255.0, value * shade) for value in colour)
            lifted = [(x + shift, y + shift * 2) for x, y in (a, b)]
            cv2.line(self.rgb, lifted[0], lifted[1], tone, max(1, int(width * _SCALE * share)))

    def ellipse(self, centre: np.ndarray, axes: np.ndarray, angle: float, colour: tuple[float, ...]) -> None:
        """Draw a ball, lighter above."""
        at = tuple(int(v * _SCALE) for v in centre)
        size = tuple(max(1, int(v * _SCALE)) for v in axes)
        cv2.ellipse(self.alpha, at, size, angle, 0, 360, 1.0, -1)
        cv2.ellipse(self.rgb, at, size, angle, 0, 360, tuple(0.8 * v for v in colour), -1)
        inner = tuple(max(1, int(0.6 * v)) for v in size)
        lifted = (at[0], at[1] - size[1] // 4)
        cv2.ellipse(self.rgb, lifted, inner, angle, 0, 360, tuple(min(255.0, 1.1 * v) for v in colour), -1)

    def polygon(self, corners: np.ndarray, colour: tuple[float, ...]) -> None:
        """Draw a filled polygon."""
        outline = [(corners * _SCALE).astype(np.int32)]
        cv2.fillPoly(self.alpha, outline, 1.0)
        cv2.fillPoly(self.rgb, outline, colour)

    def reduced(self) -> np.ndarray:
        """Return uint8 (84, 84, 4)."""
        alpha = cv2.resize(self.alpha, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        rgb = cv2.resize(self.rgb * self.alpha[..., None], (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        rgb = rgb / np.maximum(alpha, 1e-3)[..., None]
        return np.dstack([np.clip(rgb, 0, 255), 255 * alpha]).astype(np.uint8)
