"""The agent drawn smaller or larger than it is; the physics, the floor and the sky know nothing of it.

This answers a question that SAM-G leaves open: what a masker makes of an object whose size is not that of its
reference. Only the list of what is drawn is edited, so labels drawn from it (the exact foreground) fit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from common.seeding import counter_rng
from envs.pixel_env import foreground_geoms
from envs.renderer import load_mujoco
from envs.scene import BaseScene
from envs.tasks import targets_of

if TYPE_CHECKING:
    import mujoco

    from envs.renderer import Renderer

OBJECT_SIZE = {"easy": (0.85, 1.15), "hard": (0.6, 1.3)}  # one of the two per episode
# These stand on the floor and go on standing on it; all others keep the place of their first moving body.
_STANDING = ("cheetah", "hopper", "humanoid", "humanoid_CMU", "quadruped", "walker")


class ObjectSizeScene(BaseScene):
    """Every episode draws the foreground at another size, scaled as a whole about one point.

    Args:
        domain: decides which geoms are foreground, and the point.
        seed: of the environment.
        difficulty: a key of ``OBJECT_SIZE``.
    """

    def __init__(self, domain: str, seed: int, difficulty: str) -> None:
        self.domain, self.seed, self.difficulty = domain, seed, difficulty
        self._scale = 1.0
        self._model: mujoco.MjModel | None = None
        self._data: mujoco.MjData | None = None
        self._scaled: set[tuple[int, int]] = set()
        self._root = 0

    def begin_episode(self, model: mujoco.MjModel, renderer: Renderer, episode: int) -> None:
        """Choose the size of ``episode``."""
        rng = counter_rng(self.seed, f"level/object_size/{self.difficulty}", episode)
        self._scale = float(rng.choice(OBJECT_SIZE[self.difficulty]))
        if self._model is not model:
            self._model = model
            self._scaled = _drawn_objects(model, targets_of(self.domain))
            self._root = int(np.flatnonzero(model.body_weldid != 0)[0])
        renderer.scene_edits.append(self._resize)

    def begin_frame(self, data: mujoco.MjData, agent_step: int, control_step: int) -> None:
        """Remember where to look for the agent's place."""
        self._data = data

    def _resize(self, scene: mujoco.MjvScene) -> None:
        """Scale what is listed for drawing."""
        centre = self._centre()
        for index in range(scene.ngeom):
            drawn = scene.geoms[index]
            if (int(drawn.objtype), int(drawn.objid)) in self._scaled:
                drawn.pos[:] = centre + self._scale * (drawn.pos - centre)
                drawn.size[:] = self._scale * drawn.size

    def _centre(self) -> np.ndarray:
        """Return the point that stays where it is, float (3,) in metres."""
        if self._data is None:
            raise ValueError("begin_frame must be called before anything is drawn")
        if self.domain in _STANDING:
            return np.array(self._data.subtree_com[self._root]) * [1.0, 1.0, 0.0]
        return np.array(self._data.xpos[self._root])


def _drawn_objects(model: mujoco.MjModel, targets: tuple[str, ...]) -> set[tuple[int, int]]:
    """Return (``mjtObj`` type, id) of what is scaled: the foreground, its sites, and all strings."""
    kinds = load_mujoco().mjtObj
    sites = np.flatnonzero(model.body_weldid[model.site_bodyid] != 0)
    groups = (
        (kinds.mjOBJ_GEOM, np.flatnonzero(foreground_geoms(model, targets))),
        (kinds.mjOBJ_SITE, sites),
        (kinds.mjOBJ_TENDON, np.arange(model.ntendon)),
    )
    return {(int(kind), int(index)) for kind, indices in groups for index in indices}
