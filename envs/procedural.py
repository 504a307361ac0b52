"""Generated colours and clips, so that every level exists without any data.

The colours have the published spread around the suite's own. The clips imitate the two published sets:
``easy`` shows calm landscapes, ``hard`` moves a camera through cluttered rooms and gardens, with a cut that
fades. Each is a pure function of its number and belongs to the random streams ``level-clips-*``, which
nothing is trained on.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from common.seeding import counter_rng
from envs.data import COLOUR_COUNT, ColourTable, Entry
from envs.procedural_scenes import Layer, garden, landscape, room

VERSION = 1  # raise it when a colour or clip changes: results record it
CLIP_COUNT = {"easy": 10, "hard": 30}
CLIP_LENGTH = 100
COLOUR_STD = {"easy": 0.1, "hard": 0.2}
CLIP_STREAM = "level-clips"
_ORIGINAL = {"grid_rgb1": (0.1, 0.2, 0.3), "skybox_rgb": (0.4, 0.6, 0.8), "self_rgb": (0.7, 0.5, 0.3)}
_FADE = 16  # frames of a fade between two scenes


@cache
def procedural_colours(difficulty: str) -> ColourTable:
    """Return 100 colours: normal around the suite's own, standard deviation 0.1 or 0.2, clipped to [0, 1].

    ``grid_rgb2`` is ``grid_rgb1 + 0.1``, as in the published tables.
    """
    rng = counter_rng(0, f"level-colours-{difficulty}")
    entries = []
    for _ in range(COLOUR_COUNT):
        entry: Entry = {}
        for key, centre in _ORIGINAL.items():
            rgb = np.clip(rng.normal(centre, COLOUR_STD[difficulty]), 0.0, 1.0).round(6)
            entry[key] = (float(rgb[0]), float(rgb[1]), float(rgb[2]))
        red, green, blue = (min(value + 0.1, 1.0) for value in entry["grid_rgb1"])
        entry["grid_rgb2"] = (red, green, blue)
        entries.append(entry)
    digest = hashlib.sha256(repr(entries).encode()).hexdigest()
    return ColourTable(tuple(entries), f"procedural-{difficulty}-v{VERSION}", digest)


@dataclass(frozen=True)
class CameraPath:
    """A smooth camera: a pan, a sway and a zoom, all in shares of the canvas.

    Attributes:
        start: float (2,), where the view's centre begins, relative to the canvas' centre.
        pan: float (2,), how far it moves over the clip.
        sway: float (2,), amplitude of a slow oscillation.
        cycles: oscillations per clip.
        zoom: float (2,), side of the view as a share of the canvas, at the beginning and the end.
    """

    start: np.ndarray
    pan: np.ndarray
    sway: np.ndarray
    cycles: float
    zoom: np.ndarray

    def view(self, share: float) -> tuple[np.ndarray, float]:
        """Return centre (2,) and side of the view at ``share`` in [0, 1] of the clip."""
        wave = np.sin(2 * np.pi * self.cycles * share + np.array([0.0, 1.3]))
        return self.start + self.pan * (share - 0.5) + self.sway * wave, float(self.zoom @ [1 - share, share])


class ProceduralClips:
    """Generated clips of one difficulty, made on first use and kept while there is room.

    Args:
        difficulty: ``easy`` (10 clips) or ``hard`` (30 clips).
        size: side of the observation in pixels.
        count: of the clips, only so many; None for all.
    """

    _MEMORY = 80 * 2**20  # bytes that may be kept

    def __init__(self, difficulty: str, size: int, count: int | None = None) -> None:
        self.difficulty = difficulty
        self.size = size
        self.count = CLIP_COUNT[difficulty] if count is None else count
        self._clips: OrderedDict[int, np.ndarray] = OrderedDict()

    def __len__(self) -> int:
        return self.count

    def clip(self, index: int) -> np.ndarray:
        """Return clip ``index``: uint8 (100, size, size, 3) RGB."""
        if not 0 <= index < len(self):
            raise ValueError(f"clip {index} does not exist, there are {len(self)}")
        if index not in self._clips:
            self._clips[index] = make_clip(self.difficulty, index, self.size)
            if sum(clip.nbytes for clip in self._clips.values()) > max(
                self._MEMORY, self._clips[index].nbytes
            ):
                self._clips.popitem(last=False)
        return self._clips[index]


def make_clip(difficulty: str, index: int, size: int) -> np.ndarray:
    """Generate one clip: uint8 (100, size, size, 3) RGB."""
    rng = counter_rng(0, f"{CLIP_STREAM}-{difficulty}", index)
    canvas = 2 * size
    if difficulty == "easy":
        return _film(landscape(rng, canvas), _calm_path(rng), size, CLIP_LENGTH)
    cut = int(rng.integers(40, 77))
    first, second = (
        _film((room if rng.random() < 0.7 else garden)(rng, canvas), _walk_path(rng), size, length)
        for length in (cut, CLIP_LENGTH + _FADE - cut)
    )
    weight = np.linspace(0, 1, _FADE + 2, dtype=np.float32)[1:-1, None, None, None]
    fade = first[-_FADE:] * (1 - weight) + second[:_FADE] * weight
    return np.concatenate([first[:-_FADE], fade.astype(np.uint8), second[_FADE:]])


def _film(layers: list[Layer], path: CameraPath, size: int, length: int) -> np.ndarray:
    """Film a scene: uint8 (length, size, size, 3)."""
    frames = np.empty((length, size, size, 3), np.uint8)
    canvas = layers[0].image.shape[0]
    for t in range(length):
        centre, side = path.view(t / max(length - 1, 1))
        scale = side * canvas / size
        picture: np.ndarray = np.zeros((size, size, 3), np.float32)
        for layer in layers:
            shift = (0.5 + centre * layer.nearness) * canvas - scale * size / 2
            matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]], np.float32)
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            border = cv2.BORDER_REFLECT_101
            image = cv2.warpAffine(layer.image, matrix, (size, size), flags=flags, borderMode=border)
            if layer.alpha is None:
                picture = image
                continue
            alpha = cv2.warpAffine(layer.alpha, matrix, (size, size), flags=flags, borderMode=border)
            picture += alpha[..., None] * (image - picture)
        frames[t] = np.clip(picture, 0, 255).astype(np.uint8)
    return frames


def _calm_path(rng: np.random.Generator) -> CameraPath:
    zoom = rng.uniform(0.5, 0.62)
    return CameraPath(
        start=rng.uniform(-0.05, 0.05, 2),
        pan=rng.uniform(-1, 1, 2) * [0.16, 0.04],
        sway=rng.uniform(0, 0.008, 2),
        cycles=rng.uniform(0.5, 1.5),
        zoom=np.array([zoom, zoom * rng.uniform(0.9, 1.1)]),
    )


def _walk_path(rng: np.random.Generator) -> CameraPath:
    zoom = rng.uniform(0.5, 0.75)
    return CameraPath(
        start=rng.uniform(-0.08, 0.08, 2),
        pan=rng.choice([-1, 1], 2) * rng.uniform([0.15, 0.0], [0.4, 0.1]),
        sway=rng.uniform(0.003, 0.015, 2),
        cycles=rng.uniform(1, 3),
        zoom=np.array([zoom, zoom * rng.uniform(0.75, 1.2)]),
    )
