"""The Adroit hand (Rajeswaran et al. 2018) as pixels and joint positions: door, hammer, pen and relocate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np

from envs.adroit_model import compile_model
from envs.adroit_tasks import ADROIT_TASKS
from envs.pixel_env import Observation, PixelEnv, foreground_geoms, foreground_sites
from envs.renderer import load_mujoco
from envs.scene import Scene
from envs.tasks import Task

if TYPE_CHECKING:
    import mujoco

FRAME_SKIP = 5  # physics steps of 2 ms in a control step
HAND_JOINTS = 24


class AdroitEnv(PixelEnv):
    """A task of the Adroit hand, seen through one camera.

    Observations are ``{"pixels": uint8 (H, W, 3), "state": float32 (24,)}``: the frame, upright, and the
    positions of wrist and fingers in radians, as VRL3 reads them. ``info`` holds ``goal_steps``, how many
    control steps of the episode ended at the goal, and ``success``, whether these are enough (more than 25,
    for the pen more than 20). Physics, rewards and endings: ``envs.adroit_model`` and ``envs.adroit_tasks``.
    ``reset(options={"initial_state_dict": ...})`` takes what DAPG's files hold: ``qpos``, ``qvel`` and what
    the task places (``start_state`` says which).

    Args:
        task: which task.
        scene: what the level changes; None for nothing.
        seed: the seed of the run.
        **options: as for ``PixelEnv``.

    Raises:
        DependencyError: the package that holds the scenes is not installed.
    """

    def __init__(self, task: Task, scene: Scene | None = None, *, seed: int = 0, **options: Any) -> None:
        self._task = ADROIT_TASKS[task.domain]
        self._model = compile_model(task.domain)
        # Once, not for every frame: levels repaint the model, and its bodies stay.
        self._foreground_geoms = foreground_geoms(self._model, task.targets)
        self._foreground_sites = foreground_sites(self._model, task.targets)
        self._data = load_mujoco().MjData(self._model)
        self._unmoved = {name: part.copy() for name, part in self._task.placed(self._model).items()}
        low, high = self._model.actuator_ctrlrange.T
        self._middle, self._half = (low + high) / 2, (high - low) / 2
        self._goal_steps = 0
        super().__init__(
            task.name, self._model.nu, task.horizon, scene, seed=seed, **{"camera": task.camera, **options}
        )
        self.observation_space["state"] = gymnasium.spaces.Box(-np.inf, np.inf, (HAND_JOINTS,), np.float32)

    @property
    def model(self) -> mujoco.MjModel:
        """The live compiled model."""
        return self._model

    @property
    def data(self) -> mujoco.MjData:
        """The live state."""
        return self._data

    def foreground_geoms(self) -> np.ndarray:
        """Return bool (number of geoms,): hand and objects, the hammer's board, the pen's target."""
        return self._foreground_geoms

    def foreground_sites(self) -> np.ndarray:
        """Return bool (number of sites,): marks on the objects, and relocate's target."""
        return self._foreground_sites

    @property
    def start_state(self) -> dict[str, np.ndarray]:
        """What begins an episode at this moment, float64: ``qpos``, ``qvel`` and what the task places."""
        parts = {"qpos": self.data.qpos, "qvel": self.data.qvel, **self._task.placed(self.model)}
        return {name: np.array(part) for name, part in parts.items()}

    @property
    def success(self) -> bool:
        """Whether the episode has spent enough control steps at the goal."""
        return self._goal_steps > self._task.goal_steps

    def observe(self) -> tuple[Observation, dict[str, Any]]:
        """Draw the present moment: the observation and info as ``step`` returns them."""
        observation, info = super().observe()
        state = self.data.qpos[self._task.hand].astype(np.float32)
        goals = {"goal_steps": self._goal_steps, "success": self.success}
        return {**observation, "state": state}, {**info, **goals}

    def _reset_simulation(self, seed: int, start: Mapping[str, np.ndarray] | None = None) -> None:
        # A start sets more than `place` does: whatever it moved comes back before the next episode is placed.
        for name, part in self._task.placed(self.model).items():
            part[:] = self._unmoved[name] if start is None else start[name]
        mujoco = load_mujoco()
        mujoco.mj_resetData(self.model, self.data)
        if start is None:
            self._task.place(self.model, np.random.default_rng(seed))
        else:
            self.data.qpos[:], self.data.qvel[:] = start["qpos"], start["qvel"]
        mujoco.mj_forward(self.model, self.data)
        self._goal_steps = 0

    def _advance(self, action: np.ndarray) -> tuple[float, bool, bool]:
        mujoco = load_mujoco()
        self.data.ctrl[:] = self._middle + action.astype(np.float64) * self._half
        mujoco.mj_step(self.model, self.data, FRAME_SKIP)
        self._require_stable()
        outcome = self._task.judge(self.data)
        self._goal_steps += outcome.goal
        # A task that is lost at the very end has run out of time: its last state keeps its value.
        in_time = self._control_steps + 1 < self._horizon
        return outcome.reward, outcome.failed and in_time, False

    def _require_stable(self) -> None:
        """Raise where MuJoCo found a state that is not finite: it begins anew by itself and only warns."""
        kinds = load_mujoco().mjtWarning
        for kind in (kinds.mjWARN_BADQPOS, kinds.mjWARN_BADQVEL, kinds.mjWARN_BADQACC):
            if self.data.warning[int(kind)].number:
                raise self._not_finite("The physics diverged")
