"""Frames for the mask benchmark: rendered with exact labels, cached; and two-object pictures made of them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.planned_poses import load_planned
from common.files import atomic_path
from common.seeding import counter_rng
from envs import make_env
from envs.pretraining_adroit import HELD, adroit_poses
from envs.pretraining_frames import POSE_TASKS, poses
from envs.reference_scene import POSES, part_masks
from envs.renderer import load_mujoco
from envs.tasks import ADROIT_DOMAINS as HAND_DOMAINS
from envs.tasks import find_task

DOMAINS = tuple(POSE_TASKS)
LEVELS = {
    "clean": "train",
    "color_hard": "color_hard",
    "video_easy": "video_easy",
    "video_hard": "video_hard",
}
_SMALLEST = 12  # pixels: what shows less of the object is no test
_SIDE = 26  # pixels by which a rival that stands beside is moved
_FORMAT = 2  # of the cache


@dataclass(frozen=True)
class Frames:
    """Frames of one domain on one level.

    Attributes:
        pixels: uint8 (N, H, H, 3), H as the domain's reference has it: 84, the pen 160.
        masks: bool (N, H, H), the simulator's foreground.
        parts: bool (N, M, H, H), its parts in the references' order; M is 0 for undivided objects.
        planned: bool (N,), whether the pose is a competent controller's.
    """

    pixels: np.ndarray
    masks: np.ndarray
    parts: np.ndarray
    planned: np.ndarray


def frames_of(
    domain: str, level: str, count: int, seed: int, source: str, data_dir: str | None, cache: Path
) -> Frames:
    """Render ``count`` frames, or read what an earlier call with the same arguments rendered.

    Args:
        domain: one of ``DOMAINS`` or ``HAND_DOMAINS``.
        level: a key of ``LEVELS``, or any level of the environment.
        count: how many.
        seed: of poses, colours and clips; pretraining never uses it.
        source: ``dmcgb`` or ``procedural``.
        data_dir: where the DMC-GB files are; None asks the environment.
        cache: folder of the cache.
    """
    path = cache / f"frames{_FORMAT}-{domain}-{level}-{source}-{count}-s{seed}.npz"
    if not path.exists():
        render = _render_hand if domain in HAND_DOMAINS else _render
        made = render(domain, level, count, seed, source, data_dir)
        with atomic_path(path) as temporary:
            np.savez(temporary, **{field.name: getattr(made, field.name) for field in fields(Frames)})
    with np.load(path) as stored:
        return Frames(**{field.name: stored[field.name] for field in fields(Frames)})


def _render(domain: str, level: str, count: int, seed: int, source: str, data_dir: str | None) -> Frames:
    """Draw a new scene every three poses; a third of the poses is a planner's."""
    from dm_control import suite

    task = find_task(POSE_TASKS[domain])
    wearing = LEVELS.get(level, level)
    env: Any = make_env(POSE_TASKS[domain], wearing, source, data_dir, seed=seed, foreground=True)
    rng = counter_rng(seed, f"benchmark/{domain}/{level}")
    others = poses(domain, suite.load(task.domain, task.task, task_kwargs={"random": seed + 7}), rng)
    planned = load_planned(domain)
    found: list[tuple[np.ndarray, ...]] = []
    for tried in range(20 * count):
        if len(found) == count:
            break
        if tried % 3 == 0:
            env.episode = tried // 3
            env.reset(seed=seed * 1000 + tried)
        third = tried % 3 == 2
        env.step(np.zeros(env.action_space.shape, np.float32))  # the clip goes on
        env.data.qpos[:] = planned[rng.integers(len(planned))] if third else next(others)
        load_mujoco().mj_forward(env.model, env.data)
        observation, info = env.observe()
        mask = info["foreground"]
        if mask.sum() >= _SMALLEST:
            parts = part_masks(env, domain, mask)
            found.append((observation["pixels"], mask, parts, np.array(third)))
    env.close()
    return Frames(*(np.stack(column) for column in zip(*found, strict=True)))


def _render_hand(domain: str, level: str, count: int, seed: int, source: str, data_dir: str | None) -> Frames:
    """Draw poses of noise and random ones, a new scene for every episode or three poses."""
    env: Any = make_env(
        f"adroit_{domain}",
        LEVELS.get(level, level),
        source,
        data_dir,
        seed=seed,
        foreground=True,
        action_repeat=HELD,
        image_size=POSES[domain].image_size,
    )
    found: list[tuple[np.ndarray, ...]] = []
    for _ in adroit_poses(domain, env, counter_rng(seed, f"benchmark/{domain}/{level}")):
        observation, info = env.observe()
        mask = info["foreground"]
        if mask.sum() >= _SMALLEST:
            found.append((observation["pixels"], mask, part_masks(env, domain, mask), np.array(False)))
        if len(found) == count:
            break
    env.close()
    return Frames(*(np.stack(column) for column in zip(*found, strict=True)))


def paste(own: Frames, rival: Frames, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Paste rivals beside, in front of and behind the own agents in turn.

    Returns:
        Frames uint8 (N, 84, 84, 3), the own and the rival's visible pixels, bool (N, 84, 84); pictures that
        hide nearly all of one are left out.
    """
    rng = counter_rng(seed, "paste")
    frames, mine, theirs = [], [], []
    for index in range(len(own.pixels)):
        frame, mask = own.pixels[index].copy(), own.masks[index]
        which = index % len(rival.pixels)
        other, shape = rival.pixels[which], rival.masks[which]
        centre, middle = (np.argwhere(m).mean(0)[1] for m in (mask, shape))
        side = _SIDE if centre < 42 else -_SIDE
        shift = round(centre - middle) + side if index % 3 == 0 else int(rng.integers(-8, 9))
        other, shape = np.roll(other, shift, 1), np.roll(shape, shift, 1)
        edge = np.arange(84) - shift
        shape = shape & ((edge >= 0) & (edge < 84))
        if index % 3 == 2:
            shape = shape & ~mask
        frame[shape] = other[shape]
        if (mask & ~shape).sum() >= _SMALLEST and shape.sum() >= _SMALLEST:
            frames.append(frame)
            mine.append(mask & ~shape)
            theirs.append(shape)
    return np.stack(frames), np.stack(mine), np.stack(theirs)
