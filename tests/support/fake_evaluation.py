"""A counting environment, a masker and an agent whose numbers can be worked out by hand."""

from __future__ import annotations

import functools

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from common.masking import MaskerInfo

SIZE = 12


class CountingEnv(gymnasium.Env):
    """Rewards follow from the reset's seed and the action; frames follow from seed and step.

    ``length`` maps the episode index to its number of steps; odd episodes terminate, even ones are cut off.
    """

    def __init__(self, length=lambda episode: 7, success_at=None, bad_reward=False, size=SIZE):
        self.observation_space = gymnasium.spaces.Dict(
            {"pixels": gymnasium.spaces.Box(0, 255, (size, size, 3), np.uint8)}
        )
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.episode, self._size = 0, size
        self._length, self._success_at, self._bad = length, success_at, bad_reward
        self._ended = True

    def _observe(self):
        generator = np.random.default_rng([self._seed, self._step])
        frame = generator.integers(0, 256, (self._size, self._size, 3), dtype=np.uint8)
        foreground = np.zeros((self._size, self._size), dtype=bool)
        foreground[:6] = True
        info = {"foreground": foreground}
        if self._success_at is not None:
            info["success"] = bool(self._step == self._success_at)
        return {"pixels": frame}, info

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._seed, self._step, self._ended = seed, 0, False
        return self._observe()

    def step(self, action):
        assert not self._ended, "a finished environment was stepped"
        self._step += 1
        # A chaotic function of the action: any difference in the last bit shows in the return.
        reward = float(np.sin(1e4 * float(np.sum(action)) + self._seed % 1000))
        if self._bad and self._step == 3:
            reward = float("nan")
        over = self._step >= self._length(self.episode)
        self._ended = over
        terminated = over and self.episode % 2 == 1
        obs, info = self._observe()
        return obs, reward, terminated, over and not terminated, info


class TopMasker:
    """Keeps the upper ``rows`` rows; counts its calls and the batch sizes it saw."""

    info = MaskerInfo("top", "top", "f" * 64, {})

    def __init__(self, rows=6):
        self.rows = rows
        self.batches = []

    def mask(self, frames, foreground=None):
        self.batches.append(len(frames))
        mask = torch.zeros(frames.shape[:3], dtype=torch.bool)
        mask[:, : self.rows] = True
        return mask


class LinearAgent:
    """A random linear policy in float32, sensitive to the batch size like any product."""

    def __init__(self, frame_stack=3):
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.randn(2, 3 * frame_stack * SIZE * SIZE, generator=generator)
        self.batches = []

    def act(self, obs, step, eval_mode, state=None):
        assert eval_mode and obs.dtype == np.uint8
        self.batches.append(len(obs))
        features = torch.from_numpy(obs).float().flatten(1) / 255
        return torch.tanh(features @ self.weight.T / 30).numpy()


def vector_env(num_envs, **options):
    return SyncVectorEnv(
        [functools.partial(CountingEnv, **options)] * num_envs, autoreset_mode=AutoresetMode.DISABLED
    )
