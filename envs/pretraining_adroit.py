"""Frames with exact labels of the Adroit scenes for pretraining the ``tiny`` masker.

Each pose is drawn in the scene's own colours, in random ones (sky, table, whatever has no colour of its own,
the light elsewhere), and before a flat key colour without the ground, as the levels' videos are keyed. No
colour table, no clip and no table picture of a level is used.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from common.errors import InputError
from common.seeding import counter_rng
from envs.adroit_levels import GROUND, KEY_PURPLE, TABLE, dress
from envs.colors import SKYBOX, colour_bytes, fill_texture, texture_shape, texture_texels
from envs.make import make_simulator
from envs.pixel_env import PixelEnv, foreground_mask
from envs.pretraining_frames import FLOOR, OTHER, PART, SKY, SMALLEST, label_geoms, random_rgb
from envs.reference_scene import VIEWS, part_masks, references_of
from envs.renderer import load_mujoco
from envs.scene import ModelMemory
from envs.tasks import find_task

HELD = 10  # control steps between two pictures of an episode
_TABLE_BODY = "table"
_OBJECT = "Object"
# What a scene sets besides the hand: joint -> how often it is moved.
_SET = {"door": {"door_hinge": 0.5, "latch": 0.5}, "hammer": {"nail_dir": 0.7}}
_FREE_JOINTS = ("OBJTx", "OBJTy", "OBJTz", "OBJRx", "OBJRy", "OBJRz")
_KNOTS = 6  # of the random shades of a table


def collect_adroit(domain: str, count: int, seed: int, size: int = 84) -> dict[str, np.ndarray]:
    """Render ``count`` poses of an Adroit scene; all its observing cameras take turns.

    Args:
        domain: ``door``, ``hammer``, ``pen`` or ``relocate``.
        count: how many poses.
        seed: of poses and colours.
        size: height and width in pixels.

    Returns:
        As ``envs.pretraining_frames.collect_domain``; the ground is labelled sky (the levels take it away),
        the table floor, and the parts are those of the references.

    Raises:
        DependencyError: the package that holds the scenes is not installed.
        InputError: the hand is hardly ever in the picture.
    """
    task = find_task(f"adroit_{domain}")
    rng = counter_rng(seed, f"poses/{domain}")
    env = make_simulator(task, seed=seed, image_size=size, action_repeat=HELD)
    others = (VIEWS[name].camera for name in references_of(domain)[1:])
    cameras = [env.model.camera(name).id for name in others]
    cameras += [task.camera] * max(1, len(cameras))
    try:
        paints, found = _Paints(env), []
        for tried, _ in enumerate(adroit_poses(domain, env, rng)):
            env.renderer.look_through(cameras[tried % len(cameras)])
            labels = _labels(env, domain)
            if min((labels == PART).sum(), (labels == PART + 1).sum()) >= SMALLEST:
                found.append({"labels": labels, **paints.draw(rng)})
            if len(found) == count:
                return {key: np.stack([pose[key] for pose in found]) for key in found[0]}
            if tried > 20 * count + 100:
                raise InputError(
                    f"The hand of adroit_{domain} is in view in only {len(found)} of {tried} poses.",
                    "Check the camera of its task.",
                )
    finally:
        env.close()
    raise AssertionError("poses never end")


def adroit_poses(domain: str, env: PixelEnv, rng: np.random.Generator) -> Iterator[None]:
    """Put ``env`` into one pose after the other, without end: from episodes of noise, and random ones.

    Args:
        domain: ``door``, ``hammer``, ``pen`` or ``relocate``.
        env: an environment of it; it is reset and stepped.
        rng: decides everything.
    """
    while True:
        env.reset(seed=int(rng.integers(2**31)))
        if rng.random() < 0.45:
            yield from _rollout(env, rng)
        else:
            for _ in range(3):
                _take_random_pose(domain, env, rng)
                yield


def _rollout(env: PixelEnv, rng: np.random.Generator) -> Iterator[None]:
    """Yield every agent step of an episode under drifting actions."""
    size = env.action_space.shape
    centre, spread = rng.normal(0, 0.4, size), rng.uniform(0.05, 0.6)
    action = centre.copy()
    for _ in range(int(rng.integers(1, 6))):
        action = centre + 0.6 * (action - centre) + spread * rng.normal(0, 1, size)
        _, _, terminated, truncated, _ = env.step(np.clip(action, -1, 1).astype(np.float32))
        yield
        if terminated or truncated:
            return


def _take_random_pose(domain: str, env: PixelEnv, rng: np.random.Generator) -> None:
    """Scatter the joints about their rest, move what can be moved, put tool or ball into the hand or not."""
    model, data, library = env.model, env.data, load_mujoco()
    qpos = model.qpos0.copy()
    spread = rng.choice([0.08, 0.2, 0.4])
    for joint in range(model.njnt):
        if model.jnt_limited[joint]:
            low, high = model.jnt_range[joint]
            at = model.jnt_qposadr[joint]
            qpos[at] = np.clip(qpos[at] + spread * (high - low) * rng.normal(), low, high)
    for name, share in _SET.get(domain, {}).items():
        low, high = model.joint(name).range
        at = model.joint(name).qposadr[0]
        qpos[at] = rng.uniform(max(low, 0.0), high) if rng.random() < share else 0.0
    data.qpos[:], data.qvel[:] = qpos, 0.0
    if domain != "door":
        _move_object(env, domain, rng)
    library.mj_forward(model, data)


def _move_object(env: PixelEnv, domain: str, rng: np.random.Generator) -> None:
    """Put the free object where the hand would hold it, or near where it begins."""
    model, data = env.model, env.data
    places = [model.joint(name).qposadr[0] for name in _FREE_JOINTS]
    held = rng.random() < 0.5
    load_mujoco().mj_forward(model, data)
    if held and domain != "pen":  # the pen begins in the hand
        shift = data.site("S_grasp").xpos - data.body(_OBJECT).xpos + rng.normal(0, 0.02, 3)
    else:
        shift = rng.normal(0, 0.015, 3)
    turn = rng.normal(0, 0.5 if held else 0.15, 3)
    data.qpos[places] = [*shift, *turn]


def _labels(env: PixelEnv, domain: str) -> np.ndarray:
    """Return uint8 (H, W): sky and ground, table, first and second part, anything else."""
    model = env.model
    segmentation = env.renderer.render_segmentation(env.data)
    table = np.full(model.ngeom, OTHER, np.uint8)
    table[model.geom_bodyid == model.body(_TABLE_BODY).id] = FLOOR
    table[model.geom(GROUND).id] = SKY
    labels = label_geoms(segmentation, table)
    foreground = foreground_mask(segmentation, env.foreground_geoms(), env.foreground_sites())
    first, second = part_masks(env, domain, foreground, segmentation)
    labels[foreground] = PART
    labels[second & ~first] = PART + 1
    return labels


class _Paints:
    """Draws the present pose of an environment in three paints."""

    def __init__(self, env: PixelEnv) -> None:
        self.env = env
        self.memory = ModelMemory("geom_rgba", "light_pos")
        model = env.model
        self.own = {name: texture_texels(model, model.tex(name).id).copy() for name in (SKYBOX, TABLE)}

    def draw(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Return ``clean``, ``recoloured``, ``keyed``, ``key_mask`` of this moment."""
        env, model = self.env, self.env.model
        frames = {"clean": env.renderer.render(env.data)}
        key = KEY_PURPLE if rng.random() < 0.6 else colour_bytes(random_rgb(rng))
        for name, sky in (("recoloured", colour_bytes(random_rgb(rng))), ("keyed", key)):
            self.memory.restore(model)
            ground = model.geom_rgba[model.geom(GROUND).id].copy()
            tinted = name == "recoloured" or rng.random() < 0.6
            tint = random_rgb(rng) if tinted else (0.5, 0.5, 0.5)
            dress(
                model, env.renderer, tint, sky, self._table(rng) if rng.random() < 0.7 else self._own_table()
            )
            if name == "recoloured" and rng.random() < 0.3:
                model.geom_rgba[model.geom(GROUND).id] = ground
            model.light_pos[:] += rng.uniform(-0.4, 0.4, 3) * (rng.random() < 0.5)
            frames[name] = self._render()
        self.memory.restore(model)
        for name, texels in self.own.items():
            fill_texture(model, env.renderer, name, texels.reshape(texture_shape(model, name)))
        load_mujoco().mj_forward(model, env.data)
        key_mask = (frames["keyed"] == np.array(key, np.uint8)).all(-1)
        return {**frames, "key_mask": key_mask}

    def _render(self) -> np.ndarray:
        load_mujoco().mj_forward(self.env.model, self.env.data)  # lights move with the kinematics
        return self.env.renderer.render(self.env.data)

    def _own_table(self) -> np.ndarray:
        return self.own[TABLE].reshape(texture_shape(self.env.model, TABLE))

    def _table(self, rng: np.random.Generator) -> np.ndarray:
        """Return random shades between two colours, uint8 (height, width, 3)."""
        height, width, channels = texture_shape(self.env.model, TABLE)
        if rng.random() < 0.3:
            return np.broadcast_to(
                np.array(colour_bytes(random_rgb(rng)), np.uint8), (height, width, channels)
            )
        knots = rng.random((_KNOTS, _KNOTS)).astype(np.float32)
        side = (width, height)
        share = cv2.resize(knots, side, interpolation=cv2.INTER_CUBIC).clip(0, 1)[..., None]
        first, second = (255 * np.array(random_rgb(rng), np.float32) for _ in range(2))
        return (first * share + second * (1 - share)).astype(np.uint8)
