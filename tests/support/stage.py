"""A simulator that stands still, for tests of what levels do to its picture."""

import numpy as np

from envs.renderer import Renderer, load_mujoco

DOMAINS = {
    "walker": "walk",
    "cartpole": "swingup",
    "ball_in_cup": "catch",
    "finger": "spin",
    "cheetah": "run",
    "hopper": "stand",
    "quadruped": "walk",
    "reacher": "easy",
}


class Stage:
    """A simulator that stands still, and its renderer."""

    def __init__(self, domain):
        from dm_control import suite  # after envs, which loads torch and triton: the other order can crash

        self.env = suite.load(domain, DOMAINS[domain], task_kwargs={"random": 0})
        self.env.reset()
        for _ in range(10):
            self.env.step(self.env.action_spec().minimum * 0.3)
        self.model, self.data = self.env.physics.model.ptr, self.env.physics.data.ptr
        self.renderer = Renderer(self.model, 84, 84, 2 if domain == "quadruped" else 0)

    def picture(self):
        return self.renderer.render(self.data)

    def agent_interior(self):
        """bool (84, 84): pixels of the material `self` whose neighbours belong to the same geom."""
        segmentation = self.renderer.render_segmentation(self.data)
        ids, kinds = segmentation[..., 0], segmentation[..., 1]
        mujoco = load_mujoco()
        material = mujoco.mj_name2id(self.model, int(mujoco.mjtObj.mjOBJ_MATERIAL), "self")
        worn = np.flatnonzero(self.model.geom_matid == material)
        inside = (kinds == int(mujoco.mjtObj.mjOBJ_GEOM)) & np.isin(ids, worn)
        for axis in (0, 1):
            for step in (-1, 1):
                inside &= np.roll(ids, step, axis) == ids
        return inside
