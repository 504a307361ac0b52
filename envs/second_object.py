"""A second agent in the picture: a robot of another domain beside the task's own, drawn and not simulated.

This answers a question that SAM-G leaves open: whether a masker keeps to the object of its reference when
something alike is present. The rival stands in the picture's left or right part, a little behind the agent,
seen from the side from which its own camera sees it, and sways. It follows the camera, so it never leaves the
picture. It casts shadows and may be hidden by the agent or hide part of it; to the labels it is nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from common.seeding import counter_rng
from envs.renderer import load_mujoco
from envs.scene import BaseScene

if TYPE_CHECKING:
    import mujoco

    from envs.dmc import DMCEnv
    from envs.renderer import Renderer

RIVALS = ("cheetah", "hopper", "quadruped", "walker")  # each episode shows one that is not the task's own
RIVAL_SIZE = 0.45  # of half the picture: from its centre of mass to its farthest part
RIVAL_SIDE = 0.55  # of half the picture: from the picture's middle, to the left or to the right
RIVAL_DEPTH = 1.15  # of the distance of the agent
RIVAL_SWAY = 0.25  # radians by which its joints swing
RIVAL_PERIOD = 60  # agent steps of a swing
UNLABELLED = -2  # object id and type in segmentations: neither a geom of the task nor the sky


@dataclass(frozen=True)
class Part:
    """One geom of a rival.

    Attributes:
        geom: its number in the rival's model.
        kind: MuJoCo's geom type.
        size: float (3,) in metres.
        rgba: float32 (4,) in [0, 1].
        shine: specular, shininess, reflectance and emission of its material.
    """

    geom: int
    kind: int
    size: np.ndarray
    rgba: np.ndarray
    shine: tuple[float, float, float, float]


class Rival:
    """A robot of another domain that poses for pictures."""

    def __init__(self, domain: str) -> None:
        from envs.dmc import DMCEnv
        from envs.reference_scene import POSES, take_pose
        from envs.tasks import find_task

        self._env: DMCEnv = DMCEnv(find_task(POSES[domain].task))
        take_pose(self._env, POSES[domain])
        self._rest = np.array(self._env.data.qpos)
        model = self._env.model
        hinges = model.jnt_type == int(load_mujoco().mjtJoint.mjJNT_HINGE)
        self._swaying = np.array(model.jnt_qposadr[hinges])
        self.parts = [_part(model, int(geom)) for geom in np.flatnonzero(self._env.foreground_geoms())]
        camera = find_task(POSES[domain].task).camera
        self._eye = np.array(self._env.data.cam_xpos[camera])
        self._axes = np.array(self._env.data.cam_xmat[camera]).reshape(3, 3)
        positions, _ = self._seen()
        reach = model.geom_rbound[[part.geom for part in self.parts]]
        self._centre = positions.mean(axis=0)
        self.extent = float((np.linalg.norm((positions - self._centre)[:, :2], axis=1) + reach).max())

    def pose(self, agent_step: int, phases: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the places of its parts at a moment, as its own camera sees them.

        Args:
            agent_step: of the episode.
            phases: float (P,), P >= number of its joints, in radians.

        Returns:
            positions float (G, 3) about its middle, in metres, and rotations float (G, 3, 3); x is to the
            right, y up, z towards the camera.
        """
        angle = 2 * np.pi * agent_step / RIVAL_PERIOD + phases[: len(self._swaying)]
        self._env.data.qpos[:] = self._rest
        self._env.data.qpos[self._swaying] += RIVAL_SWAY * np.sin(angle)
        load_mujoco().mj_kinematics(self._env.model, self._env.data)
        positions, rotations = self._seen()
        return positions - self._centre, rotations

    def _seen(self) -> tuple[np.ndarray, np.ndarray]:
        geoms = [part.geom for part in self.parts]
        positions = (np.array(self._env.data.geom_xpos[geoms]) - self._eye) @ self._axes
        return positions, self._axes.T @ np.array(self._env.data.geom_xmat[geoms]).reshape(-1, 3, 3)


class SecondObjectScene(BaseScene):
    """Every episode shows a rival on one side of the picture.

    Args:
        domain: of the task; its own robot is never the rival.
        seed: of the environment.
    """

    def __init__(self, domain: str, seed: int) -> None:
        self.seed = seed
        self.rivals = tuple(name for name in RIVALS if name != domain)
        self._made: dict[str, Rival] = {}
        self._rival: Rival | None = None
        self._side, self._phases, self._step = 1.0, np.zeros(0), 0
        self._model: mujoco.MjModel | None = None
        self._data: mujoco.MjData | None = None
        self._camera, self._agent = 0, 0

    def begin_episode(self, model: mujoco.MjModel, renderer: Renderer, episode: int) -> None:
        """Choose the rival of ``episode`` and its side."""
        rng = counter_rng(self.seed, "level/second_object", episode)
        name = str(rng.choice(self.rivals))
        self._side = float(rng.choice([-1.0, 1.0]))
        self._phases = rng.uniform(0.0, 2 * np.pi, 64)
        if name not in self._made:
            self._made[name] = Rival(name)
        self._rival, self._model, self._camera = self._made[name], model, renderer.camera
        self._agent = int(np.flatnonzero(model.body_weldid != 0)[0])
        renderer.scene_edits.append(self._add)

    def begin_frame(self, data: mujoco.MjData, agent_step: int, control_step: int) -> None:
        """Remember the moment."""
        self._data, self._step = data, agent_step

    def _add(self, scene: mujoco.MjvScene) -> None:
        """Append the rival to what is listed for drawing."""
        rival, model, data = self._rival, self._model, self._data
        if rival is None or model is None or data is None:
            raise ValueError("begin_episode and begin_frame must be called before anything is drawn")
        eye, axes = data.cam_xpos[self._camera], data.cam_xmat[self._camera].reshape(3, 3)
        distance = float((eye - data.subtree_com[self._agent]) @ axes[:, 2])
        half = distance * np.tan(np.radians(model.cam_fovy[self._camera]) / 2)  # of the picture, in metres
        scale = RIVAL_DEPTH * half * RIVAL_SIZE / rival.extent
        middle = np.array([self._side * RIVAL_DEPTH * half * RIVAL_SIDE, 0.0, -RIVAL_DEPTH * distance])
        positions, rotations = rival.pose(self._step, self._phases)
        positions = eye + (middle + scale * positions) @ axes.T
        rotations = axes @ rotations
        heights = [_lowest(*part) for part in zip(rival.parts, rotations, strict=True)]
        positions[:, 2] -= (positions[:, 2] + scale * np.array(heights)).min()  # it stands on the floor
        for part, position, rotation in zip(rival.parts, positions, rotations, strict=True):
            _append(scene, part, scale * part.size, position, rotation)


def _part(model: mujoco.MjModel, geom: int) -> Part:
    """Describe one geom of a model as it is drawn."""
    material = int(model.geom_matid[geom])
    rgba = model.geom_rgba[geom] if material < 0 else model.mat_rgba[material]
    shine = (0.5, 0.5, 0.0, 0.0)
    if material >= 0:
        names = ("mat_specular", "mat_shininess", "mat_reflectance", "mat_emission")
        first, second, third, fourth = (float(getattr(model, name)[material]) for name in names)
        shine = (first, second, third, fourth)
    size = np.array(model.geom_size[geom], np.float64)
    return Part(geom, int(model.geom_type[geom]), size, np.array(rgba, np.float32), shine)


def _lowest(part: Part, rotation: np.ndarray) -> float:
    """Return how far below its centre a geom reaches in the world, in metres (a negative number)."""
    kinds = load_mujoco().mjtGeom
    radius, half, _ = part.size
    upright = abs(float(rotation[2, 2]))
    if part.kind == int(kinds.mjGEOM_SPHERE):
        return -float(radius)
    if part.kind == int(kinds.mjGEOM_CAPSULE):
        return -float(radius + half * upright)
    if part.kind == int(kinds.mjGEOM_CYLINDER):
        return -float(half * upright + radius * np.sqrt(max(0.0, 1 - upright**2)))
    if part.kind == int(kinds.mjGEOM_ELLIPSOID):
        return -float(np.linalg.norm(rotation[2] * part.size))
    return -float(np.abs(rotation[2] * part.size).sum())


def _append(
    scene: mujoco.MjvScene, part: Part, size: np.ndarray, position: np.ndarray, rotation: np.ndarray
) -> None:
    """List one more geom for drawing; in segmentations it is ``UNLABELLED``."""
    library = load_mujoco()
    if scene.ngeom >= scene.maxgeom:
        raise ValueError("the list of what is drawn is full")
    drawn = scene.geoms[scene.ngeom]
    library.mjv_initGeom(drawn, part.kind, size, position, rotation.reshape(9), part.rgba)
    drawn.category = int(library.mjtCatBit.mjCAT_DYNAMIC)  # decorations would cast no shadow
    drawn.specular, drawn.shininess, drawn.reflectance, drawn.emission = part.shine
    drawn.objtype, drawn.objid, drawn.segid = UNLABELLED, UNLABELLED, scene.ngeom
    scene.ngeom += 1
