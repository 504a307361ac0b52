"""Videos behind the agent: clips at observation size, and the keys that decide which pixels they replace.

The benchmark paints sky and floor in one colour and replaces the pixels that come out in it, after
rendering: ``green`` is DMC-GB's key (a range of hue, saturation and value, which eats some thin geometry and
floor, as published), ``black`` that of RL-ViGen and SAM-G (exactly black pixels). ``segmentation`` paints
nothing and asks the renderer which pixels are sky and floor.
"""

from __future__ import annotations

import abc
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from common.errors import InputError
from common.files import atomic_path
from common.paths import cache_dir
from envs.colors import GRID, RGB, Painter, Palette
from envs.data import CURES, file_digest
from envs.renderer import load_mujoco
from envs.scene import BaseScene

if TYPE_CHECKING:
    import mujoco

    from envs.renderer import Renderer

GREEN: RGB = (0.2, 0.8, 0.2)
BLACK: RGB = (0.0, 0.0, 0.0)
KEYS = ("green", "black", "segmentation")
SMALLEST_SIDE = 100  # pixels; DMC-GB refuses smaller clips too
SHORTEST = 2  # frames; a clip of one is a picture that stands still
TOO_SHORT = f"fewer than {SHORTEST} frames can be decoded"
_GROUND_NAMES = ("floor", "ground")

logger = logging.getLogger(__name__)


class ClipBank(Protocol):
    """Clips by number."""

    def __len__(self) -> int:
        """Return the number of clips."""

    def clip(self, index: int) -> np.ndarray:
        """Return clip ``index``: uint8 (T, H, W, 3) RGB at observation size, T >= 1."""


def shrink(frame: np.ndarray, size: int) -> np.ndarray:
    """Resize one video frame as DMC-GB does: bilinear on [0, 1], not antialiased, truncated to bytes.

    Args:
        frame: uint8 (h, w, 3).
        size: side of the square result.

    Returns:
        uint8 (size, size, 3).
    """
    pixels = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None].float() / 255.0
    small = torch.nn.functional.interpolate(pixels, size=(size, size), mode="bilinear", align_corners=False)
    return (small * 255.0).byte()[0].permute(1, 2, 0).numpy()


class VideoFiles:
    """Clips in video files, decoded on first use and kept as memory-mapped arrays that processes share.

    Args:
        paths: the video files, in the order of their numbers.
        size: side of the observation in pixels.
        cache: folder for the decoded clips; ``clips`` in the cache directory when None.

    Raises:
        InputError: at least one clip does not open, is empty or too small; all such clips are named.
    """

    _IN_MEMORY = 2  # clips kept per process where the cache cannot be written

    def __init__(self, paths: Sequence[Path], size: int, cache: Path | None = None) -> None:
        self.paths = tuple(paths)
        self.size = size
        self._cache = cache if cache is not None else cache_dir() / "clips"
        self._open: OrderedDict[int, np.ndarray] = OrderedDict()
        refuse_faulty(self.paths, self._fault)

    def __len__(self) -> int:
        return len(self.paths)

    def clip(self, index: int) -> np.ndarray:
        """Return clip ``index``: uint8 (T, size, size, 3) RGB, read only.

        Raises:
            InputError: the file changed since it was checked and cannot be decoded any more.
        """
        if index not in self._open:
            self._open[index] = self._load(self.paths[index])
            in_memory = [i for i, clip in self._open.items() if not isinstance(clip, np.memmap)]
            for stale in in_memory[: -self._IN_MEMORY]:
                del self._open[stale]
        return self._open[index]

    def _cached(self, path: Path) -> Path:
        return self._cache / f"{file_digest(path)[:24]}-{self.size}.npy"

    def _fault(self, path: Path) -> str | None:
        """Return what is wrong with a clip, or None; a clip that was decoded before is right."""
        return None if self._cached(path).exists() else clip_fault(path)

    def _load(self, path: Path) -> np.ndarray:
        cached = self._cached(path)
        try:
            if cached.exists():
                return np.load(cached, mmap_mode="r")
        except (ValueError, EOFError, OSError):
            logger.warning("The decoded clip %s is damaged and is made again.", cached)
        clip = decode(path, self.size)
        try:
            with atomic_path(cached) as temporary:
                np.save(temporary, clip)
            return np.load(cached, mmap_mode="r")
        except OSError as error:
            logger.warning("Decoded clips are kept in memory: %s (%s).", self._cache, error.strerror)
            return clip


def refuse_faulty(paths: Sequence[Path], fault: Callable[[Path], str | None]) -> None:
    """Raise one ``InputError`` that names every path in which ``fault`` finds one."""
    faults = [f"{path} ({why})" for path in paths if (why := fault(path)) is not None]
    if faults:
        raise InputError(
            f"{len(faults)} of {len(paths)} background clips cannot be used: {'; '.join(faults)}.",
            f"Replace or remove them. {CURES}",
        )


def clip_fault(path: Path) -> str | None:
    """Return why a clip cannot be used, or None: it must open, be large enough and give two frames."""
    import cv2

    if path.stat().st_size == 0:
        return "empty file"
    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened():
            return "not a video"
        found, frame = capture.read()
        another = found and all(capture.read()[0] for _ in range(SHORTEST - 1))
    finally:
        capture.release()
    if not found or frame is None:
        return "no frame can be decoded"
    return size_fault(frame.shape[1], frame.shape[0]) or (None if another else TOO_SHORT)


def size_fault(width: int, height: int) -> str | None:
    """Return why frames of that size, in pixels, cannot be used, or None."""
    if min(height, width) < SMALLEST_SIDE:
        return f"{width}x{height} pixels, at least {SMALLEST_SIDE}x{SMALLEST_SIDE} needed"
    return None


def decode(path: Path, size: int) -> np.ndarray:
    """Decode a whole clip to observation size: uint8 (T, size, size, 3) RGB; ends at the last readable frame.

    Raises:
        InputError: not even one frame can be decoded.
    """
    import cv2

    capture = cv2.VideoCapture(str(path))
    frames = []
    try:
        while True:
            found, frame = capture.read()
            if not found:  # frame counts in headers are often too high, so only reading tells the end
                break
            frames.append(shrink(frame[:, :, ::-1], size))
    finally:
        capture.release()
    if not frames:
        raise InputError(f"The background clip {path} cannot be decoded.", f"Replace or remove it. {CURES}")
    return np.stack(frames)


def green_pixels(frame: np.ndarray) -> np.ndarray:
    """Return where a frame shows DMC-GB's green: bool (H, W) for uint8 (H, W, 3).

    Hue 100 to 185 degrees, saturation 80 to 255, value 70 to 255 (both of 255), bounds included; in double
    precision, so that every pixel is decided as by the benchmark's own per-pixel conversion.
    """
    rgb = frame.astype(np.float64) / 255.0
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    high = np.maximum(np.maximum(red, green), blue)
    spread = high - np.minimum(np.minimum(red, green), blue)
    grey = spread == 0
    divisor = np.where(grey, 1.0, spread)
    from_red, from_green, from_blue = (
        (high - red) / divisor,
        (high - green) / divisor,
        (high - blue) / divisor,
    )
    sextant = np.where(
        red == high,
        from_blue - from_green,
        np.where(green == high, 2.0 + from_red - from_blue, 4.0 + from_green - from_red),
    )
    hue = np.where(grey, 0.0, (sextant / 6.0) % 1.0) * 360
    saturation = np.where(grey, 0.0, spread / np.where(high == 0, 1.0, high)) * 255
    value = high * 255
    return (hue >= 100) & (hue <= 185) & (saturation >= 80) & (saturation <= 255) & (value >= 70)


def black_pixels(frame: np.ndarray) -> np.ndarray:
    """Return where a frame is exactly black: bool (H, W) for uint8 (H, W, 3)."""
    return np.asarray(frame.max(axis=-1) == 0)


def ground_geoms(model: mujoco.MjModel) -> np.ndarray:
    """Return the ids of the geoms that are floor: those that wear the grid texture or are named so."""
    library = load_mujoco()
    kinds = library.mjtObj
    ground = []
    for geom in range(model.ngeom):
        material = int(model.geom_matid[geom])
        worn = library.mj_id2name(model, int(kinds.mjOBJ_MATERIAL), material) if material >= 0 else None
        named = library.mj_id2name(model, int(kinds.mjOBJ_GEOM), geom)
        if worn == GRID or named in _GROUND_NAMES:
            ground.append(geom)
    return np.asarray(ground, dtype=np.int32)


def background_pixels(segmentation: np.ndarray, ground: np.ndarray) -> np.ndarray:
    """Return sky and the given floor geoms in a segmentation render.

    Args:
        segmentation: int32 (H, W, 2), object id and type, -1 for the sky.
        ground: ids of floor geoms; none where only the sky is wanted.

    Returns:
        bool (H, W).
    """
    ids, kinds = segmentation[..., 0], segmentation[..., 1]
    floor = (kinds == int(load_mujoco().mjtObj.mjOBJ_GEOM)) & np.isin(ids, ground)
    return (ids == -1) | floor


class ClipScene(BaseScene, abc.ABC):
    """Replaces some pixels by the frames of a clip.

    Episode ``e`` (from 0) shows clip ``(e + 1) mod N``, whatever the seed, and agent step ``t`` its frame
    ``t mod length``, as published.

    Args:
        bank: the clips, at observation size.
    """

    def __init__(self, bank: ClipBank) -> None:
        self.bank = bank
        self._clip: np.ndarray | None = None

    def begin_episode(self, model: mujoco.MjModel, renderer: Renderer, episode: int) -> None:
        """Choose the clip of ``episode``."""
        self._clip = self.bank.clip((episode + 1) % len(self.bank))

    def compose(
        self, frame: np.ndarray, render_segmentation: Callable[[], np.ndarray], agent_step: int
    ) -> np.ndarray:
        """Return uint8 (H, W, 3): ``frame`` with the clip's frame of ``agent_step`` where the key matches."""
        if self._clip is None:
            raise ValueError("begin_episode must be called before compose")
        if self._clip.shape[1:] != frame.shape:
            raise ValueError(f"the clip has frames of {self._clip.shape[1:]}, the observation {frame.shape}")
        replaced = self.replaced(frame, render_segmentation)
        return np.where(replaced[..., None], self._clip[agent_step % len(self._clip)], frame)

    @abc.abstractmethod
    def replaced(self, frame: np.ndarray, render_segmentation: Callable[[], np.ndarray]) -> np.ndarray:
        """Return which pixels of ``frame`` show the clip, bool (H, W); ``compose`` hands its arguments on."""


class VideoScene(ClipScene):
    """Replaces the sky, in ``hard`` the floor too; clips as of ``ClipScene``.

    Args:
        bank: the clips, at observation size.
        domain: for error messages.
        floor: replace the floor too.
        key: ``green``, ``black`` or ``segmentation``.
    """

    def __init__(self, bank: ClipBank, domain: str, floor: bool, key: str) -> None:
        if key not in KEYS:
            raise ValueError(f"key must be one of {KEYS}, got {key!r}")
        super().__init__(bank)
        self.floor = floor
        self.key = key
        self._painter = Painter(domain)
        paint = {"green": GREEN, "black": BLACK}.get(key)
        self._palette = Palette() if paint is None else Palette.key_paint(paint, floor)
        self._ground = np.empty(0, dtype=np.int32)

    def begin_episode(self, model: mujoco.MjModel, renderer: Renderer, episode: int) -> None:
        """Paint the key colour and choose the clip of ``episode``."""
        self._painter.paint(model, renderer, self._palette)
        self._ground = ground_geoms(model) if self.floor else np.empty(0, dtype=np.int32)
        super().begin_episode(model, renderer, episode)

    def replaced(self, frame: np.ndarray, render_segmentation: Callable[[], np.ndarray]) -> np.ndarray:
        """Return the pixels that the key matches."""
        if self.key == "segmentation":
            return background_pixels(render_segmentation(), self._ground)
        return green_pixels(frame) if self.key == "green" else black_pixels(frame)
