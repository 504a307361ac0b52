"""Lights and cameras: RL-ViGen's axes light_position, light_color, moving_light and cam_pos.

The constants are those of RL-ViGen (Yuan et al. 2023, code of its DMControl part). What it does with them
is taken as meant, see docs/fidelity.md: every edit is an offset on the model's own values, for lights and
cameras that follow a body as well as for fixed ones, and each episode starts again from those values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from common.seeding import counter_rng
from envs.renderer import load_mujoco
from envs.scene import BaseScene, ModelMemory

if TYPE_CHECKING:
    import mujoco

    from envs.renderer import Renderer

LIGHT_POSITION = {"easy": (3.0, 4.0), "hard": (9.0, 10.0)}  # metres, one of the two per light and coordinate
LIGHT_COLOR = {"easy": 0.2, "hard": 10.0}  # at most so much is added to each channel
CAM_POS = {"easy": 0.08, "hard": 0.15}  # metres, at most, per coordinate

# MuJoCo keeps three positions of a light or camera: of a fixed one, of one that follows a body, and of one
# that follows a centre of mass. The mode decides which is read, so an offset goes onto all three.
_LIGHT_POSITIONS = ("light_pos", "light_pos0", "light_poscom0")
_LIGHT_DIRECTIONS = ("light_dir", "light_dir0")
_CAMERA_POSITIONS = ("cam_pos", "cam_pos0", "cam_poscom0")


@dataclass(frozen=True)
class Motion:
    """How far a light moves along each coordinate.

    Attributes:
        speed: metres per agent step.
        bound: metres from its own place at which it turns round.
    """

    speed: float
    bound: float

    def offset(self, agent_step: int) -> float:
        """Return how far it is from its own place: a triangle wave that begins at 0, upwards."""
        phase = (self.speed * agent_step + self.bound) % (4 * self.bound)
        return self.bound - abs(phase - 2 * self.bound)


MOVING_LIGHT = {"easy": Motion(0.01, 5.0), "hard": Motion(0.05, 10.0)}


class LightScene(BaseScene):
    """Lights stand elsewhere, shine in another colour, or move; None leaves that as it is.

    A light that stands elsewhere shines at what it shone at before: with its old direction the agent would be
    outside its cone, and the level would be one without a light.

    Args:
        seed: of the environment.
        position: difficulty of ``light_position``.
        color: difficulty of ``light_color``.
        moving: difficulty of ``moving_light``.
        motion: how the lights move instead, where a simulator has ways of its own.
    """

    def __init__(
        self,
        seed: int,
        position: str | None = None,
        color: str | None = None,
        moving: str | None = None,
        motion: Motion | None = None,
    ) -> None:
        self.seed = seed
        self.position, self.color = position, color
        self.motion = motion if moving is None else MOVING_LIGHT[moving]
        self._memory = ModelMemory(*_LIGHT_POSITIONS, *_LIGHT_DIRECTIONS, "light_diffuse")
        self._model: mujoco.MjModel | None = None
        self._offset = np.zeros((0, 3))

    def begin_episode(self, model: mujoco.MjModel, renderer: Renderer, episode: int) -> None:
        """Place and tint the lights of ``episode``."""
        self._memory.restore(model)
        self._model, self._offset = model, self.draw_offset(model.nlight, episode)
        model.light_diffuse[:] = self.draw_diffuse(self._memory.own("light_diffuse"), episode)
        self._place(model, self._offset)

    def draw_offset(self, lights: int, episode: int) -> np.ndarray:
        """Return where the lights stand, float (lights, 3), metres from their own places."""
        if self.position is None:
            return np.zeros((lights, 3))
        rng = counter_rng(self.seed, f"level/light_position/{self.position}", episode)
        return rng.choice(LIGHT_POSITION[self.position], size=(lights, 3))

    def draw_diffuse(self, own: np.ndarray, episode: int) -> np.ndarray:
        """Return the lights' colours, float (lights, 3) in [0, 1]: their own plus a shift."""
        if self.color is None:
            return own
        rng = counter_rng(self.seed, f"level/light_color/{self.color}", episode)
        most = LIGHT_COLOR[self.color]
        return np.clip(own + rng.uniform(-most, most, own.shape), 0.0, 1.0)

    def begin_frame(self, data: mujoco.MjData, agent_step: int, control_step: int) -> None:
        """Move moving lights to where they are at ``agent_step``."""
        if self.motion is not None and self._model is not None:
            way = self.motion.offset(agent_step)
            moved = np.array([way, way, abs(way)])  # upwards only: below the floor it would shine on nothing
            self._place(self._model, self._offset + moved)
            load_mujoco().mj_camlight(self._model, data)

    def _place(self, model: mujoco.MjModel, offset: np.ndarray) -> None:
        """Put lights at their own places plus ``offset``, float (lights, 3) in metres, and aim them."""
        _shift(model, self._memory, _LIGHT_POSITIONS, offset)
        if not offset.any():
            return
        follows_mass = model.light_mode == int(load_mujoco().mjtCamLight.mjCAMLIGHT_TRACKCOM)
        own = self._memory.own
        followed = np.where(follows_mass[:, None], own("light_poscom0"), own("light_pos0"))
        model.light_dir[:] = _aim(own("light_pos"), own("light_dir"), offset)
        model.light_dir0[:] = _aim(followed, own("light_dir0"), offset)


class CameraScene(BaseScene):
    """The cameras stand a little aside, in the same direction; one that follows the agent goes on doing so.

    Args:
        seed: of the environment.
        difficulty: of ``cam_pos``.
    """

    def __init__(self, seed: int, difficulty: str) -> None:
        self.seed, self.difficulty = seed, difficulty
        self._memory = ModelMemory(*_CAMERA_POSITIONS)

    def begin_episode(self, model: mujoco.MjModel, renderer: Renderer, episode: int) -> None:
        """Place the cameras of ``episode``."""
        self._memory.restore(model)
        rng = counter_rng(self.seed, f"level/cam_pos/{self.difficulty}", episode)
        most = CAM_POS[self.difficulty]
        _shift(model, self._memory, _CAMERA_POSITIONS, rng.uniform(-most, most, 3))


def _aim(places: np.ndarray, directions: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Return the directions in which lights that were moved by ``offset`` still shine at the same points.

    That point is the one of a light's ray that is nearest to the origin: of the world, or for a light that
    follows a body the body's or its centre of mass. All arrays are float (lights, 3), directions of length 1.
    """
    reach = -(places * directions).sum(axis=1, keepdims=True)
    towards = reach * directions - offset
    length = np.linalg.norm(towards, axis=1, keepdims=True)
    aimed = (reach > 0) & (length > 0)
    return np.where(aimed, towards / np.where(aimed, length, 1.0), directions)


def _shift(model: mujoco.MjModel, memory: ModelMemory, names: Sequence[str], offset: np.ndarray) -> None:
    """Set arrays of positions to the model's own plus ``offset``, float (3,) or (count, 3), in metres."""
    for name in names:
        getattr(model, name)[:] = memory.own(name) + offset
