"""RL-ViGen's axes on the Adroit scenes: colours, table, lights and cameras, each by itself.

They share their names with those of DMControl and differ in their sizes, for the scenes are smaller. The
constants are those of RL-ViGen's Adroit part (Yuan et al. 2023), where lights also differ in strength and
cameras also turn and zoom. As on DMControl every edit is an offset on the model's own values, each axis has a
stream of its own, and an episode depends on nothing but (seed, episode). Every camera is moved by itself, so
that several views do not move as one.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from common.seeding import counter_rng, derive_seed
from envs.adroit_textures import TABLES, VERSION, table_picture
from envs.camera_light import LightScene, Motion
from envs.colors import RGB, colour_index, fill_texture
from envs.data import ColourTable
from envs.level_names import Level
from envs.scene import BaseScene, ModelMemory, Scene

if TYPE_CHECKING:
    import mujoco

    from envs.renderer import Renderer

GROUND = "ground"
TABLE = "marblecube"
_UNCOLOURED = (0.5, 0.5, 0.5, 1.0)  # MuJoCo's default: such a geom shows its material's colour

LIGHT_POSITION = {"easy": (0.5, 0.5, 0.2), "hard": (1.0, 1.0, 0.5)}  # metres, at most, per coordinate
LIGHT_INTENSITY = {"easy": (0.7, 1.4), "hard": (0.4, 2.5)}  # factors, from and to
LIGHT_COLOR = {"easy": 0.1, "hard": 0.2}  # at most so much is added to each channel
MOVING_LIGHT = {"easy": Motion(0.04, 1.2), "hard": Motion(0.12, 3.0)}
CAM_POS = {"easy": 0.03, "hard": 0.07}  # metres, at most, per coordinate
CAM_ANGLE = {"easy": 0.03, "hard": 0.08}  # at most so much is added to each number of the quaternion
CAM_FOV = {"easy": (-4, 5), "hard": (-10, 10)}  # whole degrees, from and below


class HandLightScene(LightScene):
    """The lights of an Adroit scene stand elsewhere, shine otherwise, or move.

    Args:
        seed: of the environment.
        level: its ``light_position``, ``light_intensity`` and ``light_color`` say how; None leaves one.
        moving: difficulty of the motion; None leaves the lights still.
    """

    def __init__(self, seed: int, level: Level, moving: str | None = None) -> None:
        super().__init__(
            seed,
            position=level.light_position,
            color=level.light_color,
            motion=None if moving is None else MOVING_LIGHT[moving],
        )
        self.intensity = level.light_intensity

    def draw_offset(self, lights: int, episode: int) -> np.ndarray:
        """Return where the lights stand, float (lights, 3), metres from their own places."""
        if self.position is None:
            return np.zeros((lights, 3))
        rng = counter_rng(self.seed, f"level/hand/light_position/{self.position}", episode)
        return rng.uniform(-1.0, 1.0, (lights, 3)) * LIGHT_POSITION[self.position]

    def draw_diffuse(self, own: np.ndarray, episode: int) -> np.ndarray:
        """Return the lights' colours, float (lights, 3), at least 0: own times a factor, plus a shift."""
        diffuse = np.array(own, np.float64)
        if self.intensity is not None:
            rng = counter_rng(self.seed, f"level/hand/light_intensity/{self.intensity}", episode)
            diffuse *= rng.uniform(*LIGHT_INTENSITY[self.intensity], (len(own), 1))
        if self.color is not None:
            rng = counter_rng(self.seed, f"level/hand/light_color/{self.color}", episode)
            diffuse += rng.uniform(-LIGHT_COLOR[self.color], LIGHT_COLOR[self.color], own.shape)
        return diffuse.clip(min=0.0)


class HandCameraScene(BaseScene):
    """Every camera of an Adroit scene stands, looks or zooms a little otherwise.

    Args:
        seed: of the environment.
        level: its attributes ``cam_pos``, ``cam_angle`` and ``cam_fov`` say how; None leaves one.
    """

    def __init__(self, seed: int, level: Level) -> None:
        self.seed, self.level = seed, level
        self._memory = ModelMemory("cam_pos", "cam_quat", "cam_fovy")

    def begin_episode(self, model: mujoco.MjModel, renderer: Renderer, episode: int) -> None:
        """Place the cameras of ``episode``; all of these scenes' cameras are fixed to the world."""
        self._memory.restore(model)
        level, own = self.level, self._memory.own
        if level.cam_pos is not None:
            most, rng = CAM_POS[level.cam_pos], self._rng("cam_pos", level.cam_pos, episode)
            places = own("cam_pos") + rng.uniform(-most, most, (model.ncam, 3))
            # Relocate's first camera stands on the ground: from below it would see that alone.
            ground = float(model.geom(GROUND).pos[2])
            places[:, 2] = ground + np.abs(places[:, 2] - ground)
            model.cam_pos[:] = places
        if level.cam_angle is not None:
            most = CAM_ANGLE[level.cam_angle]
            shift = self._rng("cam_angle", level.cam_angle, episode).uniform(-most, most, (model.ncam, 4))
            turned = own("cam_quat") + shift
            model.cam_quat[:] = turned / np.linalg.norm(turned, axis=1, keepdims=True)
        if level.cam_fov is not None:
            degrees = self._rng("cam_fov", level.cam_fov, episode).integers(
                *CAM_FOV[level.cam_fov], model.ncam
            )
            model.cam_fovy[:] = own("cam_fovy") + degrees

    def _rng(self, axis: str, difficulty: str, episode: int) -> np.random.Generator:
        return counter_rng(self.seed, f"level/hand/{axis}/{difficulty}", episode)


class TintScene(BaseScene):
    """All that has no colour of its own takes one of a table, another every episode.

    Args:
        colours: chosen from by ``colour_index`` with a seed of its own.
        seed: of the environment.
    """

    def __init__(self, colours: ColourTable, seed: int) -> None:
        self.colours, self.seed = colours, derive_seed(seed, "level/objects_color")
        self._memory = ModelMemory("geom_rgba")

    def begin_episode(self, model: mujoco.MjModel, renderer: Renderer, episode: int) -> None:
        """Tint the scene of ``episode``."""
        self._memory.restore(model)
        entries = self.colours.entries
        tint_bare(model, entries[colour_index(self.seed, episode, len(entries))]["self_rgb"])


class TableScene(BaseScene):
    """Another picture covers the table every episode.

    Args:
        difficulty: of the pictures.
        seed: of the environment.
    """

    def __init__(self, difficulty: str, seed: int) -> None:
        self.difficulty, self.seed = difficulty, seed

    def begin_episode(self, model: mujoco.MjModel, renderer: Renderer, episode: int) -> None:
        """Cover the table of ``episode``."""
        fill_texture(model, renderer, TABLE, episode_table(model, self.difficulty, self.seed, episode))


def tint_bare(model: mujoco.MjModel, rgb: RGB) -> None:
    """Give the geoms without a colour of their own a colour, floats in [0, 1]."""
    bare = (model.geom_rgba == np.array(_UNCOLOURED, np.float32)).all(axis=1)
    model.geom_rgba[bare] = (*rgb, 1.0)


def episode_table(model: mujoco.MjModel, difficulty: str, seed: int, episode: int) -> np.ndarray:
    """Return the picture of the table in an episode, uint8 (side, side, 3)."""
    rng = counter_rng(seed, f"level/table/{difficulty}", episode)
    return table_picture(difficulty, int(rng.integers(TABLES)), int(model.tex_width[model.tex(TABLE).id]))


def axis_parts(level: Level, seed: int, objects: ColourTable | None) -> list[Scene]:
    """Return the scenes of a level's axes; where it shows videos, the lights move too.

    Args:
        level: one that the Adroit domains support.
        seed: of the environment.
        objects: colours of ``objects_color``; None where the level has none.
    """
    parts: list[Scene] = []
    if objects is not None:
        parts.append(TintScene(objects, seed))
    if level.table_texture is not None:
        parts.append(TableScene(level.table_texture, seed))
    moving = level.video or level.moving_light
    if level.light_position or level.light_intensity or level.light_color or moving:
        parts.append(HandLightScene(seed, level, moving))
    if level.cam_pos or level.cam_angle or level.cam_fov:
        parts.append(HandCameraScene(seed, level))
    return parts


def table_facts(difficulty: str) -> dict[str, Any]:
    """Return what a result says of the pictures on the table."""
    return {"pictures": TABLES, "name": f"procedural-{difficulty}-v{VERSION}"}


def describe_axes(level: Level) -> dict[str, Any]:
    """Return the constants of a level's axes under their names, as results record them."""
    ranges: dict[str, tuple[str, dict[str, Any]]] = {
        "light_position": ("metres_within", LIGHT_POSITION),
        "light_intensity": ("factor_from_to", LIGHT_INTENSITY),
        "light_color": ("added_within", LIGHT_COLOR),
        "cam_pos": ("metres_within", CAM_POS),
        "cam_angle": ("quaternion_within", CAM_ANGLE),
        "cam_fov": ("degrees_from_below", CAM_FOV),
    }
    facts: dict[str, Any] = {}
    for axis, (what, table) in ranges.items():
        if (difficulty := getattr(level, axis)) is not None:
            value = table[difficulty]
            facts[axis] = {what: list(value) if isinstance(value, tuple) else value}
    moving = level.moving_light or level.video
    if moving is not None:
        facts["moving_light"] = dataclasses.asdict(MOVING_LIGHT[moving])
    if level.table_texture is not None:
        facts["table_texture"] = table_facts(level.table_texture)
    return facts
