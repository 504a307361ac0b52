"""The last k frames of several environments, channel-first, as the agents' encoders read them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.views import channels_first, stacked_shape


class FrameStack:
    """A stack of k frames per environment (Mnih et al. 2015); a reset repeats the first frame k times.

    It is no environment: the loop hands it frames that are masked already, so that each is masked once.

    Args:
        k: how many frames.
        num_envs: N.
        shape: (H, W, 3) of a frame, C = 3; or (V, H, W, 3) of V cameras, C = 3 * V: the views of a moment
            come one after another, and moments after that.
    """

    def __init__(self, k: int, num_envs: int, shape: Sequence[int] = (84, 84, 3)) -> None:
        if k < 1 or num_envs < 1 or len(shape) not in (3, 4):
            raise ValueError(
                f"expected k >= 1, num_envs >= 1, shape ([V,] H, W, C); got {k}, {num_envs}, {shape}"
            )
        self._shape = tuple(shape)
        self._frames = np.zeros((num_envs, k, *stacked_shape(shape)), np.uint8)

    @property
    def frames(self) -> np.ndarray:
        """A copy of the stacked frames, uint8 (N, k, C, H, W), oldest first; assign it to restore them."""
        return self._frames.copy()

    @frames.setter
    def frames(self, frames: np.ndarray) -> None:
        frames = np.asarray(frames)
        if frames.shape != self._frames.shape or frames.dtype != np.uint8:
            raise ValueError(f"expected uint8 {self._frames.shape} frames, got {frames.dtype} {frames.shape}")
        self._frames = frames.copy()

    def reset(self, frames: np.ndarray, which: np.ndarray | None = None) -> np.ndarray:
        """Fill the stacks of some environments with their first frame; return all stacks.

        Args:
            frames: uint8 (N, *shape).
            which: bool (N,), the environments that were reset; None means all.

        Returns:
            uint8 (N, k * C, H, W), oldest frame first.
        """
        newest = self._channel_first(frames)
        which = np.ones(len(newest), bool) if which is None else np.asarray(which, bool)
        if which.shape != (len(newest),):
            raise ValueError(f"which: expected shape {(len(newest),)}, got {which.shape}")
        self._frames[which] = newest[which][:, None]
        return self._stacks()

    def push(self, frames: np.ndarray) -> np.ndarray:
        """Append one frame to every stack and drop the oldest; return all stacks.

        Args:
            frames: uint8 (N, *shape).

        Returns:
            uint8 (N, k * C, H, W), oldest frame first.
        """
        newest = self._channel_first(frames)
        self._frames[:, :-1] = self._frames[:, 1:].copy()
        self._frames[:, -1] = newest
        return self._stacks()

    def _channel_first(self, frames: np.ndarray) -> np.ndarray:
        frames = np.asarray(frames)
        expected = (len(self._frames), *self._shape)
        if frames.shape != expected or frames.dtype != np.uint8:
            raise ValueError(f"frames: expected uint8 {expected}, got {frames.dtype} {frames.shape}")
        return channels_first(frames, several=len(self._shape) == 4)

    def _stacks(self) -> np.ndarray:
        number, k, channels, height, width = self._frames.shape
        return self._frames.reshape(number, k * channels, height, width).copy()
