"""The levels of RL-ViGen and SAM-G on the Adroit scenes: other colours and tables, videos, a moving light.

Every level but ``train`` takes the ground away, tints all that has no colour of its own (the hand, the door,
the table), and covers the table with one of ten pictures. ``color_*`` paint the sky too; ``video_*`` show a
clip in it and move the light. Unlike on DMControl both difficulties do so, the tint is part of the level
under either protocol, and the key is the one that the benchmark uses there: a purple that nothing else shows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from common.errors import ConfigError
from envs.adroit_axes import (
    GROUND,
    TABLE,
    axis_parts,
    describe_axes,
    episode_table,
    table_facts,
    tint_bare,
)
from envs.adroit_model import PURPLE
from envs.colors import RGB, SKYBOX, colour_bytes, colour_index, fill_texture
from envs.data import ColourTable
from envs.level_names import Level
from envs.scene import BaseScene, ModelMemory, Scene
from envs.video_background import ClipBank, ClipScene, background_pixels

if TYPE_CHECKING:
    import mujoco

    from envs.renderer import Renderer

KEY_PURPLE = colour_bytes(PURPLE)
KEYS = ("purple", "segmentation")


class DressScene(BaseScene):
    """Takes the ground away and dresses what is left: tint, table and sky of the episode.

    Args:
        colours: the table of colours; chosen per episode by ``colour_index``.
        difficulty: of the pictures on the table.
        seed: of the environment.
        sky: uint8 colour of the sky in every episode; None takes the table's.
    """

    def __init__(
        self,
        colours: ColourTable,
        difficulty: str,
        seed: int,
        sky: tuple[int, ...] | None = None,
    ) -> None:
        self.colours, self.difficulty, self.seed, self.sky = colours, difficulty, seed, sky
        self._memory = ModelMemory("geom_rgba")

    def begin_episode(self, model: mujoco.MjModel, renderer: Renderer, episode: int) -> None:
        """Dress the scene of ``episode``."""
        self._memory.restore(model)
        entry = self.colours.entries[colour_index(self.seed, episode, len(self.colours.entries))]
        table = episode_table(model, self.difficulty, self.seed, episode)
        dress(model, renderer, entry["self_rgb"], self.sky or colour_bytes(entry["skybox_rgb"]), table)


def dress(
    model: mujoco.MjModel,
    renderer: Renderer,
    tint: RGB,
    sky: Sequence[int],
    table: Sequence[int] | np.ndarray,
) -> None:
    """Take the ground of an Adroit scene away, tint what has no colour of its own, paint sky and table.

    Args:
        model: the live model, in its own colours.
        renderer: is told about the textures.
        tint: floats in [0, 1].
        sky: uint8 RGB.
        table: one colour, uint8 RGB, or a picture, uint8 (side, side, 3).
    """
    tint_bare(model, tint)
    model.geom_rgba[model.geom(GROUND).id, 3] = 0.0
    fill_texture(model, renderer, SKYBOX, sky)
    fill_texture(model, renderer, TABLE, table)


class SkyVideoScene(ClipScene):
    """Replaces the sky; clips as of ``ClipScene``.

    Args:
        bank: the clips, at observation size.
        key: ``purple`` replaces the pixels of exactly that colour, as published; ``segmentation`` those that
            the renderer calls sky.
    """

    def __init__(self, bank: ClipBank, key: str) -> None:
        super().__init__(bank)
        self.key = key

    def replaced(self, frame: np.ndarray, render_segmentation: Callable[[], np.ndarray]) -> np.ndarray:
        """Return the pixels of the sky."""
        if self.key == "segmentation":
            return background_pixels(render_segmentation(), np.empty(0, np.int32))
        return (frame == np.array(KEY_PURPLE, np.uint8)).all(axis=-1)


def adroit_parts(
    level: Level,
    seed: int,
    key: str | None,
    colours: ColourTable | None,
    bank: ClipBank | None,
    objects: ColourTable | None = None,
) -> list[Scene]:
    """Return the scenes of a level on an Adroit task.

    Args:
        level: one that the Adroit domains support.
        seed: of the environment.
        key: the key asked for; None is ``purple``.
        colours: of the level's difficulty; None where it draws none.
        bank: the clips; None where it shows none.
        objects: colours of ``objects_color``; None where the level has none.

    Raises:
        ConfigError: another key.
    """
    chosen = check_key(key)
    difficulty = level.background_color or level.video
    if difficulty is None or colours is None:
        return axis_parts(level, seed, objects)
    if bank is None:
        return [DressScene(colours, difficulty, seed), *axis_parts(level, seed, objects)]
    dress = [DressScene(colours, difficulty, seed, KEY_PURPLE), SkyVideoScene(bank, chosen)]
    return [*dress, *axis_parts(level, seed, objects)]


def check_key(key: str | None) -> str:
    """Return the key of the videos of an Adroit task.

    Raises:
        ConfigError: it is none of ``KEYS``.
    """
    if key is not None and key not in KEYS:
        raise ConfigError(
            f"The videos of the Adroit tasks cannot be keyed by '{key}': their objects have that colour.",
            f"Leave the key out (purple), or choose one of: {', '.join(KEYS)}.",
        )
    return key or "purple"


def describe_adroit(level: Level, key: str | None) -> dict[str, Any]:
    """Return what a result must say about a level on an Adroit task besides its colours and clips."""
    facts, difficulty = describe_axes(level), level.background_color or level.video
    if difficulty is None:
        return facts
    facts |= {"agent_recoloured": True, "tables": table_facts(difficulty)}
    if level.video is not None:
        facts["key"] = check_key(key)
    return facts
