"""Demonstrations: read from DAPG's pickles or Minari's files, and played again for the pixels they lack.

A recording holds where an episode began and what was done, not what the agent would have seen. Playing it
again gives that; another version of the simulator may end differently, so what failed is left out.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from common.errors import DependencyError, InputError
from common.paths import resolve
from training.episodes import Episode, OpenEpisode
from training.numeric_pickle import read_numeric_pickle

WHAT = "Demonstrations"
CURE = "Give the file of this task: TASK-v0_demos.pickle of DAPG, or the folder of a Minari data set."
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Demonstration:
    """A recorded episode.

    Attributes:
        start: what restores the simulator where the episode began, name -> float array of any shape.
        actions: float32 (T, A), T >= 1; may leave the range of actions.
    """

    start: Mapping[str, np.ndarray]
    actions: np.ndarray


def read_demonstrations(path: str | Path, action_dim: int, start: Sequence[str] = ()) -> list[Demonstration]:
    """Read demonstrations: a DAPG pickle, or the folder of a Minari data set.

    Args:
        path: file or folder.
        action_dim: A of the task's actions.
        start: names of what the simulator needs in order to begin where an episode began.

    Returns:
        all episodes of the file, at least one, each checked.

    Raises:
        InputError: it is missing, damaged, of another task, or holds more than numbers.
        DependencyError: a Minari data set, and h5py is not installed.
    """
    found = resolve(path)
    if not found.exists():
        raise InputError(f"{WHAT} {path} do not exist.", CURE)
    minari = found.is_dir() or found.suffix in (".hdf5", ".h5")
    records = _minari_records(found, start) if minari else _dapg_records(found)
    demonstrations = [_checked(record, found, n, action_dim, start) for n, record in enumerate(records)]
    if not demonstrations:
        raise InputError(f"{WHAT} {path} hold no episode.", CURE)
    return demonstrations


def _dapg_records(path: Path) -> list[tuple[Any, Any]]:
    """Return start and actions of every episode of a DAPG pickle: a list of dictionaries."""
    content = read_numeric_pickle(path, WHAT, CURE)
    if not isinstance(content, list) or not all(isinstance(record, dict) for record in content):
        raise InputError(f"{WHAT} {path} are no list of episodes.", CURE)
    return [(record.get("init_state_dict"), record.get("actions")) for record in content]


def _minari_records(path: Path, start: Sequence[str]) -> list[tuple[Any, Any]]:
    """Return start and actions of every episode of a Minari data set.

    Its file holds groups ``episode_N`` with ``actions`` and ``infos``; of the infos the first row counts.
    """
    try:
        import h5py  # an optional package, and only these files need it
    except ImportError as error:
        raise DependencyError(
            f"Reading the Minari data set {path} needs h5py.", "Install it: pip install h5py."
        ) from error
    file = path / "data" / "main_data.hdf5" if path.is_dir() else path
    try:
        with h5py.File(file, "r") as data:
            names = sorted((name for name in data if name.startswith("episode_")), key=_number)
            return [(_first_rows(data[name]["infos"], start), data[name]["actions"][()]) for name in names]
    except (OSError, KeyError, ValueError, RuntimeError, AttributeError) as error:
        raise InputError(f"{WHAT} {file} cannot be read: {str(error).strip(chr(39))}.", CURE) from error


def _number(name: str) -> int:
    return int(name.removeprefix("episode_"))


def _first_rows(infos: Any, start: Sequence[str]) -> dict[str, np.ndarray]:
    group = infos.get("initial_state_dict", infos)
    return {name: group[name][0] for name in start if name in group}


def _checked(
    record: tuple[Any, Any], path: Path, number: int, action_dim: int, start: Sequence[str]
) -> Demonstration:
    """Return one episode; raise ``InputError`` unless it is one of the task."""

    def wrong(problem: str) -> InputError:
        return InputError(f"{WHAT} {path} are not of this task: episode {number} has {problem}.", CURE)

    state, actions = record
    if not _is_numeric(actions) or actions.ndim != 2 or not len(actions):
        raise wrong("no table of actions")
    if actions.shape[1] != action_dim:
        raise wrong(f"actions of {actions.shape[1]} numbers instead of {action_dim}")
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise wrong("no initial state")
    if missing := [name for name in start if name not in state]:
        raise wrong(f"no '{missing[0]}' in its initial state")
    values = {name: np.asarray(value) for name, value in state.items() if not isinstance(value, dict)}
    for name, value in {**values, "actions": actions}.items():
        if not _is_numeric(value) or not np.isfinite(value).all():
            raise wrong(f"'{name}', which is no array of finite numbers")
    with np.errstate(over="ignore"):
        actions = actions.astype(np.float32)
    if not np.isfinite(actions).all():
        raise wrong("actions beyond the range of float32")
    return Demonstration(values, actions)


def _is_numeric(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "fiub"


def play_again(
    env: gymnasium.Env, demonstrations: Iterable[Demonstration], seed: int = 0, failures: bool = False
) -> list[Episode]:
    """Play demonstrations in an environment and return what an agent would have seen, as episodes.

    Args:
        env: gives masked observations ``{"pixels": uint8 (H, W, 3)[, "state": float32 (S,)]}``, begins where
            ``reset(options={"initial_state_dict": ...})`` says, and tells in ``info["success"]`` whether the
            task is solved; episodes of one that never tells are all kept.
        demonstrations: what to play; actions are clipped into the range of the environment's.
        seed: of the physics.
        failures: keep episodes that did not succeed as well.

    Returns:
        episodes numbered from 0; one that is cut off has discount 1 at its end, as after a time limit.

    Raises:
        InputError: none succeeded.
    """
    played = [_play(env, demonstration, seed) for demonstration in demonstrations]
    kept = [episode for episode, success in played if failures or success is not False]
    if len(kept) < len(played):
        lost = len(played) - len(kept)
        log.warning("%d of %d demonstrations did not succeed again and are left out.", lost, len(played))
    if not kept:
        raise InputError(
            f"None of {len(played)} demonstrations succeeds in this simulator.",
            "Check that they are of this task, or keep failures too.",
        )
    for index, episode in enumerate(kept):
        episode.index = index
    return kept


def _play(env: gymnasium.Env, demonstration: Demonstration, seed: int) -> tuple[Episode, bool | None]:
    """Return the episode, and whether it succeeded at any time (None: the environment does not say)."""
    obs, _ = env.reset(seed=seed, options={"initial_state_dict": dict(demonstration.start)})
    episode, success = OpenEpisode(0, []), None
    episode.see(obs["pixels"], obs.get("state"))
    space: Any = env.action_space
    for action in demonstration.actions.clip(space.low, space.high):
        obs, reward, terminated, truncated, info = env.step(action)
        episode.take(action, float(reward), 0.0 if terminated else 1.0)
        episode.see(obs["pixels"], obs.get("state"))
        if info.get("success") is not None:
            success = bool(success) or bool(info["success"])
        if terminated or truncated:
            break
    return episode.close(), success
