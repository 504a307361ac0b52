"""Poses for pretraining: where trained policies take the agents, training must have been."""

import itertools

import numpy as np
import pytest
import torch  # noqa: F401  (before MuJoCo's drawing)

from common.seeding import counter_rng
from envs.pretraining_frames import POSE_TASKS, poses
from envs.tasks import find_task


def stream(domain: str, count: int):
    from dm_control import suite

    task = find_task(POSE_TASKS[domain])
    environment = suite.load(task.domain, task.task, task_kwargs={"random": 3})
    rng = counter_rng(3, domain)
    return environment, list(itertools.islice(poses(domain, environment, rng), count))


def test_the_ball_is_in_the_cup_in_some_poses_and_never_beyond_its_string():
    environment, found = stream("ball_in_cup", 300)
    physics, caught = environment.physics, []
    for pose in found:
        with physics.reset_context():
            physics.data.qpos[:] = pose
        caught.append(physics.in_target())
        knot, ball = physics.named.data.site_xpos["cup"], physics.named.data.xpos["ball"]
        assert np.linalg.norm(knot - ball) < 0.32
    assert 0.1 < np.mean(caught) < 0.6


@pytest.mark.parametrize("domain", ["walker", "cheetah", "hopper", "quadruped"])
def test_walkers_stand_on_the_floor(domain):
    environment, found = stream(domain, 60)
    physics = environment.physics
    depths = []
    for pose in found:
        with physics.reset_context():
            physics.data.qpos[:] = pose
        depths.append(min([contact.dist for contact in physics.data.contact], default=0.0))
    assert min(depths) > -0.2 and np.median(depths) > -0.05
