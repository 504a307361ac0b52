"""Videos kept as folders of numbered pictures, as DAVIS 2017 is."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from common.errors import InputError
from common.files import BROKEN_PICTURE
from envs.data import DAVIS_CURES
from envs.video_background import SHORTEST, refuse_faulty, size_fault

_SUFFIXES = (".jpg", ".jpeg", ".png")
_BROKEN = (*BROKEN_PICTURE, Image.DecompressionBombError)


class FrameFolders:
    """Clips in folders of pictures, decoded when an episode shows them.

    Args:
        paths: the folders, in the order of their numbers.
        size: side of the square frames in pixels.

    Raises:
        InputError: a folder holds too few pictures, or its first or last one is broken or too small; all such
            folders are named.
    """

    _IN_MEMORY = 2

    def __init__(self, paths: Sequence[Path], size: int) -> None:
        self.paths = tuple(paths)
        self.size = size
        self._clips: OrderedDict[int, np.ndarray] = OrderedDict()
        refuse_faulty(self.paths, folder_fault)

    def __len__(self) -> int:
        return len(self.paths)

    def clip(self, index: int) -> np.ndarray:
        """Return clip ``index``: uint8 (T, size, size, 3) RGB.

        Raises:
            InputError: a picture in the middle of it is broken.
        """
        if index not in self._clips:
            self._clips[index] = np.stack([self._read(path) for path in frames_of(self.paths[index])])
            if len(self._clips) > self._IN_MEMORY:
                self._clips.popitem(last=False)
        return self._clips[index]

    def _read(self, path: Path) -> np.ndarray:
        try:
            with Image.open(path) as image:
                return np.asarray(image.convert("RGB").resize((self.size, self.size)))
        except _BROKEN as error:
            raise InputError(f"The picture {path} cannot be decoded ({error}).", DAVIS_CURES) from error


def frames_of(folder: Path) -> list[Path]:
    """Return the pictures of a folder in order."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)


def folder_fault(folder: Path) -> str | None:
    """Return why a folder is no clip, or None: enough pictures, the first and last whole and large enough."""
    frames = frames_of(folder)
    if len(frames) < SHORTEST:
        return f"{len(frames)} pictures, at least {SHORTEST} needed"
    for path in (frames[0], frames[-1]):
        try:
            with Image.open(path) as image:
                image.load()
                width, height = image.size
        except _BROKEN:
            return f"{path.name} cannot be decoded"
        if (why := size_fault(width, height)) is not None:
            return why
    return None


def folders_digest(folders: Sequence[Path]) -> str:
    """Return the SHA-256 of the names and sizes of all pictures, so that results can be told apart."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in frames_of(folder):
            digest.update(f"{folder.name}/{path.name}/{path.stat().st_size}\n".encode())
    return digest.hexdigest()
