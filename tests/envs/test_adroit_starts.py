"""Adroit episodes that begin where a file says: the same physics, nothing left behind, snapshots."""

import numpy as np
import pytest

import envs
from envs.tasks import task_names

TASKS = task_names("adroit")
PLACED = {
    "adroit_door": {"door_body_pos": (3,)},
    "adroit_hammer": {"board_pos": (3,)},
    "adroit_pen": {"desired_orien": (4,)},
    "adroit_relocate": {"obj_pos": (3,), "target_pos": (3,)},
}
JOINTS = {"adroit_door": 30, "adroit_hammer": 33, "adroit_pen": 30, "adroit_relocate": 36}  # as DAPG's files


@pytest.fixture(scope="module", params=TASKS)
def pair(request):
    """Two environments of a task; none of them ever draws."""
    made = [envs.make_env(request.param) for _ in range(2)]
    yield made
    for env in made:
        env.close()


def actions(env, steps=6, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (steps, *env.action_space.shape)).astype(np.float32)


def test_a_start_holds_what_dapgs_files_hold(pair):
    env = pair[0]
    start = env.rehearse(actions(env), 3).start
    joints = (JOINTS[env.name],)
    shapes = {"qpos": joints, "qvel": joints, **PLACED[env.name]}
    assert {name: value.shape for name, value in start.items()} == shapes


def test_an_episode_from_its_start_is_the_episode(pair):
    one, other = pair
    seeded = one.rehearse(actions(one), 3)
    started = other.rehearse(actions(one), 99, seeded.start)
    assert started.total_reward == seeded.total_reward and started.length == seeded.length == 6
    assert np.array_equal(one.data.qpos, other.data.qpos) and np.array_equal(one.data.qvel, other.data.qvel)
    elsewhere = other.rehearse(actions(one), 99)
    assert any(not np.array_equal(elsewhere.start[name], seeded.start[name]) for name in PLACED[one.name])


def test_a_start_leaves_nothing_behind(pair):
    one, other = pair
    start = other.rehearse(actions(one), 5).start
    moved = {name: value + 0.03 for name, value in start.items()}
    other.rehearse(actions(one), 0, moved)
    assert all(
        np.array_equal(other._task.placed(other.model)[name], moved[name]) for name in PLACED[one.name]
    )
    first, second = (env.rehearse(actions(one), 7) for env in (one, other))
    assert all(np.array_equal(first.start[name], second.start[name]) for name in first.start)
    assert np.array_equal(one.data.qpos, other.data.qpos)


def test_rehearsals_clip_actions_and_end_with_the_episode():
    env = envs.make_env("adroit_pen", action_repeat=1, horizon=4)
    wild = 5 * actions(env, 9)
    found = env.rehearse(wild, 1)
    assert found.length == 4 and found.success is False
    assert found.total_reward == env.rehearse(wild.clip(-1, 1), 1).total_reward
    env.close()


def test_drawn_episodes_begin_at_a_start_and_are_restored_there():
    made = [envs.make_env("adroit_door", image_size=48, fast_render=True) for _ in range(2)]
    try:
        one, other = made
        start = one.rehearse(actions(one), 11).start
        first = one.reset(seed=0, options={"initial_state_dict": start})[0]
        assert np.array_equal(other.reset(seed=11)[0]["pixels"], first["pixels"])
        for action in actions(one, 2):
            seen = one.step(action)[0]
        other.state = one.state
        restored = other.observe()[0]
        assert all(np.array_equal(seen[name], restored[name]) for name in ("pixels", "state"))
        assert np.array_equal(other.state["start"]["qpos"], start["qpos"])
        other.reset(seed=11)
        assert "start" not in other.state
    finally:
        for env in made:
            env.close()


def test_environments_in_processes_begin_at_starts():
    start = {"qpos": np.zeros(30), "qvel": np.zeros(30), "door_body_pos": np.array([-0.25, 0.3, 0.3])}
    venv = envs.make_vector_env("adroit_door", image_size=48, fast_render=True)
    try:
        venv.begin_episode(0, 4, 7, {"initial_state_dict": start})
        (answer,) = venv.collect(1)
        assert answer[1]["pixels"].any()
        (state,) = venv.get_attr("state")
        assert state["episode"] == 4 and np.array_equal(
            state["start"]["door_body_pos"], start["door_body_pos"]
        )
    finally:
        venv.close()
