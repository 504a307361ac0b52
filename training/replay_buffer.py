"""Replay buffer of single frames: stacks and n-step returns are rebuilt when a batch is sampled.

The durable form is one immutable file per finished episode; the rows (``training.replay_cache``) are a cache
of them, rebuilt in the order of the manifest. Batch ``i`` is a function of the run's seed, ``i`` and the
episodes finished so far, so that neither prefetching nor a resume changes it.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from algos.agent import Batch
from common import faults
from common.errors import ConfigError, SnapshotError
from common.files import move_aside, sweep_stages
from common.seeding import counter_rng
from common.views import stacked_shape
from training.episodes import DAMAGE, Episode, OpenEpisode, length_of
from training.memory import replay_rows
from training.replay_cache import OpenFrames, RamFrames

log = logging.getLogger(__name__)


class _Slot(NamedTuple):
    """Where a finished episode lies: its first row in the ring, its length in decisions, its file."""

    row: int
    length: int
    name: str
    sha256: str | None  # of the file; None in runs of before digests were kept


class ReplayBuffer:
    """Transitions of finished episodes in one ring of rows; row r holds a frame and the decision made on it.

    Args:
        directory: where episode files are written and read.
        frame_shape: (H, W, 3) of one masked frame, or (V, H, W, 3) of V cameras.
        action_dim: length of an action.
        capacity: transitions kept; the oldest episodes leave first.
        nstep: decisions per sampled transition.
        discount: discount per decision.
        frame_stack: frames per observation; the first frame of an episode is repeated.
        seed: seed of the run.
        num_envs: environments collecting at the same time.
        prefetch: gather the next batch in a thread; the batches stay the same.
        open_frames: makes the rows of frames; see ``training.replay_cache.choose_frames``.
        max_lost: fraction of the transitions that may be damaged or missing when a run is resumed.
        state_dim: S of the proprioception beside each frame, which is not stacked; 0: none.

    Raises:
        ResourceError: the rows would not fit.
    """

    def __init__(
        self,
        directory: Path,
        frame_shape: Sequence[int],
        action_dim: int,
        capacity: int,
        nstep: int = 3,
        discount: float = 0.99,
        frame_stack: int = 3,
        seed: int = 0,
        num_envs: int = 1,
        prefetch: bool = False,
        open_frames: OpenFrames = RamFrames,
        max_lost: float = 0.01,
        state_dim: int = 0,
    ) -> None:
        channels, height, width = stacked_shape(frame_shape)
        self.directory = directory
        self.frame_shape = (channels, height, width)
        self.capacity, self.nstep, self.discount = capacity, nstep, discount
        self.frame_stack, self.seed, self.max_lost = frame_stack, seed, max_lost
        self.rows = replay_rows(capacity)
        self._frames = open_frames(self.rows, channels * height * width)
        self._state = np.empty((self.rows, state_dim), np.float32)
        self._action = np.empty((self.rows, action_dim), np.float32)
        self._reward = np.empty(self.rows, np.float32)
        self._discount = np.empty(self.rows, np.float32)
        self._slots: deque[_Slot] = deque()
        self._next_row = 0
        self.num_transitions = 0
        self.damaged_files = 0
        self.open: list[OpenEpisode | None] = [None] * num_envs
        self._starts = self._lengths = np.empty(0, np.int64)
        self._executor = ThreadPoolExecutor(1, "replay") if prefetch else None
        self._pending: tuple[tuple[int, int], Future[Batch]] | None = None
        directory.mkdir(parents=True, exist_ok=True)
        sweep_stages(directory)

    @property
    def nbytes(self) -> int:
        """Bytes the full buffer takes, wherever its rows are."""
        columns = sum(array.nbytes for array in (self._state, self._action, self._reward, self._discount))
        return self._frames.nbytes + columns

    def growth(self, disk: int) -> int:
        """Return the bytes that rows still take on a disk; see ``training.replay_cache.Frames``."""
        return self._frames.growth(disk)

    # Collecting ------------------------------------------------------------------------------------------

    def begin_episode(self, env: int, index: int, frame: np.ndarray, state: np.ndarray | None = None) -> None:
        """Open episode ``index`` of environment ``env`` with its first observation; see ``add``."""
        self.open[env] = opened = OpenEpisode(index, [])
        opened.see(frame, state)

    def add(
        self,
        env: int,
        action: np.ndarray,
        reward: float,
        discount: float,
        frame: np.ndarray,
        last: bool,
        state: np.ndarray | None = None,
    ) -> Episode | None:
        """Add a decision and the masked frame it led to; return the episode if that was its last decision.

        Args:
            env: index of the environment.
            action: float32 (A,).
            reward: reward of the decision.
            discount: 0 if the episode terminated, else 1 (a time limit is no termination).
            frame: uint8 (H, W, 3) or (V, H, W, 3), masked.
            last: the episode is over; it is written to disk and becomes available for sampling.
            state: float32 (S,), proprioception beside the frame; None where S = 0.
        """
        episode = self.open[env]
        if episode is None:
            raise ValueError(f"environment {env}: begin_episode comes before add")
        episode.take(action, float(reward), float(discount))
        episode.see(frame, state)
        if not last:
            return None
        self.open[env] = None
        finished = episode.close()
        self.insert(finished)
        return finished

    def insert(self, episode: Episode) -> None:
        """Write a finished episode to disk and make it available for sampling."""
        self._insert(episode, episode.save(self.directory))

    def _insert(self, episode: Episode, sha256: str | None) -> None:
        """Copy a finished episode into the ring, after as many of the oldest as must leave have left."""
        length = len(episode)
        if length > self.capacity:
            raise ConfigError(
                f"replay_buffer_size: an episode of {length} transitions does not fit into {self.capacity}.",
                "Choose a larger replay_buffer_size.",
            )
        self._settle()  # a batch being gathered must not see rows change
        used = self.num_transitions + len(self._slots)
        while self.num_transitions + length > self.capacity or used + length + 1 > self.rows:
            oldest = self._slots.popleft()
            self.num_transitions -= oldest.length
            used -= oldest.length + 1
        rows = (self._next_row + np.arange(length + 1)) % self.rows
        self._frames.write(rows, episode.frames.reshape(length + 1, -1))
        self._state[rows] = episode.state
        self._action[rows[:-1]] = episode.action
        self._reward[rows[:-1]] = episode.reward
        self._discount[rows[:-1]] = episode.discount
        self._slots.append(_Slot(self._next_row, length, episode.name, sha256))
        self._next_row = int(rows[-1] + 1) % self.rows
        self.num_transitions += length
        long_enough = [slot for slot in self._slots if slot.length >= self.nstep]
        self._starts = np.array([slot.row for slot in long_enough], np.int64)
        self._lengths = np.array([slot.length for slot in long_enough], np.int64)

    # Sampling --------------------------------------------------------------------------------------------

    @property
    def can_sample(self) -> bool:
        """Whether there is a finished episode of at least ``nstep`` decisions."""
        return len(self._starts) > 0

    def sample(self, batch_size: int, index: int) -> Batch:
        """Return batch number ``index``: episodes drawn uniformly, then a start within each, as DrQ-v2 does.

        Raises:
            ValueError: nothing can be sampled yet.
        """
        if not self.can_sample:
            raise ValueError("the replay buffer holds no finished episode that is long enough")
        if self._executor is None:
            return self._gather(*self._draw(batch_size, index))
        key, pending = (batch_size, index), self._pending
        ready = pending is not None and pending[0] == key
        batch = pending[1].result() if pending and ready else self._gather(*self._draw(batch_size, index))
        following = self._draw(batch_size, index + 1)
        self._pending = ((batch_size, index + 1), self._executor.submit(self._gather, *following))
        return batch

    def _settle(self) -> None:
        """Wait for the batch being prefetched and drop it: it was drawn from the episodes of before."""
        if self._pending is not None:
            self._pending[1].result()
            self._pending = None

    def _draw(self, batch_size: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the first rows of the drawn episodes and the starts within them, int64 (B,) each."""
        rng = counter_rng(self.seed, "replay", index)
        episodes = rng.integers(len(self._starts), size=batch_size)
        return self._starts[episodes], rng.integers(self._lengths[episodes] - self.nstep + 1)

    def _gather(self, first: np.ndarray, start: np.ndarray) -> Batch:
        """Return the transitions that begin ``start`` decisions after row ``first``."""
        steps = (first[:, None] + start[:, None] + np.arange(self.nstep)) % self.rows
        # after[:, i] is what follows n-step reward i: the product of the discounts up to and including it.
        after = np.cumprod(self._discount[steps] * np.float32(self.discount), axis=1)
        before = np.concatenate([np.ones_like(after[:, :1]), after[:, :-1]], axis=1)
        reward = (self._reward[steps] * before).sum(axis=1, keepdims=True)
        now, later = steps[:, 0], (steps[:, -1] + 1) % self.rows
        return Batch(
            obs=self._stacks(first, start),
            action=torch.from_numpy(self._action[now]),
            reward=torch.from_numpy(reward),
            discount=torch.from_numpy(np.ascontiguousarray(after[:, -1:])),
            next_obs=self._stacks(first, start + self.nstep),
            state=torch.from_numpy(self._state[now]),
            next_state=torch.from_numpy(self._state[later]),
        )

    def _stacks(self, first: np.ndarray, time: np.ndarray) -> torch.Tensor:
        """Return uint8 (B, C * frame_stack, H, W), the observations ``time`` decisions into the episodes."""
        ages = np.arange(1 - self.frame_stack, 1)
        rows = (first[:, None] + np.maximum(time[:, None] + ages, 0)) % self.rows
        channels, height, width = self.frame_shape
        return self._frames.take(rows).view(len(time), self.frame_stack * channels, height, width)

    # Files and state -------------------------------------------------------------------------------------

    def manifest(self) -> list[str]:
        """Return the names of the episode files in memory, oldest first."""
        return [slot.name for slot in self._slots]

    def files(self) -> dict[str, dict[str, Any]]:
        """Return length and SHA-256 of the episode files in memory by name, oldest first."""
        return {slot.name: {"length": slot.length, "sha256": slot.sha256} for slot in self._slots}

    def state_dict(self) -> dict[str, Any]:
        """Return the open episodes and the manifest."""
        opened = [episode.state_dict() if episode else None for episode in self.open]
        return {"manifest": self.files(), "open": opened}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Read the manifest's episodes from disk and restore the open ones; the buffer must be empty.

        A file that is damaged or not the one that was written goes to ``quarantine/``; the rest goes on.

        Raises:
            SnapshotError: more than ``max_lost`` of all transitions are lost.
        """
        self.open = [OpenEpisode.from_state(episode) if episode else None for episode in state["open"]]
        manifest = state["manifest"]
        lost = 0
        for name in manifest:
            digest = manifest[name]["sha256"] if isinstance(manifest, dict) else None
            path = self.directory / name
            try:
                episode = Episode.load(path, digest)
                if episode.frames.shape[1:] != self.frame_shape or episode.frames.dtype != np.uint8:
                    raise ValueError(f"frames of shape {episode.frames.shape[1:]}, not {self.frame_shape}")
                if episode.state.shape[1:] != self._state.shape[1:]:
                    raise ValueError(
                        f"states of shape {episode.state.shape[1:]}, not {self._state.shape[1:]}"
                    )
            except DAMAGE as error:
                lost += length_of(name)
                self._quarantine(path, error)
            else:
                self._insert(episode, digest)
        total = sum(map(length_of, manifest))
        if lost > self.max_lost * total:
            raise SnapshotError(
                f"{self.damaged_files} replay files with {lost:,} of {total:,} transitions are damaged or "
                f"missing in {self.directory}.",
                "Put them back there from a copy, or go on without them by replay.max_lost=1.",
            )

    def _quarantine(self, path: Path, error: Exception) -> None:
        self.damaged_files += 1
        log.warning(
            "Replay file %s cannot be used (%s: %s); going on without it.", path, type(error).__name__, error
        )
        if path.exists():
            move_aside(path, self.directory / "quarantine")

    def _unnamed(self, kept: Iterable[str]) -> list[Path]:
        named = set(self.manifest()).union(kept)
        return [path for path in sorted(self.directory.glob("episode_*.npz")) if path.name not in named]

    def move_unnamed(self, kept: Iterable[str]) -> None:
        """Move what a resumed run makes anew to ``after_snapshot/``; ``kept`` as for ``delete_unnamed``."""
        for path in self._unnamed(kept):
            (self.directory / "after_snapshot").mkdir(exist_ok=True)
            os.replace(path, self.directory / "after_snapshot" / path.name)
            faults.point("replay.moved")

    def delete_unnamed(self, kept: Iterable[str]) -> None:
        """Delete episode files that are neither in memory nor in ``kept``, the names kept snapshots list."""
        for path in self._unnamed(kept):
            path.unlink()
            faults.point("replay.deleted")

    def close(self) -> None:
        """Stop the prefetching thread and give the rows back."""
        self._settle()
        if self._executor is not None:
            self._executor.shutdown()
        self._frames.close()
