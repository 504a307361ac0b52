"""``make_env``: from the names in a configuration to an environment."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

from common.errors import ConfigError
from envs.pixel_env import PixelEnv, episode_seed
from envs.scene import Scene
from envs.tasks import Task, find_cameras, find_task

__all__ = ["episode_seed", "make_env"]


def make_env(
    task: str,
    level: str = "train",
    source: str = "dmcgb",
    data_dir: str | os.PathLike[str] | None = None,
    seed: int = 0,
    image_size: int = 84,
    action_repeat: int = 2,
    foreground: bool = False,
    protocol: str = "dmcgb",
    key: str | None = None,
    colors: str | None = None,
    fast_render: bool = False,
    camera: str | Sequence[str] | None = None,
    horizon: int | None = None,
) -> PixelEnv:
    """Make an environment.

    Args:
        task: a name of ``envs.task_names()``, such as ``walker_walk``, ``cup_catch`` or ``adroit_door``.
        level: ``train``, ``color_easy``, ``color_hard``, ``video_easy``, ``video_hard``, another name of
            ``envs.level_names``, or several joined by ``+``: ``video_hard+cam_pos_easy``.
        source: where backgrounds come from: ``dmcgb`` (the benchmark's data) or ``procedural`` (generated).
        data_dir: folder of the benchmark's data; None looks at ``SAMG_DATA`` and the cache.
        seed: with the episode's index it decides physics, colours and clips.
        image_size: height and width of the pictures in pixels.
        action_repeat: control steps per agent step.
        foreground: whether ``info["foreground"]`` holds the simulator's mask, bool (H, W).
        protocol: ``dmcgb`` or ``samg``: whose rules of colours and keys hold.
        key: how video backgrounds are keyed, instead of the protocol's way.
        colors: which parts are recoloured, instead of the protocol's.
        fast_render: draw cheaper shadows (about half the CPU time, not exactly the benchmark's pictures).
        camera: name of an Adroit task's camera instead of its own; or names of several, which all see every
            moment: pixels are then (V, H, W, 3), in their order.
        horizon: control steps of an episode instead of the task's own (recorded episodes may be longer).

    Returns:
        a ``gymnasium.Env`` with observations ``{"pixels": uint8 (H, W, 3)}``, for Adroit also
        ``"state": float32 (24,)``, and actions float32 in [-1, 1].

    Raises:
        ConfigError: an unknown task, level, source, protocol, key or camera, a level that the domain does not
            support, or an impossible number.
        InputError: the level's data are missing or unreadable.
        DependencyError: rendering does not work on this machine.
    """
    found = find_task(task)
    observer = find_cameras(found, camera)
    _require_positive("image_size", image_size)
    _require_positive("action_repeat", action_repeat)
    if horizon is not None:
        _require_positive("horizon", horizon)
        found = dataclasses.replace(found, horizon=horizon)
    from envs.levels import build_scene, get_level

    chosen = get_level(level)
    scene = build_scene(
        chosen,
        found.domain,
        source=source,
        data_dir=data_dir,
        seed=seed,
        protocol=protocol,
        key=key,
        colors=colors,
        image_size=image_size,
    )
    options: dict[str, Any] = {
        "image_size": image_size,
        "action_repeat": action_repeat,
        "foreground": foreground,
        "fast_render": fast_render,
    }
    if camera is not None and chosen.cam_id not in (None, observer):
        raise ConfigError(
            f"The level '{chosen.name}' chooses another camera than camera={camera}.",
            "Give only one of them.",
        )
    observer = observer if chosen.cam_id is None else chosen.cam_id
    return make_simulator(found, scene, seed=seed, camera=observer, **options)


def make_simulator(task: Task, scene: Scene | None = None, **options: Any) -> PixelEnv:
    """Make the environment of a task's simulator, which is loaded only now; options are ``PixelEnv``'s."""
    if task.suite == "adroit":
        from envs.adroit import AdroitEnv

        return AdroitEnv(task, scene, **options)
    from envs.dmc import DMCEnv

    return DMCEnv(task, scene, **options)


def _require_positive(name: str, value: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{name} must be a whole number of at least 1, not {value!r}.", f"Set {name}.")
