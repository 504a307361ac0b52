"""The data of DMC-GB out of an archive, for machines without a network: the benchmark's repository as a file.

Only the published files are taken, by name, each checked against the manifest before it gets its place. An
archive with a member that points outside it is refused as a whole: nobody packs such a thing by accident.
"""

from __future__ import annotations

import errno
import lzma
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from common.errors import InputError, ResourceError
from common.files import atomic_path
from common.paths import existing_file
from envs.data import matches
from envs.download import not_published, select

# Besides their own errors: RuntimeError for a password, IndexError for a member without a name.
_OWN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error)
_BROKEN = (*_OWN, RuntimeError, LookupError, EOFError, ValueError)
_LARGEST = 64 * 2**20  # bytes; the largest published file has 3 MB
_CURE = "Fetch it again; expected is a .zip or .tar of the benchmark's repository, or of its data folder."


@dataclass(frozen=True)
class Member:
    """One entry of an archive.

    Attributes:
        name: with forward slashes, as the archive has it.
        size: bytes, as the archive says.
        kind: ``file``, ``folder``, or ``link``, which stands for everything else as well.
        open: returns its content as a stream.
    """

    name: str
    size: int
    kind: str
    open: Callable[[], IO[bytes] | None]

    def escapes(self) -> str | None:
        """Return why nothing like this belongs into an archive of files, or None."""
        path = PurePosixPath(self.name.replace("\\", "/"))
        if path.is_absolute() or ":" in self.name.split("/")[0]:
            return "an absolute path"
        if ".." in path.parts:
            return "a path that leaves the folder"
        return "a link or a device" if self.kind == "link" else None


@contextmanager
def open_members(archive: Path) -> Iterator[list[Member]]:
    """Yield the members of a ``.zip`` or ``.tar`` (plain or compressed).

    Raises:
        InputError: it is neither, or damaged; also where the block finds out.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as zipped:
                yield [_of_zip(zipped, info) for info in zipped.infolist()]
        else:
            with tarfile.open(archive) as tar:
                yield [_of_tar(tar, info) for info in tar.getmembers()]
    except (*_BROKEN, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.EINVAL, None):
            raise  # the disk, not the content; EINVAL comes from places outside the file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"The archive {archive} cannot be read ({reason}).", _CURE) from error


def _of_zip(zipped: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    link = stat.S_ISLNK(info.external_attr >> 16)
    kind = "folder" if info.is_dir() else "link" if link else "file"
    return Member(info.filename, info.file_size, kind, lambda: zipped.open(info))


def _of_tar(tar: tarfile.TarFile, info: tarfile.TarInfo) -> Member:
    kind = "folder" if info.isdir() else "file" if info.isreg() else "link"
    return Member(info.name, info.size, kind, lambda: tar.extractfile(info))


def unpack_dmcgb(
    archive: str | Path, directory: Path, parts: Iterable[str], report: Callable[[str], None] = print
) -> int:
    """Take the parts of DMC-GB's data that are not in ``directory`` yet out of an archive.

    Args:
        archive: of the repository or of its data folder; the data may lie in it at any depth.
        directory: becomes a data directory.
        parts: some of ``color, video_easy, video_hard``.
        report: is told about every file.

    Returns:
        How many files were taken.

    Raises:
        ConfigError: an unknown part.
        InputError: the archive is missing or damaged, holds a member that points outside, lacks a file, or
            holds another one than the published.
        ResourceError: the folder cannot be written.
    """
    path, wanted = existing_file(archive, "The archive"), select(parts)
    with open_members(path) as members:
        for member in members:
            if why := member.escapes():
                raise InputError(f"The archive {archive} is refused: {member.name} is {why}.", _CURE)
        by_name = {name: _find(members, name) for name in wanted}
        missing = [name for name in wanted if by_name[name] is None and not (directory / name).is_file()]
        if missing:
            raise InputError(
                f"{len(missing)} of {len(wanted)} files are not in {archive}, such as {missing[0]}.", _CURE
            )
        taken = 0
        for name, entry in wanted.items():
            target, found = directory / name, by_name[name]
            if found is None or (target.is_file() and matches(target, entry)):
                continue
            report(name)
            with _disk_errors(target), atomic_path(target) as temporary:
                _copy(found, temporary)
                if not matches(temporary, entry):
                    raise not_published(f"{name} of {archive}", entry, _CURE)
            taken += 1
    return taken


def _find(members: list[Member], name: str) -> Member | None:
    return next((m for m in members if m.kind == "file" and f"/{m.name}".endswith(f"/{name}")), None)


def _copy(member: Member, target: Path) -> None:
    stream = member.open() if member.size <= _LARGEST else None
    if stream is None:
        raise InputError(f"{member.name} is far larger than the published file.", _CURE)
    with stream, target.open("wb") as file:
        shutil.copyfileobj(stream, file)


@contextmanager
def _disk_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ResourceError(
            f"{target} cannot be written ({error.strerror or error}).", "Free some space."
        ) from error
