"""Where the replay buffer keeps its frames: RAM, a memory map or the GPU. All give the same batches.

A cache is a ring of rows, one frame each. It is only a cache: episode files are what lasts, and every kind is
filled from them again when a run is resumed, also with another kind than before.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from common.errors import ConfigError, ResourceError, unknown_choice
from training.memory import available_memory

CACHES = ("auto", "ram", "memmap", "gpu")
_BLOCK = 512  # bytes, in which ``stat`` counts what a file takes
_GPU_SHARE = 0.7  # of the free memory: networks, activations and the masker need the rest
log = logging.getLogger(__name__)


class Frames(Protocol):
    """A ring of uint8 rows."""

    @property
    def nbytes(self) -> int:
        """Bytes that all rows take."""
        ...

    def growth(self, disk: int) -> int:
        """Return the bytes that rows not yet written will take on ``disk``, an ``os.stat(...).st_dev``."""
        ...

    def write(self, rows: np.ndarray, frames: np.ndarray) -> None:
        """Put frames, uint8 (n, L), at successive ``rows``, int64 (n,), of the ring."""
        ...

    def take(self, rows: np.ndarray) -> torch.Tensor:
        """Return uint8 (B, k * L), the frames at ``rows``, int64 (B, k), side by side."""
        ...

    def close(self) -> None:
        """Give back what the rows take."""
        ...


OpenFrames = Callable[[int, int], Frames]  # number of rows, bytes of a row


class RamFrames:
    """Rows in memory, which the system commits as they are first written.

    Args:
        rows: how many.
        length: bytes of a row.
        pin_memory: return page-locked memory, from which a GPU copies without waiting.
    """

    def __init__(self, rows: int, length: int, pin_memory: bool = False) -> None:
        self._rows = self._reserve(rows, length)
        self._pin_memory = pin_memory

    def _reserve(self, rows: int, length: int) -> np.ndarray:
        return np.empty((rows, length), np.uint8)

    @property
    def nbytes(self) -> int:
        """Bytes that all rows take."""
        return self._rows.nbytes

    def growth(self, disk: int) -> int:
        """See ``Frames``."""
        return 0

    def write(self, rows: np.ndarray, frames: np.ndarray) -> None:
        """See ``Frames``."""
        self._rows[rows] = frames

    def take(self, rows: np.ndarray) -> torch.Tensor:
        """See ``Frames``; the tensor is on the CPU."""
        shape = (len(rows), rows.shape[1] * self._rows.shape[1])
        if self._pin_memory:
            taken = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        else:  # NumPy asks the system for huge pages, which makes fresh memory twice as fast as torch's
            taken = torch.from_numpy(np.empty(shape, np.uint8))
        out = taken.numpy().reshape(rows.size, -1)
        np.take(self._rows, rows.reshape(-1), axis=0, out=out, mode="clip")  # other modes copy twice
        return taken

    def close(self) -> None:
        """Let go of the memory."""
        self._rows = np.empty((0, self._rows.shape[1]), np.uint8)


class MappedFrames(RamFrames):
    """Rows in a sparse file without a name, so that nothing remains of it however the process ends.

    They are written through the file and not through the map: a full disk is then an error, and no signal
    that kills the process.

    Args:
        rows: how many.
        length: bytes of a row.
        pin_memory: as for ``RamFrames``.
        directory: where the file lies.
    """

    def __init__(self, rows: int, length: int, pin_memory: bool = False, *, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=directory)
        super().__init__(rows, length, pin_memory)

    def _reserve(self, rows: int, length: int) -> np.ndarray:
        self._file.truncate(rows * length)
        return np.memmap(self._file, np.uint8, "r", shape=(rows, length))

    def growth(self, disk: int) -> int:
        """See ``Frames``."""
        file = os.fstat(self._file.fileno())
        return max(self.nbytes - _BLOCK * file.st_blocks, 0) if file.st_dev == disk else 0

    def write(self, rows: np.ndarray, frames: np.ndarray) -> None:
        """See ``Frames``.

        Raises:
            OSError: the disk is full.
        """
        turn = np.flatnonzero(np.diff(rows) != 1) + 1  # at the end of the ring
        for place, part in zip(np.split(rows, turn), np.split(frames, turn), strict=True):
            data = np.ascontiguousarray(part).data.cast("B")
            offset = int(place[0]) * frames.shape[1]
            while data:
                written = os.pwrite(self._file.fileno(), data, offset)
                data, offset = data[written:], offset + written

    def close(self) -> None:
        """Remove the file."""
        super().close()
        self._file.close()


class DeviceFrames:
    """Rows in the memory of a device; batches are gathered there and never travel.

    Args:
        rows: how many.
        length: bytes of a row.
        device: where they lie.
    """

    def __init__(self, rows: int, length: int, device: torch.device) -> None:
        self._rows = torch.empty((rows, length), dtype=torch.uint8, device=device)

    @property
    def nbytes(self) -> int:
        """Bytes that all rows take."""
        return self._rows.nbytes

    def growth(self, disk: int) -> int:
        """See ``Frames``."""
        return 0

    def write(self, rows: np.ndarray, frames: np.ndarray) -> None:
        """See ``Frames``."""
        places = torch.from_numpy(rows).to(self._rows.device)
        self._rows.index_copy_(0, places, torch.from_numpy(frames).to(self._rows.device))

    def take(self, rows: np.ndarray) -> torch.Tensor:
        """See ``Frames``; the tensor is on the device."""
        places = torch.from_numpy(rows.reshape(-1)).to(self._rows.device, non_blocking=True)
        return self._rows.index_select(0, places).view(len(rows), -1)

    def close(self) -> None:
        """Let go of the memory."""
        self._rows = self._rows.new_empty(0)


def available_gpu_memory(device: torch.device) -> int:
    """Return the bytes of GPU memory that nobody has taken."""
    return int(torch.cuda.mem_get_info(device)[0])


def available_disk(directory: Path) -> int:
    """Return the bytes that may still be written where ``directory`` lies or will lie."""
    while not directory.exists():
        directory = directory.parent
    return shutil.disk_usage(directory).free


Beside = Callable[[int], int]
"""Tells the bytes of memory that others need, of the bytes that are left for them."""


def choose_frames(
    cache: str,
    capacity: int,
    device: torch.device,
    directory: Path,
    pin_memory: bool = False,
    beside: Beside | None = None,
) -> OpenFrames:
    """Return what makes the rows of a replay buffer, which is refused there if they would not fit.

    Args:
        cache: ``ram``, ``memmap``, ``gpu``, or ``auto``: the first of GPU (where the agent is on one), RAM
            and memory map that they fit into.
        capacity: transitions of the buffer; for the messages.
        device: where the agent learns.
        directory: of the memory map.
        pin_memory: see ``RamFrames``.
        beside: what must find room in memory beside rows that lie there.

    Raises:
        ConfigError: an unknown cache, or ``gpu`` while the agent is on none.
        ResourceError: raised by what is returned; bytes needed, bytes available and the keys to change.
    """
    if cache not in CACHES:
        raise unknown_choice("replay.cache", cache, CACHES)
    if cache == "gpu" and device.type != "cuda":
        raise ConfigError(
            f"replay.cache=gpu needs a CUDA device, and device is {device}.",
            "Set replay.cache=auto, ram or memmap, or device=cuda.",
        )

    def make(rows: int, length: int) -> Frames:
        place = choose_place(cache, rows * length, capacity, device, directory, beside)
        if cache == "auto" and place == "memmap":
            log.warning(
                "The replay buffer (%s bytes) does not fit into memory; it is mapped from %s.",
                f"{rows * length:,}",
                directory,
            )
        return _open(place, rows, length, device, directory, pin_memory)

    return make


def choose_place(
    cache: str,
    needed: int,
    capacity: int,
    device: torch.device,
    directory: Path,
    beside: Beside | None = None,
) -> str:
    """Return where ``needed`` bytes of rows will lie: ``gpu``, ``ram`` or ``memmap``; see ``choose_frames``.

    Raises:
        ResourceError: nowhere; bytes needed, bytes available and the keys to change.
    """
    automatic = [*(["gpu"] if device.type == "cuda" else []), "ram", "memmap"]
    found, others = {}, ""
    for place in automatic if cache == "auto" else [cache]:
        available = _available(place, device, directory)
        if available is None:
            return place
        if place == "ram" and beside is not None:
            taken = beside(max(available - needed, 0))
            available, others = available - taken, " beside the updates" if taken else ""
        if needed <= available:
            return place
        found[place] = max(available, 0)
    raise _too_little(needed, capacity, found, directory, others)


def _available(place: str, device: torch.device, directory: Path) -> int | None:
    """Return how many bytes rows may take at a place; None where that cannot be told."""
    if place == "gpu":
        return int(_GPU_SHARE * available_gpu_memory(device))
    return available_memory() if place == "ram" else available_disk(directory)


def _open(
    place: str, rows: int, length: int, device: torch.device, directory: Path, pin_memory: bool
) -> Frames:
    if place == "gpu":
        return DeviceFrames(rows, length, device)
    if place == "memmap":
        return MappedFrames(rows, length, pin_memory, directory=directory)
    return RamFrames(rows, length, pin_memory)


def _too_little(
    needed: int, capacity: int, found: dict[str, int], directory: Path, others: str
) -> ResourceError:
    names = {
        "ram": f"of memory{others}",
        "memmap": f"of disk in {directory}",
        "gpu": f"of GPU memory ({_GPU_SHARE:.0%} of what is free)",
    }
    most = max(found.values())
    shares = ", ".join(f"{available:,} bytes {names[place]}" for place, available in found.items())
    # Ring and columns are a little larger than the transitions alone.
    fits = int(capacity * most / needed * 0.9)
    untried = [cache for cache in CACHES[:3] if cache not in found] if len(found) == 1 else []
    elsewhere = f"replay.cache={' or '.join(untried)}" if untried else "replay.cache_dir=FOLDER"
    fewer = f"replay_buffer_size={fits} or less, or " if fits else ""
    return ResourceError(
        f"The replay buffer needs {needed:,} bytes for {capacity:,} transitions; there are only {shares}.",
        f"Set {fewer}{elsewhere}.",
    )


def check_batch(batch_size: int, obs_bytes: int, device: torch.device) -> None:
    """Refuse a batch of which not even the observations fit.

    Args:
        batch_size: transitions.
        obs_bytes: bytes of a stacked uint8 observation.
        device: where the agent learns.

    Raises:
        ResourceError: bytes needed and available, and the key to change.
    """
    needed = batch_size * obs_bytes * 2 * (1 + 4)  # two observations, as bytes and as float32
    available = available_gpu_memory(device) if device.type == "cuda" else available_memory()
    if available is not None and needed > available:
        raise ResourceError(
            f"A batch of {batch_size:,} needs at least {needed:,} bytes on {device}, but only "
            f"{available:,} are available.",
            f"Set batch_size={max(int(batch_size * available / needed / 8), 1)} or less.",
        )
