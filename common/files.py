"""Files that are either whole or absent: everything is written beside its place and renamed into it."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import shutil
import struct
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import faults
from common.errors import InputError

STAGE_PREFIX = ".stage-"
# What libraries raise, besides their own errors, on files that are cut or altered; found by fuzzing them.
BROKEN_PICTURE = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error)
BROKEN_PICKLE = (RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, struct.error)


def fsync_directory(path: Path) -> None:
    """Flush a directory entry to disk, so that a rename inside it survives a crash."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_file(path: Path) -> None:
    """Flush the content of a file to disk."""
    with path.open("rb") as handle:
        os.fsync(handle.fileno())


@contextlib.contextmanager
def atomic_path(path: Path, kind: str = "file") -> Iterator[Path]:
    """Yield a temporary path with the same suffix; on success it is fsynced and renamed to ``path``.

    On any error the temporary file is removed and ``path`` is left as it was. ``kind`` is one of
    ``common.faults.FILES``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{STAGE_PREFIX}{uuid.uuid4().hex}{path.suffix}")
    try:
        yield temporary
        faults.point(f"{kind}.staged")
        fsync_file(temporary)
        faults.point(f"{kind}.synced")
        os.replace(temporary, path)
        faults.point(f"{kind}.renamed")
        fsync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def is_free(path: Path) -> bool:
    """Return whether a directory may appear at ``path``: nothing is there, or a directory without content."""
    if path.is_symlink() or not path.is_dir():
        return not os.path.lexists(path)
    return not any(path.iterdir())


@contextlib.contextmanager
def atomic_directory(path: Path, kind: str = "directory") -> Iterator[Path]:
    """Yield a staging directory; on success its files are fsynced and it appears as ``path`` by one rename.

    ``kind`` is one of ``common.faults.FILES``.

    Raises:
        FileExistsError: ``path`` exists already and is no empty directory (what was written this way is never
            replaced).
    """
    if not is_free(path):
        raise FileExistsError(f"{path} exists already")
    path.parent.mkdir(parents=True, exist_ok=True)
    stage = path.parent / f"{STAGE_PREFIX}{uuid.uuid4().hex}"
    stage.mkdir()
    try:
        yield stage
        faults.point(f"{kind}.staged")
        for file in stage.rglob("*"):
            if file.is_file():
                fsync_file(file)
        fsync_directory(stage)
        faults.point(f"{kind}.synced")
        os.rename(stage, path)
        faults.point(f"{kind}.renamed")
        fsync_directory(path.parent)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def sweep_stages(directory: Path) -> None:
    """Remove what interrupted writes left behind in ``directory``."""
    for leftover in directory.glob(f"{STAGE_PREFIX}*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def move_aside(path: Path, folder: Path) -> Path:
    """Move a file into ``folder``, which is made, and return its place; a taken name gets a number."""
    folder.mkdir(parents=True, exist_ok=True)
    names = (path.name if not count else f"{path.name}.{count}" for count in itertools.count())
    target = next(folder / name for name in names if not (folder / name).exists())
    os.replace(path, target)
    return target


def write_bytes(path: Path, data: bytes, kind: str = "file") -> None:
    """Write ``data`` to ``path`` atomically; ``kind`` as for ``atomic_path``."""
    with atomic_path(path, kind) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any, kind: str = "file") -> None:
    """Write ``value`` as indented JSON, atomically; NaN and infinity are refused."""
    write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode(), kind)


def read_json(path: Path, what: str = "file") -> Any:
    """Read JSON.

    Raises:
        InputError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise InputError(f"{what} {path} does not exist.", "Check the path.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f"{what} {path} is not valid JSON ({error}).", "Restore it or write it anew."
        ) from error


def sha256_file(path: Path) -> str:
    """Return the hex SHA-256 of a file."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
