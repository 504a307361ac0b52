"""Videos, written frame by frame. A video that fails only warns: no result may be lost for one."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Generator
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np

from common.files import atomic_path
from common.views import side_by_side as join_views

SCALE = 4
GAP = 4
FRAMES_PER_SECOND = 25


def side_by_side(raw: np.ndarray, masked: np.ndarray, scale: int = SCALE) -> np.ndarray:
    """Return both views in one frame, enlarged without smoothing, with even sides as H.264 wants them.

    Args:
        raw: uint8 (H, W, 3) RGB.
        masked: uint8 (H, W, 3) RGB.
        scale: enlargement, a whole number.

    Returns:
        uint8 (H', W', 3) with H' >= scale * H and W' >= scale * 2 * W + GAP, padded with white to even sides.
    """
    views = [np.repeat(np.repeat(view, scale, axis=0), scale, axis=1) for view in (raw, masked)]
    gap = np.full((views[0].shape[0], GAP, 3), 255, dtype=np.uint8)
    frame = np.concatenate([views[0], gap, views[1]], axis=1)
    odd = [(0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)]
    return np.pad(frame, odd, constant_values=255)


class VideoFile:
    """An MP4 file; whole or absent. Whatever fails is one warning, and ``close`` then returns False.

    Args:
        path: the file.
        fps: frames per second.
    """

    def __init__(self, path: Path, fps: float = FRAMES_PER_SECOND) -> None:
        self._path, self._fps = path, fps
        self._failure: Exception | None = None
        self._count = 0
        self._whole = contextlib.ExitStack()
        self._temporary: Path | None = None
        self._writer: Generator[Any, Any, None] | None = None

    def add(self, frame: np.ndarray) -> None:
        """Append a frame, uint8 (H, W, 3), with even sides and as large as the first."""
        if self._failure is None:
            try:
                self._writer = self._writer or self._open(frame)
                self._writer.send(np.ascontiguousarray(frame))
                self._count += 1
            except (OSError, RuntimeError, ValueError) as error:
                self._failure = error

    def close(self) -> bool:
        """Finish the file and read it back; return whether it is there and decodes to all its frames."""
        try:
            if self._writer is not None:
                self._writer.close()
            if self._failure is not None:
                raise self._failure
            if self._temporary is None:
                raise ValueError("there are no frames")
            found = count_frames(self._temporary)
            if found != self._count:
                raise OSError(f"{found} of {self._count} frames can be read back")
            self._whole.close()
        except (OSError, RuntimeError, ValueError) as error:
            self._whole.__exit__(type(error), error, None)
            warnings.warn(
                f"The video {self._path} could not be written: {error}", RuntimeWarning, stacklevel=2
            )
            return False
        return True

    def _open(self, frame: np.ndarray) -> Generator[Any, Any, None]:
        self._temporary = self._whole.enter_context(atomic_path(self._path))
        height, width = frame.shape[:2]
        writer = imageio_ffmpeg.write_frames(
            str(self._temporary),
            (width, height),
            fps=self._fps,
            codec="libx264",
            quality=8,
            macro_block_size=2,
            ffmpeg_log_level="error",
            ffmpeg_timeout=60,
        )
        writer.send(None)
        return writer


class VideoRecorder:
    """Collects the frames of one episode and writes them as an MP4 file.

    Frames are kept small and enlarged while writing: 500 steps of 84x84 take 21 MB.
    """

    def __init__(self) -> None:
        self._frames: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, raw: np.ndarray, masked: np.ndarray) -> None:
        """Append one frame, uint8 (H, W, 3) twice, or the views of V cameras, (V, H, W, 3) twice."""
        self._frames.append((raw, masked))

    def save(self, path: Path, fps: int = FRAMES_PER_SECOND) -> bool:
        """Write the video, read it back, and forget the frames; see ``VideoFile.close``."""
        frames, self._frames = self._frames, []
        video = VideoFile(path, fps)
        for pictures in frames:
            raw, masked = (one if one.ndim == 3 else join_views(one) for one in pictures)
            video.add(side_by_side(raw, masked))
        return video.close()


def count_frames(path: Path) -> int:
    """Decode a video and return its number of frames.

    Raises:
        OSError: the file is missing or cannot be decoded at all.
    """
    reader = imageio_ffmpeg.read_frames(str(path), pix_fmt="rgb24")
    try:
        next(reader)  # metadata
        return sum(1 for _ in reader)
    except (OSError, RuntimeError, StopIteration) as error:
        raise OSError(f"{path} does not decode") from error
    finally:
        reader.close()
