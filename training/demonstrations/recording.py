"""Demonstrations, recorded: a trained policy's or a simple one's, for a run of ``train.py`` to begin with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from common.errors import InputError
from common.seeding import counter_rng, derive_seed
from envs.pixel_env import PixelEnv
from evaluation.evaluate import evaluate
from evaluation.lanes import Answer, Lanes, as_lanes
from training.demonstrations.choosing import Filter
from training.demonstrations.formats import Recorded

Attempt = tuple[int, np.ndarray]
"""Seed of the physics; float32 (T, A) actions."""


class RecordingLanes:
    """Environments side by side that remember what was done in them."""

    def __init__(self, venv: Any) -> None:
        self._lanes: Lanes = as_lanes(venv)
        self.num_envs, self.single_action_space = venv.num_envs, venv.single_action_space
        self._episodes: dict[int, int] = {}
        self._actions: dict[int, list[np.ndarray]] = {}
        self._seeds: dict[int, int] = {}

    def begin_episode(
        self, index: int, episode: int, seed: int, options: dict[str, Any] | None = None
    ) -> None:
        """Let environment ``index`` begin an episode."""
        self._episodes[index], self._seeds[episode], self._actions[episode] = episode, seed, []
        self._lanes.begin_episode(index, episode, seed, options)

    def send_action(self, index: int, action: np.ndarray) -> None:
        """Let environment ``index`` step."""
        self._actions[self._episodes[index]].append(np.array(action, np.float32))
        self._lanes.send_action(index, action)

    def collect(self, count: int) -> list[Answer]:
        """Wait for ``count`` of the environments."""
        return self._lanes.collect(count)

    def take(self, episode: int) -> Attempt:
        """Return what was done in an episode that has ended, and forget it."""
        return self._seeds.pop(episode), np.stack(self._actions.pop(episode))


def attempts_of_agent(
    agent: Any, venv: Any, seed: int, on_frame: Callable[[], None], **options: Any
) -> Iterator[Attempt]:
    """Yield episode after episode of an agent's mean actions, as an evaluation plays them.

    Args:
        agent: acts on stacks of masked frames.
        venv: unmasked environments side by side.
        seed: with the episode's index it seeds the physics.
        on_frame: called with every frame.
        **options: of ``evaluation.evaluate``, such as ``masker`` and ``frame_stack``.
    """
    lanes, first = RecordingLanes(venv), 0
    while True:
        played = evaluate(
            agent, lanes, episodes=lanes.num_envs, first_episode=first, seed=seed,
            on_frame=lambda view: on_frame(), **options,
        )  # fmt: skip
        yield from (lanes.take(result.episode) for result in played)
        first += lanes.num_envs


# Policies that see nothing --------------------------------------------------------------------------------


def _random(env: PixelEnv, decisions: int, rng: np.random.Generator) -> np.ndarray:
    """Draw every action uniformly."""
    return rng.uniform(-1, 1, (decisions, *env.action_space.shape))  # type: ignore[misc]


def _still(env: PixelEnv, decisions: int, rng: np.random.Generator) -> np.ndarray:
    """Hold every actuator in the middle of its range."""
    return np.zeros((decisions, *env.action_space.shape))  # type: ignore[misc]


POLICIES: dict[str, Callable[[PixelEnv, int, np.random.Generator], np.ndarray]] = {
    "random": _random,
    "still": _still,
}


def attempts_of_policy(name: str, env: PixelEnv, decisions: int, seed: int) -> Iterator[Attempt]:
    """Yield episode after episode of a policy of ``POLICIES``.

    Args:
        name: of the policy.
        env: of the task.
        decisions: of a whole episode.
        seed: of physics and draws.
    """
    episode = 0
    while True:
        rng = counter_rng(seed, f"{name}-policy", episode)
        actions = POLICIES[name](env, decisions, rng).astype(np.float32)
        yield derive_seed(seed, "recording", episode), actions
        episode += 1


# Keeping ----------------------------------------------------------------------------------------------------


def record(
    env: PixelEnv,
    attempts: Iterator[Attempt],
    wanted: Filter,
    most_attempts: int,
    on_episode: Callable[[], None] = lambda: None,
) -> tuple[list[Recorded], int]:
    """Return the episodes that are kept, with how they end when they are played again without drawing.

    Args:
        env: of the task, not needed by whoever makes the attempts.
        attempts: as many as are asked for.
        wanted: which are kept; ``most`` says how many are enough.
        most_attempts: after so many it is over.
        on_episode: called after every attempt.

    Returns:
        episodes, at least one, and how many attempts were made.

    Raises:
        InputError: none is kept.
    """
    kept: list[Recorded] = []
    made = 0
    while made < most_attempts and (wanted.most is None or len(kept) < wanted.most):
        seed, actions = next(attempts)
        found = env.rehearse(actions, seed)
        made += 1
        if wanted.takes(found.total_reward, found.success):
            played = actions[: found.length]
            kept.append(Recorded(seed, dict(found.start), played, found.total_reward, found.success))
        on_episode()
    if not kept:
        raise InputError(
            f"None of {made} episodes is worth recording.",
            "Take a better policy, allow more --attempts, or ask for less.",
        )
    return kept, made
