"""The files that demonstrations come in: DAPG's pickles, HDF5 of Minari and D4RL, and our own NumPy archives.

Readers look for what they know and check nothing: ``training.demonstrations.reading`` does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import DependencyError, InputError
from common.files import atomic_path
from training.demonstrations.numeric_pickle import read_numeric_pickle
from training.episodes import DAMAGE

WHAT = "Demonstrations"
CURE = "Give the file of this task: TASK-v0_demos.pickle of DAPG, a Minari or D4RL set, or one of record.py."
FORMAT = "samg-demonstrations-1"
_START = "start_"  # of names in an archive


@dataclass(frozen=True)
class RawEpisode:
    """An episode as a file holds it; nothing is known to be of the right kind.

    Attributes:
        start: what restores the simulator where the episode began.
        actions: what was done.
        seed: of the physics; None where the file holds none.
    """

    start: Any
    actions: Any
    seed: int | None = None


@dataclass(frozen=True)
class RawFile:
    """What a file holds.

    Attributes:
        episodes: in order.
        task: name of the task; None where the file does not say.
        action_repeat: control steps for which each action was held.
    """

    episodes: list[RawEpisode]
    task: str | None = None
    action_repeat: int = 1


def content_file(path: Path) -> Path:
    """Return the file that holds the episodes of a file or folder."""
    return path / "data" / "main_data.hdf5" if path.is_dir() else path


def read_raw(path: Path, start: Sequence[str]) -> RawFile:
    """Read a file of any known form.

    Args:
        path: file or folder, which exists.
        start: names of what the simulator needs in order to begin where an episode began.

    Raises:
        InputError: it is damaged, or holds more than numbers.
        DependencyError: it is HDF5, and h5py is not installed.
    """
    if path.is_dir() or path.suffix in (".hdf5", ".h5"):
        return RawFile(_hdf5_episodes(path, start))
    if path.suffix == ".npz":
        return _read_archive(path)
    return RawFile(_dapg_episodes(path))


def _dapg_episodes(path: Path) -> list[RawEpisode]:
    """Return the episodes of a DAPG pickle: a list of dictionaries."""
    content = read_numeric_pickle(path, WHAT, CURE)
    if not isinstance(content, list) or not all(isinstance(record, dict) for record in content):
        raise InputError(f"{WHAT} {path} are no list of episodes.", CURE)
    return [RawEpisode(record.get("init_state_dict"), record.get("actions")) for record in content]


# HDF5 -------------------------------------------------------------------------------------------------------


def _hdf5_episodes(path: Path, start: Sequence[str]) -> list[RawEpisode]:
    """Return the episodes of a Minari set (a group each) or of a D4RL file (one after the other)."""
    try:
        import h5py  # an optional package, and only these files need it
    except ImportError as error:
        raise DependencyError(f"Reading {path} needs h5py.", "Install it: pip install h5py.") from error
    file = content_file(path)
    try:
        with h5py.File(file, "r") as data:
            if "actions" in data:
                return list(_d4rl_episodes(data, start))
            names = sorted((name for name in data if name.startswith("episode_")), key=_number)
            return [RawEpisode(_first_rows(data[name], start), data[name]["actions"][()]) for name in names]
    except (OSError, KeyError, ValueError, RuntimeError, AttributeError, TypeError, IndexError) as error:
        raise InputError(f"{WHAT} {file} cannot be read: {str(error).strip(chr(39))}.", CURE) from error


def _number(name: str) -> int:
    return int(name.removeprefix("episode_"))


def _first_rows(episode: Any, start: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the first rows of what ``start`` names, from whichever group a release of Minari keeps it in."""
    found: dict[str, np.ndarray] = {}
    for place in ("infos/initial_state_dict", "infos/state", "state", "infos"):
        group = episode.get(place, {})
        found = {name: group[name][0] for name in start if name in group} | found
    return found


def _d4rl_episodes(data: Any, start: Sequence[str]) -> Iterator[RawEpisode]:
    """Yield the episodes of one long table; what follows the last end is an episode, too."""
    actions, infos = data["actions"][()], data.get("infos", {})
    ends = np.zeros(len(actions), bool)
    for name in ("terminals", "timeouts"):
        ends |= data[name][()].astype(bool) if name in data else False
    first = 0
    for last in np.flatnonzero(ends | (np.arange(len(actions)) == len(actions) - 1)):
        yield RawEpisode({n: infos[n][first] for n in start if n in infos}, actions[first : last + 1])
        first = int(last) + 1


# Our own ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recorded:
    """An episode to be written.

    Attributes:
        seed: of the physics.
        start: where it began, name -> float64 array; empty where the seed says all.
        actions: float32 (T, A).
        total_reward: undiscounted return.
        success: whether the task was solved; None where it does not say.
    """

    seed: int
    start: dict[str, np.ndarray]
    actions: np.ndarray
    total_reward: float
    success: bool | None


def write_archive(
    path: Path, task: str, action_repeat: int, episodes: Sequence[Recorded], about: dict[str, Any]
) -> None:
    """Write episodes, at least one, atomically as arrays that ``numpy.load`` reads without pickle.

    E episodes of T1, T2, ... actions: ``lengths`` int64 (E,), ``actions`` float32 (T1 + T2 + ..., A),
    ``seeds`` int64 (E,), ``returns`` float64 (E,), ``successes`` int8 (E,) (1, 0, or -1 for unknown), for
    every part of a start ``start_NAME`` float64 (E, ...), and ``about``, JSON with ``format``, ``task``,
    ``action_repeat`` and what else is given.
    """
    facts = {"format": FORMAT, "task": task, "action_repeat": action_repeat, **about}
    arrays = {
        "about": np.array(json.dumps(facts, allow_nan=False)),
        "lengths": np.array([len(episode.actions) for episode in episodes], np.int64),
        "actions": np.concatenate([episode.actions for episode in episodes]).astype(np.float32),
        "seeds": np.array([episode.seed for episode in episodes], np.int64),
        "returns": np.array([episode.total_reward for episode in episodes], np.float64),
        "successes": np.array([_ternary(episode.success) for episode in episodes], np.int8),
        **{f"{_START}{n}": np.stack([e.start[n] for e in episodes]) for n in episodes[0].start},
    }
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]


def _ternary(success: bool | None) -> int:
    return -1 if success is None else int(success)


def _read_archive(path: Path) -> RawFile:
    """Return what ``write_archive`` wrote."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        about = json.loads(str(arrays["about"]))
        if about["format"] != FORMAT:
            raise ValueError(f"its format is {about['format']}, expected {FORMAT}")
        lengths, actions, seeds = arrays["lengths"], arrays["actions"], arrays["seeds"]
        starts = {n.removeprefix(_START): rows for n, rows in arrays.items() if n.startswith(_START)}
        counts = {len(rows) for rows in (lengths, seeds, *starts.values())}
        if len(counts) != 1 or lengths.min(initial=0) < 0 or lengths.sum() != len(actions):
            raise ValueError("its arrays do not fit each other")
        bounds = np.cumsum([0, *lengths.tolist()])
        episodes = [
            RawEpisode({n: rows[i] for n, rows in starts.items()}, actions[first:last], int(seeds[i]))
            for i, (first, last) in enumerate(pairwise(bounds))
        ]
        return RawFile(episodes, str(about["task"]), int(about["action_repeat"]))
    except (*DAMAGE, RuntimeError, TypeError, AttributeError, MemoryError) as error:
        reason = str(error).strip("'").splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{WHAT} {path} cannot be read: {reason}.", CURE) from error
