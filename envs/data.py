"""Background data of the DMControl generalisation benchmark: where they are, and what is read from them.

This is the only module that touches them. A data directory holds ``color_easy`` and ``color_hard`` as
``.json`` or as the published ``.pt``, and the folders ``video_easy`` and ``video_hard`` with the clips. The
``.pt`` files are read by torch's restricted loader, which builds arrays and lists and runs no code.
"""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import os
import pickle
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.errors import InputError
from common.files import BROKEN_PICKLE, read_json, sha256_file
from common.paths import PROJECT_ROOT, cache_dir, resolve

logger = logging.getLogger(__name__)

COLOUR_KEYS = ("grid_rgb1", "grid_rgb2", "skybox_rgb", "self_rgb")
COLOUR_COUNT = 100
DATA_VARIABLE = "SAMG_DATA"
CLIP_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm")
MANIFEST = PROJECT_ROOT / "envs" / "dmcgb_manifest.json"
CURES = (
    "Fetch the benchmark's data (python setup/download.py dmcgb), name the folder that holds them "
    f"({DATA_VARIABLE} or background.data_dir), or use generated backgrounds instead "
    "(--background-source procedural, in a config background.source=procedural)."
)

# The 60 training sequences of DAVIS 2017 (Pont-Tuset et al.), in the order of the Distracting Control Suite.
DAVIS_VIDEOS = tuple(
    """bear bmx-bumps boat boxing-fisheye breakdance-flare bus car-turn cat-girl classic-car color-run
    crossing dance-jump dancing disc-jockey dog-agility dog-gooses dogs-scale drift-turn drone elephant
    flamingo hike hockey horsejump-low kid-football kite-walk koala lady-running lindy-hop longboard lucia
    mallard-fly mallard-water miami-surf motocross-bumps motorbike night-race paragliding planes-water rallye
    rhino rollerblade schoolgirls scooter-board scooter-gray sheep skate-park snowboard soccerball stroller
    stunt surf swing tennis tractor-sand train tuk-tuk upside-down varanus-cage walking""".split()
)
DAVIS_CURES = (
    "Put DAVIS 2017 (480p, TrainVal) there as DAVIS/JPEGImages/480p/NAME/*.jpg, or use generated backgrounds "
    "instead (--background-source procedural, in a config background.source=procedural)."
)
_DAVIS_FOLDERS = ("DAVIS/JPEGImages/480p", "JPEGImages/480p", "480p", ".")

Entry = dict[str, tuple[float, float, float]]


@dataclass(frozen=True)
class ColourTable:
    """The colours of one difficulty.

    Attributes:
        entries: 100 dictionaries; keys ``grid_rgb1, grid_rgb2, skybox_rgb, self_rgb``, values RGB in [0, 1].
        name: the file's name, or what generated them.
        digest: SHA-256 of the file, or of the generated values.
    """

    entries: tuple[Entry, ...]
    name: str
    digest: str


def data_directory(data_dir: str | os.PathLike[str] | None = None) -> Path:
    """Return the data directory: the argument, else ``SAMG_DATA``, else the folder ``dmcgb`` in the cache."""
    chosen = data_dir or os.environ.get(DATA_VARIABLE)
    return resolve(chosen) if chosen else cache_dir() / "dmcgb"


def load_colours(difficulty: str, data_dir: str | os.PathLike[str] | None = None) -> ColourTable:
    """Read the colours of ``difficulty`` (``easy`` or ``hard``), JSON first, the published ``.pt`` second.

    Raises:
        InputError: neither file is there, or the one that is does not hold 100 valid entries.
    """
    directory = data_directory(data_dir)
    for path in (directory / f"color_{difficulty}.json", directory / f"color_{difficulty}.pt"):
        if path.is_file():
            raw = read_json(path, "Colour file") if path.suffix == ".json" else _load_pt(path)
            return ColourTable(_validated(raw, path), path.name, sha256_file(path))
    raise InputError(f"The colours color_{difficulty}.json or .pt are not in {directory}.", CURES)


def find_clips(difficulty: str, data_dir: str | os.PathLike[str] | None = None) -> tuple[Path, ...]:
    """Return the clips of ``video_<difficulty>``, ordered by number (``video2`` before ``video10``).

    Raises:
        InputError: the folder is missing or holds no clip.
    """
    folder = data_directory(data_dir) / f"video_{difficulty}"
    found = folder.iterdir() if folder.is_dir() else ()
    # Unfinished downloads have names that begin with a dot.
    clips = [p for p in found if p.suffix.lower() in CLIP_SUFFIXES and not p.name.startswith(".")]
    if not clips:
        raise InputError(f"There are no clips in {folder}.", CURES)
    return tuple(sorted(clips, key=_number_then_name))


def find_davis(count: int | None, data_dir: str | os.PathLike[str] | None = None) -> tuple[Path, ...]:
    """Return the folders of the first ``count`` training sequences of DAVIS 2017, of all with None.

    They may lie in the data directory as ``DAVIS/JPEGImages/480p``, or the data directory may be any of these
    folders itself.

    Raises:
        InputError: some are missing; all such are named.
    """
    directory, wanted = data_directory(data_dir), DAVIS_VIDEOS[:count]
    places = [directory / folder for folder in _DAVIS_FOLDERS]
    place = next((p for p in places if any((p / name).is_dir() for name in wanted)), None)
    if place is None:
        raise InputError(f"The videos of DAVIS 2017 are not in {directory}.", DAVIS_CURES)
    missing = [name for name in wanted if not (place / name).is_dir()]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(wanted)} videos of DAVIS 2017 are not in {place}: {', '.join(missing)}.",
            DAVIS_CURES,
        )
    return tuple(place / name for name in wanted)


def clip_digests(paths: Iterable[Path]) -> dict[str, str]:
    """Return file name -> SHA-256 of each clip; read once per process and version of a file."""
    return {path.name: file_digest(path) for path in paths}


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, remembered while its size and modification time stay the same."""
    status = path.stat()
    return _digest(path, status.st_size, status.st_mtime_ns)


@cache
def _digest(path: Path, size: int, modified: int) -> str:
    return sha256_file(path)


def manifest_entries() -> dict[str, dict[str, Any]]:
    """Return the published files: path -> ``sha256`` and ``bytes``, or ``git_blob_sha1`` alone."""
    return read_json(MANIFEST, "Manifest")["files"]


def matches(path: Path, entry: dict[str, Any]) -> bool:
    """Tell whether a file is the published one: by SHA-256, or by git blob id where only that is known."""
    if "bytes" in entry and path.stat().st_size != entry["bytes"]:
        return False
    if "sha256" in entry:
        return file_digest(path) == entry["sha256"]
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == entry["git_blob_sha1"]


def is_published(paths: Iterable[Path]) -> bool:
    """Tell whether clips are a published set: all of it, nothing else, and byte for byte the same."""
    entries, names = manifest_entries(), {_published_name(path): path for path in paths}
    return names.keys() == _published_set(names, entries) != set() and all(
        matches(path, entries[name]) for name, path in names.items()
    )


def warn_unless_whole(clips: Sequence[Path]) -> None:
    """Log a warning where the clips of one folder are not all those of the benchmark, by their names.

    Once per process and number of clips, and not again in every environment process.
    """
    if multiprocessing.parent_process() is None:
        _warn_unless_whole(tuple(clips))


@cache
def _warn_unless_whole(clips: tuple[Path, ...]) -> None:
    names = {_published_name(path) for path in clips}
    wanted = _published_set(names, manifest_entries())
    if names == wanted:
        return
    others = len(names - wanted)
    logger.warning(
        "%d of %d clips of DMC-GB's %s%s: not the published benchmark",
        len(names & wanted),
        len(wanted),
        clips[0].parent.name,
        f" and {others} other{'s' if others > 1 else ''}" if others else "",
    )


def _published_name(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def _published_set(names: Iterable[str], entries: Iterable[str]) -> set[str]:
    """Return the published files of the folders that ``names`` lie in."""
    folders = {name.split("/")[0] for name in names}
    return {entry for entry in entries if "/" in entry and entry.split("/")[0] in folders}


def _number_then_name(path: Path) -> tuple[int, str]:
    match = re.search(r"(\d+)$", path.stem)
    return (int(match.group(1)) if match else 2**31, path.name)


def _load_pt(path: Path) -> Any:
    """Load a colour file written by ``torch.save``, allowing NumPy float arrays and nothing else."""
    from numpy._core import multiarray

    allowed: list[Any] = [
        (multiarray._reconstruct, "numpy.core.multiarray._reconstruct"),
        (multiarray._reconstruct, "numpy._core.multiarray._reconstruct"),
        np.ndarray,
        np.dtype,
        *{type(np.dtype(kind)) for kind in ("float64", "float32")},
    ]
    try:
        with torch.serialization.safe_globals(allowed):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, *BROKEN_PICKLE, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"The colour file {path} cannot be read ({reason}).", CURES) from error


def _validated(raw: Any, path: Path) -> tuple[Entry, ...]:
    """Return the entries of a colour file with every value checked."""

    def broken(what: str) -> InputError:
        return InputError(
            f"The colour file {path} must be a list of {COLOUR_COUNT} entries with three numbers in [0, 1] "
            f"for each of {', '.join(COLOUR_KEYS)}; {what}.",
            CURES,
        )

    if not isinstance(raw, list) or len(raw) != COLOUR_COUNT:
        raise broken(f"it holds {f'{len(raw)} entries' if isinstance(raw, list) else type(raw).__name__}")
    entries = []
    for number, item in enumerate(raw):
        if not isinstance(item, dict) or any(key not in item for key in COLOUR_KEYS):
            raise broken(f"entry {number} lacks a key")
        entry: Entry = {}
        for key in COLOUR_KEYS:
            try:
                values = np.asarray(item[key], dtype=np.float64)
            except (TypeError, ValueError) as error:
                raise broken(f"{key} of entry {number} is not numeric") from error
            if values.shape != (3,) or not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
                raise broken(f"{key} of entry {number} is {item[key]}")
            entry[key] = (float(values[0]), float(values[1]), float(values[2]))
        entries.append(entry)
    return tuple(entries)
