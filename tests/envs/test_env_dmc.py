"""The DeepMind Control suite as pixel environments: spaces, endings, masks, seeds, snapshots."""

import numpy as np
import pytest

import envs
from common.errors import NonFiniteError
from envs.dmc import DMCEnv
from envs.scene import BaseScene
from envs.tasks import find_task, task_names


@pytest.fixture
def make():
    """Make environments and close them all in the end."""
    opened = []

    def build(name, **options):
        opened.append(DMCEnv(find_task(name), **options))
        return opened[-1]

    yield build
    for env in opened:
        env.close()


def random_actions(env, steps, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (steps, *env.action_space.shape)).astype(np.float32)


def play(env, actions):
    """Step through ``actions``; return the frames and rewards."""
    steps = [env.step(action) for action in actions]
    return np.stack([step[0]["pixels"] for step in steps]), [step[1] for step in steps]


@pytest.mark.parametrize("name", task_names("dmc"))
def test_every_task_is_built_as_its_table_says(name, make):
    env = make(name)  # compiled only: drawing all of them takes a minute
    task = find_task(name)
    assert env.model.ncam > task.camera
    limit = env._env._step_limit
    assert limit == float("inf") or round(limit) == task.horizon
    assert env.foreground_geoms().any() and not env.foreground_geoms().all()
    assert env.action_space.shape == env._env.action_spec().shape


@pytest.mark.slow
@pytest.mark.parametrize("name", task_names("dmc"))
def test_every_task_steps_and_shows_its_foreground(name, make):
    env = make(name, foreground=True)
    observation, info = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert info["foreground"].dtype == bool
    if name != "lqr_lqr_2_1":  # its masses start beside what the camera sees
        assert info["foreground"].sum() > 15
    observation, reward, terminated, _, _ = env.step(env.action_space.sample())
    assert env.observation_space.contains(observation) and np.isfinite(reward) and not terminated


@pytest.mark.slow
@pytest.mark.parametrize("name", envs.SAMG8)
def test_500_random_steps_stay_inside_the_spaces(name, make):
    env = make(name, fast_render=True)
    observation, _ = env.reset(seed=3)
    for step, action in enumerate(random_actions(env, 500)):
        assert env.observation_space.contains(observation) and env.action_space.contains(action)
        observation, reward, terminated, truncated, _ = env.step(action)
        assert 0.0 <= reward <= 2.0 and not terminated
        assert truncated == (step == 499)


def test_action_repeat_sums_rewards_and_draws_once(make, monkeypatch):
    twice, once = make("walker_walk", action_repeat=2), make("walker_walk", action_repeat=1)
    twice.reset(seed=1), once.reset(seed=1)
    drawn = []
    render = twice.renderer.render
    monkeypatch.setattr(twice.renderer, "render", lambda data: drawn.append(1) or render(data))
    for action in random_actions(twice, 3):
        frame, reward = play(twice, [action])
        frames, rewards = play(once, [action, action])
        assert reward[0] == pytest.approx(sum(rewards), abs=1e-12)
        assert np.array_equal(frame[0], frames[1])
    assert len(drawn) == 3


def test_actions_are_scaled_to_the_task(make):
    env = make("quadruped_walk")  # its range is not symmetric
    env.reset(seed=0)
    spec, seen = env._env.action_spec(), []
    step = env._env.step
    env._env.step = lambda action: seen.append(action) or step(action)
    for value in (-1.0, 1.0, 5.0):
        env.step(np.full(12, value, np.float32))
    assert np.allclose(seen[0], spec.minimum) and np.allclose(seen[2], spec.maximum)
    assert np.allclose(seen[4], spec.maximum), "actions beyond the space are clipped"


def test_time_limit_is_truncation(make, monkeypatch):
    env = make("cartpole_swingup", action_repeat=3)
    env.reset(seed=0)
    monkeypatch.setattr(env, "observe", lambda: ({}, {}))
    flags = [env.step(np.zeros(1, np.float32))[2:4] for _ in range(334)]
    assert set(flags[:-1]) == {(False, False)} and flags[-1] == (False, True)
    with pytest.raises(Exception, match=r"call reset\(\)"):
        env.step(np.zeros(1, np.float32))


def test_the_end_of_a_task_is_termination(make):
    env = make("walker_walk")
    env.reset(seed=0)
    env._env.task.get_termination = lambda physics: 0.0
    assert env.step(np.zeros(6, np.float32))[2:4] == (True, False)


def test_lqr_has_no_time_limit_of_its_own(make, monkeypatch):
    env = make("lqr_lqr_2_1", action_repeat=100)
    env.reset(seed=0)
    monkeypatch.setattr(env, "observe", lambda: ({}, {}))
    ends = [env.step(np.full(1, 0.5, np.float32))[2:4] for _ in range(10)]
    assert ends[-1] == (False, True) and (False, True) not in ends[:-1]


@pytest.mark.parametrize("where", ["reward", "action", "physics"])
def test_what_is_not_finite_is_an_error_that_names_the_step(where, make):
    env = make("walker_walk")
    env.reset(seed=0)
    env.step(np.zeros(6, np.float32))
    action = np.zeros(6, np.float32)
    if where == "reward":
        env._env.task.get_reward = lambda physics: float("nan")
    elif where == "action":
        action[2] = np.inf
    else:
        env.data.qvel[0] = 1e30
    with pytest.raises(NonFiniteError, match=r"walker_walk, episode 0, control step [23]"):
        env.step(action)


FOREGROUND = {  # domain -> geoms of the world that are shown but do not count
    "cartpole_swingup": {"floor", "rail1", "rail2"},
    "cup_catch": {"ground"},
    "finger_spin": {"ground"},
    "quadruped_walk": {"floor"},
}


@pytest.mark.parametrize("name", FOREGROUND)
def test_foreground_is_what_moves(name, make):
    env = make(name, foreground=True)
    _, info = env.reset(seed=0)
    segmentation = env.renderer.render_segmentation(env.data)
    names = [env.model.geom(i).name for i in range(env.model.ngeom)]
    shown = {names[i] for i in np.unique(segmentation[segmentation[..., 1] == 5][:, 0])}
    outside = segmentation[~info["foreground"]]
    assert {names[i] for i in np.unique(outside[outside[:, 1] == 5][:, 0])} <= FOREGROUND[name]
    inside = segmentation[info["foreground"]]
    assert (inside[:, 1] == 5).all(), "tendons (the string) and sites are not foreground"
    assert {names[i] for i in np.unique(inside[:, 0])} == shown - FOREGROUND[name]


def test_string_of_the_cup_is_background(make):
    env = make("cup_catch", foreground=True)
    _, info = env.reset(seed=0)
    tendon = env.renderer.render_segmentation(env.data)[..., 1] == 18
    assert tendon.any() and not (tendon & info["foreground"]).any()


def test_targets_count_where_the_task_shows_them(make):
    def target_counts(name):
        env = make(name, foreground=True, camera=3 if name.startswith("fish") else 0)
        _, info = env.reset(seed=0)
        target = env.model.geom("target").id
        segmentation = env.renderer.render_segmentation(env.data)
        return info["foreground"][(segmentation[..., 0] == target) & (segmentation[..., 1] == 5)]

    assert target_counts("reacher_easy").all() and target_counts("reacher_easy").size
    assert target_counts("fish_upright").size == 0, "fish_upright hides its target"


@pytest.mark.parametrize("name", ["walker_walk", "finger_turn_hard", "quadruped_escape"])
def test_an_episode_depends_on_its_seed_alone(name, make):
    """Also where a task edits its model (targets, height fields) when an episode begins."""
    used, fresh = make(name), make(name)
    actions = random_actions(used, 3)
    for episode in range(2):
        used.reset(seed=50 + episode)
        play(used, actions)
    used.reset(seed=7), fresh.reset(seed=7)
    frames, rewards = play(used, actions)
    again, same = play(fresh, actions)
    assert np.array_equal(frames, again) and rewards == same
    fresh.reset(seed=8)
    assert not np.array_equal(play(fresh, actions)[0], frames)


def test_episodes_count_up_or_are_chosen(make):
    env, other = make("cartpole_swingup", seed=4), make("cartpole_swingup", seed=4)
    firsts = [env.reset()[0]["pixels"] for _ in range(3)]
    assert env.episode == 2 and not np.array_equal(firsts[1], firsts[2])
    other.episode = 2
    assert np.array_equal(other.reset()[0]["pixels"], firsts[2])
    assert np.array_equal(other.reset(seed=envs.episode_seed(4, 1))[0]["pixels"], firsts[1])
    assert other.episode == 3


@pytest.mark.parametrize("name", ["walker_walk", "finger_turn_easy", "quadruped_escape"])
def test_state_restores_the_moment_bit_by_bit(name, make):
    env, other = make(name, seed=1), make(name, seed=1)
    env.reset()
    env.reset()
    actions = random_actions(env, 12)
    play(env, actions[:8])
    state = env.get_state()
    assert state["episode"] == 1 and state["actions"].shape == (8, env.action_space.shape[0])
    other.set_state(state)
    assert np.array_equal(other.observe()[0]["pixels"], env.render())
    assert np.array_equal(other.data.qpos, env.data.qpos) and np.array_equal(other.data.qvel, env.data.qvel)
    frames, rewards = play(env, actions[8:])
    again, same = play(other, actions[8:])
    assert np.array_equal(frames, again) and rewards == same
    assert other.episode == 1 and np.array_equal(other.reset()[0]["pixels"], env.reset()[0]["pixels"])


def test_scene_edits_and_frames_are_asked_for(make):
    class Spy(BaseScene):
        def __init__(self):
            self.begun, self.steps = [], []

        def begin_episode(self, model, renderer, episode):
            self.begun.append(episode)
            model.mat_rgba[model.mat("self").id] = (0, 0, 1, 1)

        def compose(self, frame, render_segmentation, agent_step):
            self.steps.append(agent_step)
            assert np.array_equal(render_segmentation(), render_segmentation())
            frame[0, 0] = (1, 2, 3)
            return frame

    spy, plain = Spy(), make("walker_walk")
    env = make("walker_walk", scene=spy, foreground=True)
    observation, info = env.reset(seed=0)
    before, _ = plain.reset(seed=0)
    changed = (observation["pixels"] != before["pixels"]).any(-1)
    assert changed[info["foreground"]].mean() > 0.9 and tuple(observation["pixels"][0, 0]) == (1, 2, 3)
    env.step(np.zeros(6, np.float32))
    plain.step(np.zeros(6, np.float32))
    assert np.array_equal(env.data.qpos, plain.data.qpos), "a level must not change the physics"
    env.reset()
    assert spy.begun == [0, 1] and spy.steps == [0, 1, 0]
