"""What the agent sees: observations with everything outside the mask black (SAM-G, section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import VectorEnv, VectorWrapper

from common.masking import ObservationMasker
from wrappers.batch_masker import BatchMasker, MaskMemory

Observation = dict[str, np.ndarray]


def MaskObservation(
    env: gymnasium.Env | VectorEnv, masker: ObservationMasker, **options: Any
) -> MaskSingle | MaskVector:
    """Wrap an environment, or a vector of them, so that ``obs["pixels"]`` is masked.

    ``info["mask"]`` holds the mask, bool (H, W) or (N, H, W): where a soft mask is at least one half.
    ``info["mask_empty"]``, bool or bool (N,), tells whether the masker found nothing: as it says itself in
    ``last_empty``, bool (N,), where it may have put something else in an empty mask's place, and else whether
    the mask is empty. The frames are masked after every perturbation and before any stacking, each once, in
    one call for all environments.

    Observations of V cameras, (V, H, W, 3), are masked view by view in the same call: ``mask`` is then
    (V, H, W) or (N, V, H, W), and ``mask_empty`` (V,) or (N, V).

    Args:
        env: observations ``{"pixels": uint8 ([V,] H, W, 3)}``, or (N, [V,] H, W, 3) of a vector environment.
        masker: makes the masks; reads ``info["foreground"]`` where the environment gives it.
        **options: ``keep_raw`` keeps the unmasked frames in ``info["raw_pixels"]``; ``batch_size`` pads every
            call to that many frames (the batch size changes the last bits of a product, so results that
            must not depend on the number of environments need one fixed size); ``device`` is where the
            frames go (default: where the masker is); ``keep_failed`` is the folder for frames on which the
            masker fails.

    A masker with ``every`` = k > 1 masks the first frame of an episode and every k-th from there; the others
    get the last mask. ``mask_memory`` of a vector holds that mask: a run that is saved with it and resumed
    goes on as if it had not been interrupted.
    """
    wrapper = MaskVector if isinstance(env, VectorEnv) else MaskSingle
    return wrapper(env, masker, **options)  # type: ignore[arg-type]


class MaskSingle(gymnasium.Wrapper):
    """``MaskObservation`` of one environment."""

    def __init__(
        self,
        env: gymnasium.Env,
        masker: ObservationMasker,
        keep_raw: bool = False,
        batch_size: int | None = None,
        device: torch.device | str | None = None,
        keep_failed: Path | None = None,
    ) -> None:
        super().__init__(env)
        self._masking = BatchMasker(masker, keep_raw, batch_size, device, keep_failed=keep_failed)
        self._memory = MaskMemory()

    @property
    def episode(self) -> int:
        """The environment's ``episode``; assigning it reaches the environment."""
        return self.env.get_wrapper_attr("episode")

    @episode.setter
    def episode(self, value: int) -> None:
        self.env.set_wrapper_attr("episode", value)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Reset the environment; the first frame comes masked."""
        self._memory = MaskMemory()
        return self._masked(*self.env.reset(seed=seed, options=options))

    def step(self, action: np.ndarray) -> tuple[Observation, Any, bool, bool, dict[str, Any]]:
        """Step the environment; the frame comes masked."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        observation, info = self._masked(observation, info)
        return observation, reward, terminated, truncated, info

    def _masked(self, observation: Any, info: dict[str, Any]) -> tuple[Observation, dict[str, Any]]:
        foreground = info.get("foreground")
        masked, added = self._masking(
            observation["pixels"][None], None if foreground is None else foreground[None], [self._memory]
        )
        return {**observation, "pixels": masked[0]}, {**info, **{key: row[0] for key, row in added.items()}}


class MaskVector(VectorWrapper):
    """``MaskObservation`` of a vector environment that does not reset by itself.

    ``reset(options={"reset_mask": done})`` masks the first frames of the environments that were reset; the
    rows of the others stay as they were returned last. ``step_async`` and ``step_wait`` let the caller work
    while the environments step.
    """

    def __init__(
        self,
        env: VectorEnv,
        masker: ObservationMasker,
        keep_raw: bool = False,
        batch_size: int | None = None,
        device: torch.device | str | None = None,
        keep_failed: Path | None = None,
    ) -> None:
        super().__init__(env)
        self._masking = BatchMasker(masker, keep_raw, batch_size, device, keep_failed=keep_failed)
        self._memories = [MaskMemory() for _ in range(self.num_envs)]
        self._last: np.ndarray | None = None
        self._last_added: dict[str, np.ndarray] = {}

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Reset all environments, or those of ``options["reset_mask"]``, bool (N,)."""
        which = np.ones(self.num_envs, bool)
        if options and "reset_mask" in options:
            which = options["reset_mask"].copy()  # gymnasium takes it out of the options
        observation, info = self.env.reset(seed=seed, options=options)
        for index in np.flatnonzero(which):
            self._memories[index] = MaskMemory()
        return self._masked(observation, info, which)

    def step(self, actions: np.ndarray) -> tuple[Observation, Any, Any, Any, dict[str, Any]]:
        """Step all environments; the frames come masked."""
        return self._masked_step(self.env.step(actions))

    def step_async(self, actions: np.ndarray) -> None:
        """Begin a step; ``step_wait`` returns its result."""
        self.env.step_async(actions)  # type: ignore[attr-defined]

    def step_wait(self, **options: Any) -> tuple[Observation, Any, Any, Any, dict[str, Any]]:
        """Finish the step that ``step_async`` began; the frames come masked."""
        return self._masked_step(self.env.step_wait(**options))  # type: ignore[attr-defined]

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Call a method of every environment."""
        return self.env.call(name, *args, **kwargs)  # type: ignore[attr-defined]

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Return an attribute of every environment."""
        return self.env.get_attr(name)  # type: ignore[attr-defined]

    def set_attr(self, name: str, values: Sequence[Any] | object) -> None:
        """Assign an attribute of every environment, one value each."""
        self.env.set_attr(name, values)  # type: ignore[attr-defined]

    @property
    def mask_memory(self) -> list[dict[str, Any]]:
        """What masks used again need to go on as they would have; empty where every frame is masked."""
        return [] if self._masking.every == 1 else [memory.state_dict() for memory in self._memories]

    @mask_memory.setter
    def mask_memory(self, states: Sequence[dict[str, Any]]) -> None:
        self._memories = [MaskMemory.restored(state) for state in states] or self._memories

    def _masked_step(self, result: Any) -> tuple[Observation, Any, Any, Any, dict[str, Any]]:
        observation, reward, terminated, truncated, info = result
        observation, info = self._masked(observation, info, np.ones(self.num_envs, bool))
        return observation, reward, terminated, truncated, info

    def _masked(
        self, observation: Any, info: dict[str, Any], which: np.ndarray
    ) -> tuple[Observation, dict[str, Any]]:
        frames = observation["pixels"]
        foreground = info.get("foreground")
        memories = [self._memories[index] for index in np.flatnonzero(which)]
        exact = None if foreground is None else foreground[which]
        masked, added = self._masking(frames[which], exact, memories)
        if self._last is None:
            self._last = np.zeros_like(frames)
            self._last_added = {
                key: np.zeros((len(frames), *rows.shape[1:]), rows.dtype) for key, rows in added.items()
            }
        # New arrays, so that what a caller kept of the last step does not change.
        self._last = _with_rows(self._last, which, masked)
        for key, rows in added.items():
            self._last_added[key] = _with_rows(self._last_added[key], which, rows)
        filed = {f"_{key}": which.copy() for key in added}
        return {**observation, "pixels": self._last}, {**info, **self._last_added, **filed}


def _with_rows(array: np.ndarray, which: np.ndarray, rows: np.ndarray) -> np.ndarray:
    result = array.copy()
    result[which] = rows
    return result
