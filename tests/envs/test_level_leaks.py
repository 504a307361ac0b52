"""Nothing leaks: not between levels in one process, not between episodes, not through a snapshot."""

import numpy as np
import pytest

import envs
from envs.level_names import AXIS_LEVELS, LEVELS, OBJECT_LEVELS

COMBINED = "video_hard+objects_color_hard+light_position_easy+light_color_hard+moving_light_hard+cam_pos_hard"
EVERY = (
    *LEVELS,
    *AXIS_LEVELS,
    *OBJECT_LEVELS,
    "cam_id_1",
    "distracting_cs_0.3",
    COMBINED,
    "color_hard+second_object",
)
PARAMS = [
    pytest.param(n, marks=[pytest.mark.slow] if n.endswith("_easy") else []) for n in EVERY if n != "train"
]
ACTION = np.full(6, 0.6, np.float32)


@pytest.fixture
def make():
    opened = []

    def build(level, **options):
        options = {"source": "procedural", "foreground": True, "fast_render": True} | options
        opened.append(envs.make_env("walker_walk", level, **options))
        return opened[-1]

    yield build
    for env in opened:
        env.close()


def moment(env):
    """Return the present frame and mask."""
    observation, info = env.observe()
    return observation["pixels"].copy(), info["foreground"].copy()


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.fixture(scope="module")
def train():
    """The training scene, drawn before any other; returns the environment and its moment."""
    env = envs.make_env("walker_walk", foreground=True, fast_render=True, seed=1)
    env.reset()
    env.step(ACTION)
    yield env, moment(env)
    env.close()


@pytest.mark.parametrize("level", PARAMS)
def test_the_training_scene_is_the_same_beside_and_after_every_level(level, train, make):
    plain, before = train
    env = make(level, seed=1)
    env.reset()
    env.step(ACTION)
    here = moment(env)
    assert same(moment(plain), before), "the level shows in the training scene"
    assert same(moment(env), here), "the training scene shows in the level"
    np.testing.assert_array_equal(env.data.qpos, plain.data.qpos)
    env.close()
    assert same(moment(plain), before), "closing the level changed the training scene"
    fresh = make("train", seed=1)
    fresh.reset()
    fresh.step(ACTION)
    assert same(moment(fresh), before)


@pytest.mark.parametrize("level", PARAMS)
def test_an_episode_looks_the_same_whatever_was_played_before(level, make):
    env = make(level, seed=2)

    def play(episode, steps):
        env.episode = episode
        env.reset()
        for _ in range(steps):
            env._simulate(ACTION)
        return moment(env)

    first, later = play(0, 2), play(4, 3)
    if not level.startswith("cam_id"):
        assert not np.array_equal(first[0], later[0])
    play(1, 1)
    assert same(play(4, 3), later) and same(play(0, 2), first)
    assert same(moment(env), first), "drawing a moment twice changed it"
    fresh = make(level, seed=2)
    fresh.episode = 4
    fresh.reset()
    for _ in range(3):
        fresh.step(ACTION)
    assert same(moment(fresh), later)


@pytest.mark.parametrize(
    "level", ["moving_light_hard+cam_pos_easy+second_object", "distracting_cs_0.4", COMBINED]
)
def test_a_snapshot_restores_the_picture(level, make):
    env = make(level, seed=3)
    env.episode = 2
    env.reset()
    for _ in range(5):
        env.step(ACTION)
    state, shown = env.get_state(), moment(env)
    env.step(-ACTION)
    after = moment(env)
    other = make(level, seed=3)
    other.set_state(state)
    assert same(moment(other), shown)
    other.step(-ACTION)
    assert same(moment(other), after)


def test_other_seeds_draw_other_offsets(make):
    pictures = []
    for seed in (0, 1):
        env = make("cam_pos_hard", seed=seed)
        env.reset(seed=5)
        pictures.append(moment(env)[0])
    assert not np.array_equal(*pictures)
