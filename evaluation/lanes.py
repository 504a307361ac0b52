"""Environments side by side, each at its own pace: what an evaluation needs of a vector environment."""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

import numpy as np

Answer = tuple[int, dict[str, np.ndarray], float | None, bool, bool, dict[str, Any]]
"""Index, observation, reward (None for a first observation), terminated, truncated, info."""


class Lanes(Protocol):
    """Environments of which each begins, steps and answers by itself, as ``envs.ProcessVectorEnv`` does."""

    num_envs: int
    single_action_space: Any

    def begin_episode(
        self, index: int, episode: int, seed: int, options: dict[str, Any] | None = None
    ) -> None:
        """Let environment ``index`` begin an episode; ``options`` are those of its ``reset``."""
        ...

    def send_action(self, index: int, action: np.ndarray) -> None:
        """Let environment ``index`` step with ``action``, float32 (A,)."""
        ...

    def collect(self, count: int) -> list[Answer]:
        """Wait for ``count`` of the environments that were asked for something."""
        ...


class SerialLanes:
    """The environments of a ``gymnasium.vector.SyncVectorEnv``, one after the other in this process."""

    def __init__(self, venv: Any) -> None:
        self.num_envs, self.single_action_space = venv.num_envs, venv.single_action_space
        self._envs = venv.envs
        self._requests: deque[tuple[int, Any]] = deque()

    def begin_episode(
        self, index: int, episode: int, seed: int, options: dict[str, Any] | None = None
    ) -> None:
        """Let environment ``index`` begin an episode when its turn comes."""
        self._requests.append((index, (episode, seed, options)))

    def send_action(self, index: int, action: np.ndarray) -> None:
        """Let environment ``index`` step when its turn comes."""
        self._requests.append((index, action))

    def collect(self, count: int) -> list[Answer]:
        """Do what was asked for first."""
        answers: list[Answer] = []
        for _ in range(count):
            index, request = self._requests.popleft()
            env = self._envs[index]
            if isinstance(request, tuple):
                env.set_wrapper_attr("episode", request[0])
                observation, info = env.reset(seed=request[1], options=request[2])
                answers.append((index, observation, None, False, False, info))
            else:
                answers.append((index, *env.step(request)))
        return answers


def as_lanes(venv: Any) -> Lanes:
    """Return ``venv`` itself where its environments go by themselves, else its environments in turn.

    Raises:
        ValueError: it is neither kind.
    """
    if all(hasattr(venv, name) for name in ("begin_episode", "send_action", "collect")):
        return venv  # type: ignore[no-any-return]
    if hasattr(venv, "envs"):
        return SerialLanes(venv)
    raise ValueError(
        f"venv: expected envs.make_vector_env(...) or a SyncVectorEnv, got {type(venv).__name__}"
    )
