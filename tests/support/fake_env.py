"""A pixel task small enough to learn in seconds: steer a green bar onto a red one."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from common.masking import MaskerInfo
from common.seeding import derive_seed
from envs.pixel_env import Rehearsal


class PixelFakeEnv(gymnasium.Env):
    """Move the green bar by 0.25 x action, sideways; the closer to the red one, the nearer to 1 the reward.

    Args:
        size: frames are uint8 (size, size, 3).
        length: decisions until the episode is truncated.
        terminate_at: decisions until it terminates instead, or None.
        foreground: put the exact mask of both bars into ``info``.
        state: observe the green bar's place and the time, float32 (2,), beside the pixels.
        success: tell in ``info`` whether the bars are less than 0.05 apart.
        views: of how many cameras; each sees the bars two pixels further to the right. 0: of one, without an
            axis of its own.

    ``reset(options={"initial_state_dict": {"cursor": ..., "target": ...}})`` begins with the bars there.
    """

    def __init__(
        self,
        size: int = 24,
        length: int = 20,
        terminate_at: int | None = None,
        foreground: bool = False,
        state: bool = False,
        success: bool = False,
        views: int = 0,
    ) -> None:
        self.views = views
        self.size, self.length, self.terminate_at, self.foreground = size, length, terminate_at, foreground
        pixels = gymnasium.spaces.Box(0, 255, (*([views] if views else []), size, size, 3), np.uint8)
        vector = gymnasium.spaces.Box(-1, np.inf, (2,), np.float32)
        self.beside, self.success = state, success
        self.observation_space = gymnasium.spaces.Dict(
            {"pixels": pixels} | ({"state": vector} if state else {})
        )
        self.action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
        self.episode = 0
        self._seed: int | None = None
        self._actions: list[np.ndarray] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self._seed, self._actions = seed, []
        rng = np.random.default_rng([seed or 0, self.episode])
        self.cursor, self.target = rng.uniform(-0.8, 0.8, 2)
        if options and "initial_state_dict" in options:
            start = options["initial_state_dict"]
            self.cursor, self.target = float(start["cursor"]), float(start["target"])
        return self._observe()

    def step(self, action: np.ndarray) -> Any:
        self._move(action)
        reward = 1.0 / (1.0 + ((self.cursor - self.target) / 0.1) ** 2)
        time = len(self._actions)
        terminated = self.terminate_at is not None and time >= self.terminate_at
        observation, info = self._observe()
        return observation, reward, terminated, time >= self.length and not terminated, info

    def _move(self, action: np.ndarray) -> None:
        self._actions.append(np.array(action, np.float32))
        self.cursor = float(np.clip(self.cursor + 0.25 * float(action[0]), -1, 1))

    def _observe(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        cursor, target = self._bar(self.cursor), self._bar(self.target)
        frame = np.zeros((self.size, self.size, 3), np.uint8)
        frame[..., 2] = 40
        frame[target, 0] = 255
        frame[cursor, 1] = 255
        state = {"state": np.array([self.cursor, len(self._actions)], np.float32)} if self.beside else {}
        truth = cursor | target
        if self.views:
            frame, truth = (
                np.stack([np.roll(a, 2 * v, 1) for v in range(self.views)]) for a in (frame, truth)
            )
        info: dict[str, Any] = {"foreground": truth} if self.foreground else {}
        if self.success:
            info["success"] = np.bool_(abs(self.cursor - self.target) < 0.05)
        return {"pixels": frame, **state}, info

    def _bar(self, place: float) -> np.ndarray:
        # Away from the border, so that DrQ-v2's random shifts push no bar out of sight.
        centre, pixels = (self.size - 1) / 2, np.arange(self.size)
        columns = np.abs(pixels - centre - place * (self.size / 2 - 6)) < 2
        return (np.abs(pixels - centre) < 6)[:, None] & columns[None, :]

    def rehearse(self, actions: np.ndarray, seed: int, start: Any = None) -> Rehearsal:
        self.reset(seed=seed, options={"initial_state_dict": start} if start else None)
        steps = [self.step(action) for action in actions]
        successes = [bool(step[-1]["success"]) for step in steps] if self.success else []
        total = sum(step[1] for step in steps)
        return Rehearsal({}, total, len(steps), any(successes) if self.success else None)

    @property
    def state(self) -> dict[str, Any]:
        actions = np.array(self._actions, np.float32).reshape(-1, 1)
        return {"episode": self.episode, "seed": self._seed, "actions": actions}

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        self.episode = state["episode"]
        self.reset(seed=state["seed"])
        for action in state["actions"]:
            self._move(action)

    def get_state(self) -> dict[str, Any]:
        return self.state

    def set_state(self, state: dict[str, Any]) -> None:
        self.state = state


class FakeVectorEnv(SyncVectorEnv):
    """Fake environments in this process, with the two halves of a step that the training loop asks for."""

    def __init__(self, num_envs: int = 1, **options: Any) -> None:
        makers = [functools.partial(PixelFakeEnv, **options)] * num_envs
        super().__init__(makers, autoreset_mode=AutoresetMode.DISABLED)

    def step_async(self, actions: np.ndarray) -> None:
        self._sent = actions

    def step_wait(self) -> Any:
        return self.step(self._sent)


def reset_fake_episodes(venv: Any, episodes: Sequence[int], done: np.ndarray, seed: int) -> Any:
    """The contract of ``envs.reset_episodes``, without the simulators."""
    venv.set_attr("episode", [int(episode) for episode in episodes])
    seeds = [derive_seed(seed, "fake", int(episode)) for episode in episodes]
    return venv.reset(seed=seeds, options={"reset_mask": np.array(done, bool)})


FAKE_MASKER_INFO = MaskerInfo(name="none", variant="none", fingerprint="0" * 64)
