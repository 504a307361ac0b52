"""Demonstrations: read from a file of any known form, and checked against a task before anything slow.

A recording holds where an episode began and what was done, not what the agent would have seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from common.errors import InputError
from common.files import read_json
from common.paths import resolve
from training.demonstrations.formats import CURE, WHAT, RawEpisode, read_raw
from training.status import saved_steps


@dataclass(frozen=True)
class Demonstration:
    """A recorded episode.

    Attributes:
        start: what restores the simulator where the episode began, name -> float array of any shape; empty
            where the seed does.
        actions: float32 (T, A), T >= 1; may leave the range of actions.
        seed: of the physics.
        action_repeat: control steps for which each action is held.
    """

    start: Mapping[str, np.ndarray]
    actions: np.ndarray
    seed: int = 0
    action_repeat: int = 1


def read_demonstrations(
    path: str | Path,
    action_dim: int,
    start: Mapping[str, tuple[int, ...]] | None = None,
    task: str | None = None,
) -> list[Demonstration]:
    """Read demonstrations: a DAPG pickle, a Minari set or a D4RL file (HDF5), or a file of ``record.py``.

    Args:
        path: file or folder.
        action_dim: A of the task's actions.
        start: name -> shape of what the simulator needs in order to begin where an episode began; None or
            empty where it begins from a seed.
        task: its name, for files that say theirs.

    Returns:
        all episodes of the file, at least one, each checked.

    Raises:
        InputError: it is missing, damaged, of another task, or holds more than numbers.
        DependencyError: it is HDF5, and h5py is not installed.
    """
    found, start = _existing(path), dict(start or {})
    raw = read_raw(found, list(start))
    if task is not None and raw.task not in (None, task):
        raise InputError(f"{WHAT} {found} are of {raw.task}, not of {task}.", CURE)
    if raw.action_repeat < 1:
        raise InputError(f"{WHAT} {found} say action_repeat={raw.action_repeat}.", CURE)
    if not raw.episodes:
        raise InputError(f"{WHAT} {path} hold no episode.", CURE)
    return [
        _Check(found, number, episode).demonstration(action_dim, start, raw.action_repeat)
        for number, episode in enumerate(raw.episodes)
    ]


def count_transitions(path: str | Path, most: int | None = None) -> int:
    """Return how many transitions a file can give a run, which is ``most`` episodes of it or all.

    Raises:
        InputError, DependencyError: as ``read_demonstrations``; actions are not looked at.
    """
    found = _existing(path)
    lengths = _lengths(found, found.stat().st_mtime_ns)
    return sum(sorted(lengths, reverse=True)[:most])


def planned_transitions(cfg: DictConfig, run_dir: Path) -> int:
    """Return how many transitions the demonstrations of a configuration can give; 0 where it names none.

    A run that has begun holds them itself, and the file may be gone: then those that its newest snapshot
    tells, or none where it cannot be read.

    Raises:
        InputError, DependencyError: as ``count_transitions``.
    """
    path, steps = cfg.get("demonstrations"), saved_steps(run_dir)
    if path is None:
        return 0
    if steps is None:
        return count_transitions(path, cfg.demonstration_filter.most)
    try:
        manifest = read_json(run_dir / "snapshots" / f"step_{steps:010d}" / "manifest.json", "A manifest")
    except InputError:  # the run itself will say so, and go on from an earlier one
        return 0
    return int(manifest.get("demonstrated", 0))


@cache  # a sweep asks for every run of it
def _lengths(path: Path, changed: int) -> list[int]:
    return [
        len(e.actions) if _is_numeric(e.actions) and e.actions.ndim else 0
        for e in read_raw(path, ()).episodes
    ]


def _existing(path: str | Path) -> Path:
    found = resolve(path)
    if not found.exists():
        raise InputError(f"{WHAT} {path} do not exist.", CURE)
    return found


@dataclass(frozen=True)
class _Check:
    """Gives the parts of one episode; raises ``InputError`` unless they are what the task takes."""

    path: Path
    number: int
    episode: RawEpisode

    def demonstration(
        self, action_dim: int, shapes: Mapping[str, tuple[int, ...]], action_repeat: int
    ) -> Demonstration:
        actions = self.actions(action_dim)  # first, for another task's have another number
        return Demonstration(self.start(shapes), actions, self.seed(bool(shapes)), action_repeat)

    def wrong(self, problem: str) -> InputError:
        return InputError(
            f"{WHAT} {self.path} are not of this task: episode {self.number} has {problem}.", CURE
        )

    def numbers(self, name: str, value: Any) -> np.ndarray:
        if not _is_numeric(value) or not np.isfinite(value).all():
            raise self.wrong(f"'{name}', which is no array of finite numbers")
        return value

    def actions(self, action_dim: int) -> np.ndarray:
        actions = self.episode.actions
        if not _is_numeric(actions) or actions.ndim != 2 or not len(actions):
            raise self.wrong("no table of actions")
        if actions.shape[1] != action_dim:
            raise self.wrong(f"actions of {actions.shape[1]} numbers instead of {action_dim}")
        with np.errstate(over="ignore"):
            actions = self.numbers("actions", actions).astype(np.float32)
        if not np.isfinite(actions).all():
            raise self.wrong("actions beyond the range of float32")
        return actions

    def start(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
        state = self.episode.start
        if not shapes and self.episode.seed is not None:
            return {}
        if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
            raise self.wrong("no initial state")
        if missing := [name for name in shapes if name not in state]:
            raise self.wrong(f"no '{missing[0]}' in its initial state")
        values = {name: self.numbers(name, np.asarray(state[name])) for name in shapes}
        for name, value in values.items():
            if value.size != math.prod(shapes[name]):
                raise self.wrong(f"'{name}' of shape {value.shape} instead of {shapes[name]}")
        return {name: value.astype(np.float64).reshape(shapes[name]) for name, value in values.items()}

    def seed(self, from_state: bool) -> int:
        if self.episode.seed is not None:
            if self.episode.seed < 0:
                raise self.wrong(f"the seed {self.episode.seed}")
            return self.episode.seed
        if not from_state:
            raise self.wrong("no seed, and nothing else begins its episodes (record.py writes seeds)")
        return 0


def _is_numeric(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "fiub"
