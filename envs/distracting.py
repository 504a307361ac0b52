"""The Distracting Control Suite (Stone et al. 2021) in its dynamic form, by intensity, as DMC-GB ships it.

Three things change at once: the sky is a video, every material changes its colour, and the camera wanders on
a sphere. Constants are those of the published code (``suite_utils.py``, ``camera.py``, ``color.py``,
``background.py``; the numbers of videos and the pace of the video are DMC-GB's). Departures are numbered in
docs/fidelity.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from common.seeding import counter_rng
from envs.colors import GRID, SKYBOX, texture_texels
from envs.renderer import load_mujoco
from envs.scene import BaseScene, ModelMemory
from envs.video_background import ClipBank

if TYPE_CHECKING:
    import mujoco

    from envs.renderer import Renderer

# Intensity as names write it -> how many of the videos may appear; None means all.
INTENSITIES: dict[str, int | None] = {
    "0.025": 2,
    "0.05": 2,
    "0.1": 4,
    "0.15": 6,
    "0.2": 8,
    "0.3": None,
    "0.4": None,
    "0.5": None,
}
# Domains that the suite supports -> how opaque the floor is.
GROUND_ALPHA = {
    "ball_in_cup": 0.3,
    "cartpole": 0.3,
    "cheetah": 1.0,
    "finger": 0.3,
    "reacher": 0.0,
    "walker": 1.0,
}
TEXTURE_SIDE = 256  # pixels of the sky's picture; published 800 is not visible at 84 x 84 but 4 times as slow
CONTROL_STEPS_PER_FRAME = 2  # DMC-GB's pace of the video
COLOR_STEP = 0.03  # standard deviation of a colour's step, times intensity
_FREE_RADIUS = 4.0  # metres; cameras nearer than this move slower in proportion

S = TypeVar("S")


class Walk(Generic[S]):
    """A random walk whose moments can be asked for in any order.

    Args:
        first: state at step 0.
        advance: returns the state after a state; draws from a generator of its own.
    """

    def __init__(self, first: S, advance: Callable[[S], S]) -> None:
        self._states = [first]
        self._advance = advance

    def at(self, step: int) -> S:
        """Return the state at ``step``."""
        while len(self._states) <= step:
            self._states.append(self._advance(self._states[-1]))
        return self._states[step]


@dataclass(frozen=True)
class CameraState:
    """Where the camera is and how it moves.

    Attributes:
        place: float (3,), spherical: radius in metres, horizontal angle, angle from the vertical in radians.
        roll: radians.
        velocity: float (3,), metres per control step, Cartesian.
        roll_velocity: radians per control step.
    """

    place: np.ndarray
    roll: float
    velocity: np.ndarray
    roll_velocity: float


@dataclass(frozen=True)
class CameraLimits:
    """What the camera may do at an intensity.

    Attributes:
        low: float (3,), smallest radius and angles.
        high: float (3,), largest.
        roll: largest roll in radians, to both sides.
        speed: largest speed, metres per control step.
        speed_step: standard deviation of its change.
        roll_speed: largest speed of the roll, radians per control step.
        roll_step: standard deviation of its change.
    """

    low: np.ndarray
    high: np.ndarray
    roll: float
    speed: float
    speed_step: float
    roll_speed: float
    roll_step: float

    @classmethod
    def around(cls, start: np.ndarray, intensity: float, above_ground: bool) -> CameraLimits:
        """Return the limits for a camera that stands at ``start``, float (3,), Cartesian, in metres.

        ``above_ground`` keeps it in front of the agent and above the floor.
        """
        place = to_sphere(start)
        turn = np.pi / 2 * intensity
        low = place - np.array([place[0] * 0.5 * intensity, turn, turn])
        high = place + np.array([place[0] * 1.5 * intensity, turn, turn])
        if above_ground:
            low = np.maximum(low, [0.0, -np.pi, 0.0])
            high = np.minimum(high, [np.inf, 0.0, np.pi / 2])
        pace = place[0] / _FREE_RADIUS
        return cls(
            low=low,
            high=high,
            roll=turn,
            speed=0.4 * intensity * pace,
            speed_step=0.1 * intensity * pace,
            roll_speed=np.pi / 50 * intensity,
            roll_step=np.pi / 300 * intensity,
        )


def camera_walk(limits: CameraLimits, intensity: float, rng: np.random.Generator) -> Walk[CameraState]:
    """Return the wandering of a camera, from a place, a roll and speeds drawn uniformly within ``limits``."""

    def advance(state: CameraState) -> CameraState:
        velocity = state.velocity + rng.normal(size=3) * limits.speed_step
        norm = float(np.linalg.norm(velocity))
        if norm > limits.speed:
            velocity = velocity * (limits.speed / norm)
        here = from_sphere(state.place)
        place = np.clip(to_sphere(here + velocity), limits.low, limits.high)
        roll_velocity = state.roll_velocity + rng.normal() * limits.roll_step
        roll_velocity = float(np.clip(roll_velocity, -limits.roll_speed, limits.roll_speed))
        roll = float(np.clip(state.roll + roll_velocity, -limits.roll, limits.roll))
        # What a limit took away is no speed any more.
        return CameraState(place, roll, from_sphere(place) - here, roll - state.roll)

    place = rng.uniform(limits.low, limits.high)
    direction = rng.normal(size=3)
    start = CameraState(
        place=place,
        roll=float(rng.uniform(-limits.roll, limits.roll)),
        velocity=direction / np.linalg.norm(direction) * rng.uniform(0.0, 0.4 * intensity),
        roll_velocity=float(rng.uniform(-limits.roll_speed, limits.roll_speed)),
    )
    return Walk(advance(start), advance)


def color_walk(own: np.ndarray, intensity: float, rng: np.random.Generator) -> Walk[np.ndarray]:
    """Return the wandering of colours, float (N, 3) in [0, 1], at most ``intensity`` from ``own``."""
    low, high = np.clip(own - intensity, 0.0, 1.0), np.clip(own + intensity, 0.0, 1.0)

    def advance(colors: np.ndarray) -> np.ndarray:
        return np.clip(colors + rng.normal(size=colors.shape) * COLOR_STEP * intensity, low, high)

    return Walk(rng.uniform(low, high), advance)


def bounce(start: int, direction: int, steps: int, length: int) -> int:
    """Return which of ``length`` frames is shown after ``steps`` steps to and fro."""
    if length < 2:
        return 0
    place = (start + direction * steps) % (2 * (length - 1))
    return min(place, 2 * (length - 1) - place)


class DistractingScene(BaseScene):
    """Background, colours and camera of the Distracting Control Suite.

    Args:
        domain: a key of ``GROUND_ALPHA``.
        seed: of the environment.
        intensity: a key of ``INTENSITIES``.
        bank: the videos, at ``TEXTURE_SIDE``.
    """

    def __init__(self, domain: str, seed: int, intensity: str, bank: ClipBank) -> None:
        self.domain, self.seed, self.bank = domain, seed, bank
        self.intensity = float(intensity)
        self._memory = ModelMemory("mat_rgba")
        self._model: mujoco.MjModel | None = None
        self._renderer: Renderer | None = None
        self._clip = np.zeros((1, TEXTURE_SIDE, TEXTURE_SIDE, 3), np.uint8)
        self._start, self._direction, self._shown = 0, 1, -1
        self._colors: Walk[np.ndarray] | None = None
        self._camera: Walk[CameraState] | None = None

    def begin_episode(self, model: mujoco.MjModel, renderer: Renderer, episode: int) -> None:
        """Choose video, colours and the camera's way of ``episode``."""
        self._memory.restore(model)
        self._model, self._renderer = model, renderer
        rng = self._rng("background", episode)
        self._clip = self.bank.clip(int(rng.integers(len(self.bank))))
        self._start, self._direction = int(rng.integers(len(self._clip))), int(rng.choice([-1, 1]))
        self._shown = -1
        own = self._memory.own("mat_rgba")[:, :3].astype(np.float64)
        self._colors = color_walk(own, self.intensity, self._rng("color", episode))
        limits = CameraLimits.around(
            _start_of(model, renderer.camera), self.intensity, above_ground=self.domain != "reacher"
        )
        self._camera = camera_walk(limits, self.intensity, self._rng("camera", episode))
        model.mat_rgba[model.mat(GRID).id, 3] = GROUND_ALPHA[self.domain]

    def begin_frame(self, data: mujoco.MjData, agent_step: int, control_step: int) -> None:
        """Show the moment ``control_step``."""
        model, renderer = self._model, self._renderer
        if model is None or renderer is None or self._colors is None or self._camera is None:
            raise ValueError("begin_episode must be called before begin_frame")
        model.mat_rgba[:, :3] = self._colors.at(control_step)
        steps = control_step // CONTROL_STEPS_PER_FRAME
        frame = bounce(self._start, self._direction, steps, len(self._clip))
        if frame != self._shown:
            _show_in_sky(model, renderer, self._clip[frame])
            self._shown = frame
        load_mujoco().mj_camlight(model, data)  # the camera's own pose, which may have been moved before
        self._place_camera(model, data, renderer.camera, self._camera.at(control_step))

    def _place_camera(
        self, model: mujoco.MjModel, data: mujoco.MjData, camera: int, state: CameraState
    ) -> None:
        """Put the camera there for the next picture; the simulation never reads it."""
        axes = np.array(data.cam_xmat[camera]).reshape(3, 3)
        reach = float(np.linalg.norm(model.cam_poscom0[camera]))
        place = from_sphere(state.place)
        if _is_fixed(model, camera):
            looked_at = model.cam_pos[camera] - reach * axes[:, 2]
        else:
            place = place + data.subtree_com[model.cam_bodyid[camera]]
            looked_at = data.cam_xpos[camera] - reach * axes[:, 2]
        level = self.domain != "reacher"
        turned = look_at(looked_at - place, level) @ _roll(state.roll)
        data.cam_xpos[camera] = place
        data.cam_xmat[camera] = turned.reshape(9)

    def _rng(self, what: str, episode: int) -> np.random.Generator:
        return counter_rng(self.seed, f"level/distracting/{what}/{self.intensity}", episode)


def to_sphere(place: np.ndarray) -> np.ndarray:
    """Return radius, horizontal angle and angle from the vertical of a point, float (3,)."""
    flat = float(np.hypot(place[0], place[1]))
    return np.array([np.linalg.norm(place), np.arctan2(place[1], place[0]), np.arctan2(flat, place[2])])


def from_sphere(place: np.ndarray) -> np.ndarray:
    """Return the point, float (3,), of what ``to_sphere`` returns."""
    radius, around, down = place
    flat = np.sin(down)
    return radius * np.array([flat * np.cos(around), flat * np.sin(around), np.cos(down)])


def look_at(direction: np.ndarray, level: bool) -> np.ndarray:
    """Return the camera's axes, float (3, 3) with right, up and backwards as columns.

    Args:
        direction: float (3,), where it looks, of any length.
        level: the horizon stays level; otherwise the camera turns the shortest way from looking straight
            down, which has no pole below it (the reacher is seen from above).
    """
    forward = direction / np.linalg.norm(direction)
    if level:
        right = np.cross(forward, [0.0, 0.0, 1.0])
        right = right / np.linalg.norm(right) if np.linalg.norm(right) > 1e-9 else np.array([1.0, 0.0, 0.0])
        return np.stack([right, np.cross(right, forward), -forward], axis=1)
    x, y, _ = axis = np.cross([0.0, 0.0, -1.0], forward)
    turn = np.array([[0.0, -axis[2], y], [axis[2], 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + turn + turn @ turn / (1.0 - forward[2])


def _roll(angle: float) -> np.ndarray:
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])


def _is_fixed(model: mujoco.MjModel, camera: int) -> bool:
    return int(model.cam_mode[camera]) == int(load_mujoco().mjtCamLight.mjCAMLIGHT_FIXED)


def _start_of(model: mujoco.MjModel, camera: int) -> np.ndarray:
    """Return where the camera stands: in the world, or from the centre of mass that it follows."""
    return np.array(model.cam_pos[camera] if _is_fixed(model, camera) else model.cam_poscom0[camera])


def _show_in_sky(model: mujoco.MjModel, renderer: Renderer, picture: np.ndarray) -> None:
    """Show one picture, uint8 (S, S, 3), on all six sides of the sky."""
    sky = model.tex(SKYBOX).id
    model.tex_height[sky], model.tex_width[sky] = picture.shape[:2]
    texture_texels(model, sky)[:] = picture.reshape(-1)
    renderer.upload_texture(sky)
