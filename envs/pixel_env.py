"""The base of every simulator: a gymnasium environment whose observation is what cameras see."""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np

from common.errors import NonFiniteError
from common.seeding import derive_seed
from common.views import side_by_side
from envs.anchors import Anchor, locate_anchors
from envs.renderer import Renderer, load_mujoco
from envs.scene import NullScene, Scene

if TYPE_CHECKING:
    import mujoco

Observation = dict[str, np.ndarray]
Start = Mapping[str, np.ndarray]


def episode_seed(seed: int, episode: int) -> int:
    """Return the seed of the physics of episode ``episode`` of a run with seed ``seed``.

    It depends on nothing else, so one environment and many, in any order, play the same episodes.
    """
    return derive_seed(seed, "physics", episode)


@dataclass(frozen=True)
class Rehearsal:
    """What actions came to that were played without drawing.

    Attributes:
        start: the moment the episode began at, as ``PixelEnv.start_state``.
        total_reward: undiscounted return.
        length: how many of the actions were played until the episode ended.
        success: whether the task was solved; None where the task does not say.
    """

    start: Start
    total_reward: float
    length: int
    success: bool | None


class PixelEnv(gymnasium.Env, abc.ABC):
    """An environment of a MuJoCo simulator that is seen through a camera.

    Observations are ``{"pixels": uint8 (H, W, 3)}``, RGB in [0, 255]; actions float32 (A,) in [-1, 1]. An
    action is held for ``action_repeat`` control steps, the rewards are summed and one picture is drawn. With
    ``foreground=True`` every ``info`` holds ``foreground``: bool (H, W), the pixels of what matters. Where
    ``anchors`` have been assigned (``envs.anchors``), it holds ``anchors``: float32 (P, 2), (x, y) pixels,
    NaN for hidden ones.

    Several cameras see the same moment: then ``pixels`` are (V, H, W, 3) in the order of the cameras, each
    changed by the level as if it were alone. ``foreground`` is then (V, H, W), and ``anchors``, assigned as V
    sequences of P, are (V, P, 2).

    ``reset(seed=...)`` seeds the physics; without a seed they follow from the environment's seed and the
    episode's index, which counts up by itself unless ``episode`` is assigned before the reset. Where
    ``start_state`` is not empty, ``reset(options={"initial_state_dict": ...})`` begins at such a moment.

    Args:
        name: the task's name, for messages.
        action_size: A.
        horizon: control steps after which an episode is cut off (truncated).
        scene: what the level changes; None for nothing.
        seed: the seed of the run.
        camera: index of the observing camera, or indices of several.
        image_size: H and W.
        action_repeat: control steps per agent step.
        foreground: whether ``info`` holds the mask.
        fast_render: draw cheaper shadows (see ``Renderer``).
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 25}  # noqa: RUF012 (gymnasium's convention)
    render_mode = "rgb_array"

    def __init__(
        self,
        name: str,
        action_size: int,
        horizon: int,
        scene: Scene | None = None,
        *,
        seed: int = 0,
        camera: int | Sequence[int] = 0,
        image_size: int = 84,
        action_repeat: int = 2,
        foreground: bool = False,
        fast_render: bool = False,
    ) -> None:
        self._several = not isinstance(camera, int)
        self._cameras = (camera,) if isinstance(camera, int) else tuple(camera)
        views = (len(self._cameras),) if self._several else ()
        pixels = gymnasium.spaces.Box(0, 255, (*views, image_size, image_size, 3), np.uint8)
        self.observation_space: gymnasium.spaces.Dict = gymnasium.spaces.Dict({"pixels": pixels})
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (action_size,), np.float32)
        self.name, self.action_repeat = name, action_repeat
        self._action_size, self._horizon, self._scene = action_size, horizon, scene or NullScene()
        self._seed, self._image_size = seed, image_size
        self._with_foreground, self._fast_render = foreground, fast_render
        # Where given, `info["anchors"]` says where they are seen.
        self.anchors: Sequence[Anchor | None] | Sequence[Sequence[Anchor | None]] = ()
        self._renderer: Renderer | None = None
        self._height_field = np.zeros(0)
        self._episode, self._next_episode = -1, 0
        self._physics_seed = 0
        self._start: Start | None = None
        self._actions: list[np.ndarray] = []
        self._control_steps, self._ended = 0, True
        self._last_frame: np.ndarray | None = None

    # What a simulator provides.

    @property
    @abc.abstractmethod
    def model(self) -> mujoco.MjModel:
        """The live compiled model."""

    @property
    @abc.abstractmethod
    def data(self) -> mujoco.MjData:
        """The live state."""

    @abc.abstractmethod
    def foreground_geoms(self) -> np.ndarray:
        """Return bool (number of geoms,): the geoms that matter to the task."""

    def foreground_sites(self) -> np.ndarray:
        """Return bool (number of sites,): the drawn marks that matter to the task; most have none."""
        return np.zeros(self.model.nsite, bool)

    @property
    def start_state(self) -> dict[str, np.ndarray]:
        """What begins an episode at this moment; empty for simulators that begin from a seed only."""
        return {}

    @property
    def success(self) -> bool | None:
        """Whether the episode has solved the task so far; None where the task does not say."""
        return None

    @abc.abstractmethod
    def _reset_simulation(self, seed: int, start: Start | None = None) -> None:
        """Begin an episode that is a pure function of ``seed``, or of ``start`` where it is given."""

    @abc.abstractmethod
    def _advance(self, action: np.ndarray) -> tuple[float, bool, bool]:
        """Simulate one control step with float32 (A,) in [-1, 1]; return reward, terminated, truncated."""

    # What gymnasium asks for.

    @property
    def episode(self) -> int:
        """Index of the running episode (-1 before the first). Assigning it chooses the next reset's."""
        return self._episode

    @episode.setter
    def episode(self, value: int) -> None:
        self._next_episode = int(value)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin the next episode and return its first observation and info.

        Of the options, ``initial_state_dict`` says where it begins; see ``start_state``.
        """
        super().reset(seed=seed)
        self._begin(self._next_episode, seed, (options or {}).get("initial_state_dict"))
        return self.observe()

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Hold ``action``, float32 (A,) in [-1, 1], for one agent step.

        Returns:
            observation, summed reward, terminated (the task is over: no value follows), truncated (time is
            up: the value of the last state counts), info.
        """
        if self._ended:
            raise gymnasium.error.ResetNeeded(f"{self.name}: the episode has ended; call reset() first")
        reward, terminated, truncated = self._simulate(action)
        observation, info = self.observe()
        return observation, reward, terminated, truncated, info

    def render(self) -> np.ndarray:
        """Return the last observed frame: uint8 (H, W, 3); of several cameras the views side by side."""
        if self._last_frame is None:
            raise gymnasium.error.ResetNeeded(f"{self.name}: call reset() before render()")
        return side_by_side(self._last_frame) if self._several else self._last_frame

    def close(self) -> None:
        """Free the renderer; the environment cannot be used afterwards."""
        if self._renderer is not None:
            self._renderer.close()

    # Snapshots.

    @property
    def state(self) -> dict[str, Any]:
        """What restores this moment: ``episode``, ``seed`` of its physics, ``actions`` float32 (T, A) since.

        ``start`` says where the episode began, if the seed does not.
        Some tasks edit their model when an episode begins, so MuJoCo's own state would not be enough.
        Assigning a state replays the physics without drawing; ``observe()`` then returns the same picture.
        """
        actions = np.array(self._actions, np.float32).reshape(-1, self._action_size)
        start = {} if self._start is None else {"start": self._start}
        return {"episode": self._episode, "seed": self._physics_seed, "actions": actions, **start}

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        if state["episode"] < 0:
            return
        self._begin(int(state["episode"]), int(state["seed"]), state.get("start"))
        for action in np.asarray(state["actions"], np.float32):
            self._simulate(action)

    def rehearse(self, actions: np.ndarray, seed: int, start: Start | None = None) -> Rehearsal:
        """Play an episode without drawing, many times faster; call ``reset()`` afterwards.

        Args:
            actions: float32 (T, A), T >= 1.
            seed: of the physics.
            start: where to begin instead; see ``start_state``.

        Raises:
            NonFiniteError: the physics diverged.
        """
        self._begin_physics(seed, start)
        begun, total = self.start_state, 0.0
        for action in actions:
            total += self._simulate(action)[0]
            if self._ended:
                break
        self._ended = True  # nothing was drawn: there is no frame to go on from
        return Rehearsal(begun, total, len(self._actions), self.success)

    def get_state(self) -> dict[str, Any]:
        """Return ``state``."""
        return self.state

    def set_state(self, state: dict[str, Any]) -> None:
        """Assign ``state``."""
        self.state = state

    # The parts.

    @property
    def renderer(self) -> Renderer:
        """The renderer, made when it is first needed (an environment that only tells its spaces has none)."""
        if self._renderer is None:
            size = self._image_size
            self._renderer = Renderer(self.model, size, size, self._cameras[0], self._fast_render)
            self._height_field = np.array(self.model.hfield_data)
        return self._renderer

    def observe(self) -> tuple[Observation, dict[str, Any]]:
        """Draw the present moment: the observation and info as ``step`` returns them."""
        self._scene.begin_frame(self.data, len(self._actions), self._control_steps)
        views = [self._see(number) for number in range(len(self._cameras))]
        info = views[0]
        if self._several:
            info = {name: np.stack([view[name] for view in views]) for name in info}
        self._last_frame = info.pop("pixels")
        return {"pixels": self._last_frame}, info

    def _see(self, view: int) -> dict[str, np.ndarray]:
        """Return ``pixels`` of one camera and what ``info`` says of them."""
        segmentations: list[np.ndarray] = []
        self.renderer.look_through(self._cameras[view])

        def segmentation() -> np.ndarray:
            if not segmentations:  # the level and the mask may both ask: one drawing serves them
                segmentations.append(self.renderer.render_segmentation(self.data))
            return segmentations[0]

        frame = self.renderer.render(self.data)
        seen = {"pixels": self._scene.compose(frame, segmentation, len(self._actions))}
        if self._with_foreground:
            shown = segmentation()
            seen["foreground"] = foreground_mask(shown, self.foreground_geoms(), self.foreground_sites())
        if self.anchors:
            anchors: Any = self.anchors[view] if self._several else self.anchors
            seen["anchors"] = locate_anchors(anchors, self.model, self.renderer.scene, segmentation())
        return seen

    def _begin_physics(self, seed: int, start: Start | None) -> None:
        self._physics_seed, self._start = seed, start
        self._actions, self._control_steps, self._ended = [], 0, False
        self._reset_simulation(seed, start)

    def _begin(self, episode: int, seed: int | None, start: Start | None = None) -> None:
        self._episode, self._next_episode = episode, episode + 1
        self._begin_physics(episode_seed(self._seed, episode) if seed is None else seed, start)
        renderer = self.renderer
        if not np.array_equal(self._height_field, self.model.hfield_data):
            self._height_field = np.array(self.model.hfield_data)
            for index in range(self.model.nhfield):
                renderer.upload_height_field(index)
        renderer.scene_edits.clear()  # scenes append theirs anew
        self._scene.begin_episode(self.model, renderer, episode)
        # A level may have moved lights or cameras. Nothing that the physics read is computed anew.
        load_mujoco().mj_camlight(self.model, self.data)

    def _simulate(self, action: np.ndarray) -> tuple[float, bool, bool]:
        action = np.array(action, np.float32)
        if action.shape != (self._action_size,):
            raise ValueError(f"{self.name}: expected {self._action_size} actions, got shape {action.shape}")
        self._require_finite("action", action)
        action = action.clip(-1.0, 1.0)
        self._actions.append(action)
        total, terminated, truncated = 0.0, False, False
        for _ in range(self.action_repeat):
            reward, terminated, truncated = self._advance(action)
            self._control_steps += 1
            self._require_finite("reward", reward)
            total += reward
            truncated = not terminated and (truncated or self._control_steps >= self._horizon)
            if terminated or truncated:
                self._ended = True
                break
        return total, terminated, truncated

    def _require_finite(self, what: str, value: float | np.ndarray) -> None:
        if not math.isfinite(float(np.sum(value))):
            raise self._not_finite(f"The {what} is not finite ({value})")

    def _not_finite(self, what: str) -> NonFiniteError:
        return NonFiniteError(
            f"{what} in {self.name}, episode {self._episode}, control step {self._control_steps}.",
            "A diverging agent or an unstable simulation causes this: lower the learning rate, or resume "
            "from an earlier snapshot with another seed.",
        )


def foreground_mask(
    segmentation: np.ndarray, geoms: np.ndarray, sites: np.ndarray | None = None
) -> np.ndarray:
    """Return which pixels show a chosen geom or site, or a skin (the dog's: only moving bodies wear one).

    Args:
        segmentation: int32 (H, W, 2), object id and type, as ``Renderer.render_segmentation`` returns it.
        geoms: bool (number of geoms,).
        sites: bool (number of sites,); None for none.

    Returns:
        bool (H, W).
    """
    types = load_mujoco().mjtObj
    identity, kind = segmentation[..., 0], segmentation[..., 1]
    # As int: NumPy's integers and enum members do not always compare.
    is_geom, is_site = kind == int(types.mjOBJ_GEOM), kind == int(types.mjOBJ_SITE)
    shown = (is_geom & geoms[np.where(is_geom, identity, 0)]) | (kind == int(types.mjOBJ_SKIN))
    if sites is not None and sites.any():
        shown |= is_site & sites[np.where(is_site, identity, 0)]
    return shown


def foreground_geoms(model: mujoco.MjModel, targets: tuple[str, ...] = ()) -> np.ndarray:
    """Return bool (number of geoms,): those of bodies that move, and those named as ``targets`` begin."""
    moving = np.asarray(model.body_weldid[model.geom_bodyid] != 0)
    named = [model.geom(i).name.startswith(targets) for i in range(model.ngeom)]
    return moving | np.array(named, bool)


def foreground_sites(model: mujoco.MjModel, targets: tuple[str, ...] = ()) -> np.ndarray:
    """Return bool (number of sites,): those of bodies that move, and those named as ``targets`` begin."""
    moving = np.asarray(model.body_weldid[model.site_bodyid] != 0)
    named = [model.site(i).name.startswith(targets) for i in range(model.nsite)]
    return moving | np.array(named, bool)
