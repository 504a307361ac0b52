"""Evaluation videos: the raw and the masked view side by side. A video that fails only warns."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import imageio_ffmpeg
import numpy as np

from common.files import atomic_path

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


class VideoRecorder:
    """Collects the frames of one episode and writes them as an MP4 file.

    Frames are kept small and enlarged while writing: 500 steps of 84x84 take 21 MB.
    """

    def __init__(self) -> None:
        self._frames: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, raw: np.ndarray, masked: np.ndarray) -> None:
        """Append one frame: uint8 (H, W, 3) twice."""
        self._frames.append((raw, masked))

    def save(self, path: Path, fps: int = FRAMES_PER_SECOND) -> bool:
        """Write the video, read it back, and forget the frames.

        Returns:
            Whether a video was written that decodes completely. A failure is a warning, never an error: no
            result may be lost for a video.
        """
        frames, self._frames = self._frames, []
        try:
            with atomic_path(path) as temporary:
                _write(temporary, frames, fps)
                found = count_frames(temporary)
                if found != len(frames):
                    raise OSError(f"{found} of {len(frames)} frames can be read back")
        except (OSError, RuntimeError, ValueError) as error:
            warnings.warn(f"The video {path} could not be written: {error}", RuntimeWarning, stacklevel=2)
            return False
        return True


def _write(path: Path, frames: Sequence[tuple[np.ndarray, np.ndarray]], fps: int) -> None:
    if not frames:
        raise ValueError("there are no frames")
    height, width = side_by_side(*frames[0]).shape[:2]
    writer = imageio_ffmpeg.write_frames(
        str(path),
        (width, height),
        fps=fps,
        codec="libx264",
        quality=8,
        macro_block_size=2,
        ffmpeg_log_level="error",
        ffmpeg_timeout=60,
    )
    writer.send(None)
    try:
        for raw, masked in frames:
            writer.send(np.ascontiguousarray(side_by_side(raw, masked)))
    finally:
        writer.close()


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
