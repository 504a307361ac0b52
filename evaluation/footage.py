"""Pictures and videos of the user's own, made fit for a masker: square, at the size of its reference."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from common.errors import InputError
from common.files import BROKEN_PICTURE
from common.paths import resolve

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
Frame = tuple[str, np.ndarray]
IMAGES_PER_SECOND = 2.0

logger = logging.getLogger(__name__)


def fit_frame(picture: Image.Image, size: int) -> np.ndarray:
    """Return the middle square of a picture at ``size`` x ``size`` pixels, uint8 RGB."""
    picture = picture.convert("RGB")
    if picture.size != (size, size):
        picture = ImageOps.fit(picture, (size, size), Image.Resampling.BILINEAR)
    return np.asarray(picture)


class ImageFootage:
    """All pictures of a folder, in the order of their names, read when it is opened.

    Args:
        folder: its subfolders and files of other kinds are passed over.
        size: of the reference.

    Attributes:
        name: of the folder.
        length: how many pictures.
        fps: of a video of them.

    Raises:
        InputError: the folder does not exist or holds no picture; or pictures cannot be read, all of which
            are named.
    """

    fps = IMAGES_PER_SECOND

    def __init__(self, folder: str | Path, size: int) -> None:
        self._frames = _read_folder(folder, size)
        self.name, self.length = resolve(folder).name, len(self._frames)

    def frames(self, count: int | None) -> Iterator[Frame]:
        """Yield names and frames, uint8 (size, size, 3) RGB; at most ``count``."""
        return iter(self._frames[:count])


def _read_folder(folder: str | Path, size: int) -> list[Frame]:
    path = resolve(folder)
    if not path.is_dir():
        raise InputError(f"{folder} is not a folder.", "Name a folder of images; --video-file takes a video.")
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
    if not files:
        raise InputError(f"{folder} holds no image.", f"Known are {', '.join(SUFFIXES)}.")
    frames, faults, resized = [], [], []
    for file in files:
        try:
            with Image.open(file) as opened:
                picture = ImageOps.exif_transpose(opened)
                resized += [file.name] if picture.size != (size, size) else []
                frames.append((file.name, fit_frame(picture, size)))
        except (*BROKEN_PICTURE, Image.DecompressionBombError) as error:
            faults.append(f"{file.name} ({error})")
    if faults:
        raise InputError(
            f"{len(faults)} of {len(files)} images in {folder} cannot be read: {'; '.join(faults)}.",
            "Replace or remove them.",
        )
    if resized:
        logger.warning(_notice(f"{len(resized)} of {len(files)} images", size))
    return frames


def _notice(what: str, size: int) -> str:
    return (
        f"{what} are not {size} x {size} pixels, as the reference is: their middle square is resized to that"
    )


class VideoFootage:
    """A video file, checked when it is opened and decoded while it is read.

    Args:
        path: the file.
        size: of the reference.

    Attributes:
        name: of the file.
        length: None: only reading tells how many frames there are.
        fps: frames per second, as the file says; 25 where it says nothing sensible.

    Raises:
        InputError: the file does not exist or not even one frame can be decoded.
    """

    length = None

    def __init__(self, path: str | Path, size: int) -> None:
        import cv2

        self._path, self._size = resolve(path), size
        self.name = self._path.name
        if not self._path.is_file():
            raise InputError(
                f"The video {path} does not exist.", "Name a video file; --images takes a folder."
            )
        capture = cv2.VideoCapture(str(self._path))
        try:
            found, frame = capture.read()
            fps = float(capture.get(cv2.CAP_PROP_FPS))
        finally:
            capture.release()
        if not found:
            raise InputError(f"{path} does not decode as a video.", "Convert it, such as to H.264 in MP4.")
        self.fps = fps if 1 <= fps <= 240 else 25.0
        if frame.shape[:2] != (size, size):
            logger.warning(_notice("The frames of the video", size))

    def frames(self, count: int | None) -> Iterator[Frame]:
        """Yield titles and frames, uint8 (size, size, 3) RGB; at most ``count``, None for all."""
        import cv2

        capture = cv2.VideoCapture(str(self._path))
        try:
            for number in itertools.count() if count is None else range(count):
                found, frame = capture.read()
                if not found:  # frame counts in headers are often too high
                    return
                yield f"frame {number}", fit_frame(Image.fromarray(frame[:, :, ::-1]), self._size)
        finally:
            capture.release()


Footage = ImageFootage | VideoFootage


def open_footage(images: str | None, video_file: str | None, size: int) -> Footage:
    """Return a folder's pictures or a video, whichever is given, for a reference of ``size`` pixels."""
    return ImageFootage(images, size) if images is not None else VideoFootage(video_file or "", size)
