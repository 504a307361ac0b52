"""Vector environments: the same episodes for any number, resets on demand, errors that arrive whole."""

import functools
import os
import signal
import subprocess
import sys

import gymnasium
import numpy as np
import pytest

import envs
from common.errors import ConfigError, InputError, ResourceError
from common.paths import PROJECT_ROOT
from envs.dmc import DMCEnv
from envs.tasks import find_task
from envs.vector import ProcessVectorEnv

STEPS = 4  # agent steps per episode of the short task


def make_short(name="cartpole_swingup", **options):
    """Make a task whose episodes are cut off after STEPS agent steps."""
    env = DMCEnv(find_task(name), image_size=32, foreground=True, **options)
    env._horizon = 2 * STEPS
    return env


def make_broken(message):
    raise InputError(message, "the hint survives")


class FailingEnv(gymnasium.Env):
    """No simulator: the first reset works, the second raises, a positive action ends the process."""

    observation_space = gymnasium.spaces.Dict({"pixels": gymnasium.spaces.Box(0, 255, (8, 8, 3), np.uint8)})
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
    resets = 0

    def reset(self, *, seed=None, options=None):
        self.resets += 1
        if self.resets > 1:
            raise ConfigError("this happened", "do that")
        return {"pixels": np.zeros((8, 8, 3), np.uint8)}, {}

    def step(self, action):
        if action[0] > 0:
            os._exit(17)
        return {"pixels": np.ones((8, 8, 3), np.uint8)}, 0.0, False, False, {}


def fail_in_worker(main_process):
    if os.getpid() != main_process:
        raise ConfigError("no such thing", "make one")
    return FailingEnv()


def play_episodes(num_envs, episodes):
    """Play episodes 0..episodes-1; return {episode: (frames, rewards, masks)}."""
    venv = ProcessVectorEnv([functools.partial(make_short, seed=5)] * num_envs)
    record, index, upcoming = {}, list(range(num_envs)), num_envs
    try:
        done = np.ones(num_envs, bool)
        while True:
            observation, info = envs.reset_episodes(venv, index, done, seed=5)
            for row in np.flatnonzero(done):
                record[index[row]] = [observation["pixels"][row]], [], [info["foreground"][row]]
            done[:] = False
            while not done.any():
                steps = [len(record[episode][1]) for episode in index]
                actions = [[np.sin(7.0 * episode + step)] for episode, step in zip(index, steps, strict=True)]
                observation, reward, _, truncated, info = venv.step(np.array(actions, np.float32))
                for row, episode in enumerate(index):
                    frames, rewards, masks = record[episode]
                    frames.append(observation["pixels"][row])
                    rewards.append(reward[row])
                    masks.append(info["foreground"][row])
                done |= truncated
            for row in np.flatnonzero(done):
                index[row], upcoming = upcoming, upcoming + 1
            if min(index) >= episodes:
                break
    finally:
        venv.close()
    return {episode: record[episode] for episode in range(episodes)}


@pytest.mark.slow
def test_one_and_three_environments_play_the_same_episodes():
    alone, together = play_episodes(1, 6), play_episodes(3, 6)
    for episode, (frames, rewards, masks) in alone.items():
        assert len(frames) == STEPS + 1 and len(rewards) == STEPS
        for mine, other in zip((frames, rewards, masks), together[episode], strict=True):
            assert np.array_equal(mine, other), episode
    assert not np.array_equal(alone[0][0], alone[1][0])


def test_spaces_resets_on_demand_and_snapshots():
    venv = envs.make_vector_env("walker_walk", num_envs=2, image_size=32, seed=1)
    try:
        assert venv.metadata["autoreset_mode"].name == "DISABLED"
        first, _ = envs.reset_episodes(venv, [0, 1], np.array([True, True]), seed=1)
        assert venv.observation_space.contains(first)
        assert first["pixels"].shape == (2, 32, 32, 3) and first["pixels"].dtype == np.uint8
        actions = np.random.default_rng(0).uniform(-1, 1, (4, 2, 6)).astype(np.float32)
        venv.step(actions[0])
        venv.step(actions[1])
        kept = envs.get_states(venv)
        assert [state["episode"] for state in kept] == [0, 1]
        expected = [venv.step(actions[2])[0]["pixels"], venv.step(actions[3])[0]["pixels"]]
        # only the second is reset; the first goes on from where it was
        envs.reset_episodes(venv, [9, 2], np.array([False, True]), seed=1)
        assert venv.get_attr("episode") == (0, 2)
        assert len(venv.get_attr("state")[0]["actions"]) == 4
        envs.set_states(venv, kept)
        assert np.array_equal(venv.step(actions[2])[0]["pixels"], expected[0])
        assert np.array_equal(venv.step(actions[3])[0]["pixels"], expected[1])
        assert venv.get_attr("episode") == (0, 1)
    finally:
        venv.close()


def test_errors_before_any_process_starts():
    with pytest.raises(ConfigError, match="num_envs"):
        envs.make_vector_env("walker_walk", num_envs=0)
    with pytest.raises(ConfigError, match="Unknown task"):
        envs.make_vector_env("walker_fly", num_envs=2)
    with pytest.raises(InputError, match="no data") as caught:
        ProcessVectorEnv([functools.partial(make_broken, "no data")])
    assert caught.value.hint == "the hint survives"


def test_an_error_while_a_worker_makes_its_environment_arrives_whole():
    with pytest.raises(ConfigError) as caught:
        ProcessVectorEnv([functools.partial(fail_in_worker, os.getpid())] * 2)
    assert (caught.value.message, caught.value.hint) == ("no such thing", "make one")


def test_an_error_of_a_reset_arrives_whole():
    venv = ProcessVectorEnv([FailingEnv])
    venv.reset(seed=[0])
    with pytest.raises(ConfigError) as caught:
        venv.reset(seed=[1])
    assert (caught.value.message, caught.value.hint) == ("this happened", "do that")
    venv.close()


def test_workers_outlive_signals_and_a_dead_one_is_a_resource_error():
    venv = ProcessVectorEnv([FailingEnv] * 2)
    venv.reset(seed=[0, 1])
    for (
        process
    ) in venv.processes:  # signals to the whole group do not end the workers; the caller saves first
        os.kill(process.pid, signal.SIGTERM)
        os.kill(process.pid, signal.SIGINT)
    assert venv.step(np.zeros((2, 1), np.float32))[0]["pixels"].all()
    with pytest.raises(ResourceError, match="exit code 17"):
        venv.step(np.array([[0], [1]], np.float32))
    assert venv.closed and not any(process.is_alive() for process in venv.processes)


def test_one_that_is_killed_and_one_that_fails_have_different_cures(tmp_path):
    venv = ProcessVectorEnv([FailingEnv] * 2)
    venv.reset(seed=[0, 1])
    os.kill(venv.processes[1].pid, signal.SIGKILL)
    with pytest.raises(ResourceError, match=r"exit code -9.*memory ran out"):
        venv.step(np.zeros((2, 1), np.float32))
    script = tmp_path / "unguarded.py"
    lines = (
        "from envs.vector import ProcessVectorEnv",
        "from tests.envs.test_env_vector import FailingEnv",
        "ProcessVectorEnv([FailingEnv] * 2).reset(seed=[0, 1])",
    )
    script.write_text("\n".join(lines))
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT)}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.returncode == 1
    assert "exit code 1" in done.stderr and "if __name__ == '__main__':" in done.stderr.splitlines()[-1]


# One environment at a time ---------------------------------------------------------------------------------


def play_singly(num_envs, episodes, count):
    """Play episodes 0..episodes-1, each environment at its own pace; return what ``play_episodes`` does."""
    venv = ProcessVectorEnv([functools.partial(make_short, seed=5)] * num_envs)
    record, running, upcoming = {}, {}, list(range(episodes))

    def begin(index):
        if upcoming:
            running[index] = upcoming.pop(0)
            venv.begin_episode(index, running[index], envs.episode_seed(5, running[index]))

    try:
        for index in range(num_envs):
            begin(index)
        while running:
            for index, observation, reward, _, truncated, info in venv.collect(min(count, len(running))):
                episode = running[index]
                if reward is None:
                    record[episode] = [observation["pixels"]], [], [info["foreground"]]
                else:
                    frames, rewards, masks = record[episode]
                    frames.append(observation["pixels"])
                    rewards.append(reward)
                    masks.append(info["foreground"])
                if truncated:
                    del running[index]
                    begin(index)
                else:
                    step = len(record[episode][1])
                    venv.send_action(index, np.array([np.sin(7.0 * episode + step)], np.float32))
    finally:
        venv.close()
    return record


def test_environments_at_their_own_pace_play_the_same_episodes():
    expected, found = play_episodes(1, 4), play_singly(3, 4, count=2)
    assert sorted(found) == [0, 1, 2, 3]
    for episode, parts in found.items():
        for ours, theirs in zip(parts, expected[episode], strict=True):
            np.testing.assert_array_equal(np.array(ours), np.array(theirs))


def test_errors_arrive_whole_and_what_is_awaited_is_waited_for_at_the_end():
    venv = ProcessVectorEnv([FailingEnv] * 2)
    for index in range(2):
        venv.begin_episode(index, 0, 0)
    with pytest.raises(ValueError, match="at work already"):
        venv.send_action(0, np.zeros(1, np.float32))
    with pytest.raises(ValueError, match="only 2 environments"):
        venv.collect(3)
    venv.collect(2)
    venv.begin_episode(0, 1, 0)
    with pytest.raises(ConfigError, match="this happened"):
        venv.collect(1)
    venv.send_action(1, np.zeros(1, np.float32))
    venv.close()
    assert not any(process.is_alive() for process in venv.processes)


def test_a_worker_that_ends_alone_is_reported():
    venv = ProcessVectorEnv([FailingEnv])
    venv.begin_episode(0, 0, 0)
    venv.collect(1)
    venv.send_action(0, np.ones(1, np.float32))
    with pytest.raises(ResourceError, match="exit code 17"):
        venv.collect(1)
