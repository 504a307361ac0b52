"""The DeepMind Control suite (Tassa et al. 2018) on an unmodified dm_control."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from common.seeding import derive_seed
from envs.backends import explain_versions
from envs.pixel_env import PixelEnv, foreground_geoms
from envs.renderer import explain_missing_opengl, load_mujoco
from envs.scene import Scene
from envs.tasks import Task

if TYPE_CHECKING:
    import mujoco

_LARGEST_RANGE = 1e3  # lqr declares +-1e10, meaning "no limit": its actions are passed on as they are


class DMCEnv(PixelEnv):
    """A task of the DeepMind Control suite, seen through its camera.

    Args:
        task: which task.
        scene: what the level changes; None for nothing.
        seed: the seed of the run; tasks that draw their model at random (lqr) draw it from this.
        **options: as for ``PixelEnv``.
    """

    def __init__(self, task: Task, scene: Scene | None = None, *, seed: int = 0, **options: Any) -> None:
        load_mujoco()
        with explain_missing_opengl():  # dm_control loads an OpenGL library when it is imported, too
            from dm_control import suite
            from dm_control.rl.control import PhysicsError

        self._physics_error = PhysicsError
        with _quiet_compiler(), _explain_mismatch():
            self._env = suite.load(task.domain, task.task, task_kwargs={"random": derive_seed(seed, "model")})
        self._physics = _without_rendering(self._env.physics)
        spec = self._env.action_spec()
        bounded = max(abs(spec.minimum).max(), abs(spec.maximum).max()) <= _LARGEST_RANGE
        self._low = spec.minimum if bounded else -np.ones(spec.shape)
        self._high = spec.maximum if bounded else np.ones(spec.shape)
        self._targets = task.targets
        self._foreground: np.ndarray | None = None
        super().__init__(
            task.name, spec.shape[0], task.horizon, scene, seed=seed, **{"camera": task.camera, **options}
        )

    @property
    def model(self) -> mujoco.MjModel:
        """The live compiled model."""
        return self._physics.model.ptr

    @property
    def data(self) -> mujoco.MjData:
        """The live state."""
        return self._physics.data.ptr

    def foreground_geoms(self) -> np.ndarray:
        """Return bool (number of geoms,): those of bodies that move, and the task's targets."""
        if self._foreground is None:
            self._foreground = foreground_geoms(self.model, self._targets)
        return self._foreground

    def _reset_simulation(self, seed: int, start: Mapping[str, np.ndarray] | None = None) -> None:
        if start is not None:
            raise ValueError(f"{self.name}: an episode begins from a seed, not from a state")
        self._env.task._random = np.random.RandomState(seed)
        self._env.reset()

    def _advance(self, action: np.ndarray) -> tuple[float, bool, bool]:
        scaled = self._low + (action.astype(np.float64) + 1.0) * (self._high - self._low) / 2.0
        try:
            step = self._env.step(scaled)
        except self._physics_error as error:
            raise self._not_finite(f"The physics diverged ({error})") from error
        return float(step.reward), step.last() and step.discount == 0.0, step.last() and step.discount != 0.0


def _without_rendering(physics: Any) -> Any:
    """Return ``physics``, unable to draw.

    A task that edits a height field asks for dm_control's own OpenGL context to upload it, which would come
    between the contexts of ``Renderer``. Without one, the task skips the upload and ``PixelEnv`` does it.
    """
    kind = type(physics)
    physics.__class__ = type(kind.__name__, (kind,), {"contexts": property(lambda self: None)})
    return physics


@contextlib.contextmanager
def _explain_mismatch() -> Iterator[None]:
    """Say which versions do not fit, where a foreign mujoco shows as an attribute that is not there."""
    try:
        yield
    except (AttributeError, TypeError) as error:
        if (mismatch := explain_versions(error)) is not None:
            raise mismatch from error
        raise


@contextlib.contextmanager
def _quiet_compiler() -> Iterator[None]:
    """Hide the compiler's remarks on the suite's own files: no user can act on them."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
