"""The reference pictures: one clear pose per domain, drawn with its exact masks and points.

SAM-G learns what to look for from one picture, its mask and a few points (reference pictures of the paper's
repository; these are our own renders). Nothing here is random, so anyone can draw the same files again.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from common.errors import unknown_choice
from envs.make import make_simulator
from envs.pixel_env import PixelEnv
from envs.renderer import load_mujoco
from envs.tasks import find_cameras, find_task

if TYPE_CHECKING:
    import mujoco


@dataclass(frozen=True)
class Pose:
    """How a domain is shown.

    Attributes:
        task: the task whose camera and model are used.
        joints: joint name -> position (a free joint: seven numbers); others keep the model's own.
        points: body names, each of which gets one point; ``world`` is a mark that no body carries.
        parts: groups of body names, each of which gets a mask of its own with all that its bodies carry.
        given_points: (x, y) of each of ``points`` where they are fixed beforehand.
        image_size: side of the picture in pixels.
        camera: name of the camera; None for the task's own.
    """

    task: str
    joints: dict[str, Any]
    points: tuple[str, ...]
    parts: tuple[tuple[str, ...], ...] = ()
    given_points: tuple[tuple[int, int], ...] = ()
    image_size: int = 84
    camera: str | None = None


POSES = {
    # Found by search, so that SAM-G's documented points (40, 24) (23, 68) (68, 57) hit torso and feet.
    "walker": Pose(
        "walker_walk",
        {
            "rooty": 0.14,
            "right_hip": 1.71,
            "right_knee": -1.13,
            "right_ankle": -0.03,
            "left_hip": -0.25,
            "left_knee": -0.22,
            "left_ankle": -0.37,
        },
        ("torso", "left_foot", "right_foot"),
        given_points=((40, 24), (23, 68), (68, 57)),
    ),
    "cartpole": Pose("cartpole_swingup", {"slider": 0.15, "hinge_1": 2.85}, ("cart", "pole_1")),
    "ball_in_cup": Pose(
        "cup_catch",
        {"cup_x": -0.05, "ball_x": 0.08, "ball_z": 0.04},
        ("ball", "cup"),
        parts=(("ball",), ("cup",)),
    ),
    "finger": Pose(
        "finger_spin",
        {"proximal": -0.7, "distal": -0.8, "hinge": 0.7},
        ("proximal", "distal", "spinner"),
        parts=(("proximal", "distal"), ("spinner",)),
    ),
    "cheetah": Pose("cheetah_run", {"rootz": -0.08}, ("torso", "bfoot", "ffoot")),
    "hopper": Pose(
        "hopper_stand",
        {"rootz": -0.19, "rooty": 0.1, "waist": -0.1, "hip": -0.9, "knee": 1.2, "ankle": -0.3},
        ("torso", "thigh", "foot"),
    ),
    "quadruped": Pose(
        "quadruped_walk",
        {"root": (0.0, 0.0, 0.55, 0.9689, 0.0, 0.0, 0.2474)},  # turned by half a radian: three feet show
        ("torso", "toe_front_left", "toe_front_right", "toe_back_left"),
    ),
    # The hand as an episode begins, the divisions of SAM-G's references.
    "door": Pose("adroit_door", {}, ("forearm", "palm", "door", "latch"), parts=(("door",), ("forearm",))),
    "hammer": Pose(
        "adroit_hammer",
        {},
        ("forearm", "palm", "Object", "nail_board"),
        parts=(("nail_board",), ("forearm", "Object")),
    ),
    "pen": Pose(
        "adroit_pen",
        {},
        ("forearm", "palm", "Object", "target"),
        parts=(("forearm", "Object"), ("target",)),
        image_size=160,
    ),
    "relocate": Pose(
        "adroit_relocate", {}, ("palm", "Object", "world"), parts=(("forearm", "Object"), ("world",))
    ),
}
# Further cameras that see a domain, from which it looks so different that each has a reference of its own.
VIEWS = {
    f"relocate_{camera}": dataclasses.replace(POSES["relocate"], camera=camera) for camera in ("cam1", "cam2")
}
_ALL = {**POSES, **VIEWS}


def references_of(domain: str) -> tuple[str, ...]:
    """Return the names of a domain's references: its own, and those of its task's other cameras."""
    if domain not in POSES:
        return ()
    return (domain, *(name for name, view in VIEWS.items() if view.task == POSES[domain].task))


@dataclass(frozen=True)
class ReferencePicture:
    """One drawn reference.

    Attributes:
        image: uint8 (H, H, 3) RGB in [0, 255], H as the pose says.
        mask: bool (H, H), everything that matters.
        parts: bool (M, H, H), the parts of it.
        points: (x, y) of each named body, on the mask.
    """

    image: np.ndarray
    mask: np.ndarray
    parts: np.ndarray
    points: list[tuple[int, int]]


def draw_reference(domain: str) -> ReferencePicture:
    """Draw the reference picture of a domain, or of one of ``VIEWS``.

    Raises:
        ConfigError: there is no pose for that domain.
    """
    if domain not in _ALL:
        raise unknown_choice("domain", domain, _ALL)
    pose = _ALL[domain]
    env = posing_env(domain)
    try:
        observation, info = env.observe()
        segmentation = env.renderer.render_segmentation(env.data)
        bodies = _body_of_each_pixel(env, segmentation)
        mask = info["foreground"]
        parts = part_masks(env, domain, mask, segmentation)
        points = list(pose.given_points) or [
            deepest_pixel(mask & (bodies == env.model.body(name).id)) for name in pose.points
        ]
    finally:
        env.close()
    return ReferencePicture(observation["pixels"], mask, parts, points)


def posing_env(domain: str) -> PixelEnv:
    """Return an environment of a domain, or of one of ``VIEWS``, in the pose of its reference.

    The caller closes it.
    """
    pose = _ALL[domain]
    task = find_task(pose.task)
    camera = find_cameras(task, pose.camera)
    env = make_simulator(task, image_size=pose.image_size, foreground=True, camera=camera)
    env.reset(seed=0)
    take_pose(env, pose)
    return env


def part_masks(
    env: PixelEnv, domain: str, foreground: np.ndarray, segmentation: np.ndarray | None = None
) -> np.ndarray:
    """Return where the parts of a divided object are visible now, bool (M, H, W), in the references' order.

    Args:
        env: an environment of the domain.
        domain: a key of ``POSES`` or ``VIEWS``.
        foreground: bool (H, W), the whole object.
        segmentation: int32 (H, W, 2), object id and type, of the same moment; None draws it.
    """
    if segmentation is None:
        segmentation = env.renderer.render_segmentation(env.data)
    bodies = _body_of_each_pixel(env, segmentation)
    groups = [_carried(env.model, group) for group in _ALL[domain].parts]
    masks = [np.isin(bodies, group) & foreground for group in groups]
    return np.array(masks, bool).reshape(-1, *foreground.shape)


def deepest_pixel(region: np.ndarray) -> tuple[int, int]:
    """Return (x, y) of the pixel farthest from the region's edge; of several, the nearest to its centre.

    Args:
        region: bool (H, W), not empty.
    """
    rows, columns = np.nonzero(region)
    outside = np.argwhere(~np.pad(region, 1)) - 1
    inside = np.stack([rows, columns], 1)
    depth = np.min(((inside[:, None] - outside[None]) ** 2).sum(-1), axis=1)
    offset = ((inside - inside.mean(0)) ** 2).sum(1)
    best = np.lexsort((offset, -depth))[0]
    return int(columns[best]), int(rows[best])


def _carried(model: mujoco.MjModel, names: tuple[str, ...]) -> list[int]:
    """Return the ids of the named bodies and of all that hang on them; of the world itself alone."""
    found = {model.body(name).id for name in names}
    for body in range(1, model.nbody):  # parents come first
        parent = int(model.body_parentid[body])
        if parent and parent in found:
            found.add(body)
    return sorted(found)


def take_pose(env: PixelEnv, pose: Pose) -> None:
    """Put the agent of ``env`` into ``pose``, at rest."""
    model, data = env.model, env.data
    data.qpos[:] = model.qpos0
    data.qvel[:] = 0.0
    for name, value in pose.joints.items():
        data.joint(name).qpos[:] = value
    load_mujoco().mj_forward(model, data)


def _body_of_each_pixel(env: PixelEnv, segmentation: np.ndarray) -> np.ndarray:
    """Return int (H, W): the body that each pixel shows, or whose mark it shows; else 0, the world."""
    types = load_mujoco().mjtObj
    bodies = np.zeros(segmentation.shape[:2], int)
    for kind, owner in ((types.mjOBJ_GEOM, env.model.geom_bodyid), (types.mjOBJ_SITE, env.model.site_bodyid)):
        shown = segmentation[..., 1] == int(kind)
        bodies[shown] = owner[segmentation[shown, 0]]
    return bodies
