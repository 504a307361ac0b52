"""What is observed beside pixels reaches replay, agent, snapshot and evaluation."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

from common.errors import ConfigError
from evaluation.evaluate import evaluate
from evaluation.scenes import agent_policy
from tests.support.agents import AGENTS, make_agent, make_batch
from tests.support.fake_env import FakeVectorEnv
from tests.support.small_runs import fingerprint, make_run, record_actions, stop_at
from training.episodes import Episode
from training.factory import state_size
from training.replay_buffer import ReplayBuffer

STATE = 4


def play(buffer: ReplayBuffer, episode: int, length: int) -> None:
    """Collect an episode whose frames, actions and states all say where they come from."""
    frame = np.full((4, 4, 3), episode, np.uint8)
    buffer.begin_episode(0, episode, frame, np.array([episode, 0], np.float32))
    for time in range(1, length + 1):
        state = np.array([episode, time], np.float32)
        buffer.add(0, state - [0, 1], 0.0, 1.0, frame, last=time == length, state=state)


@pytest.mark.parametrize("nstep", [1, 3])
def test_states_are_those_of_the_newest_frames(tmp_path: Path, nstep: int) -> None:
    buffer = ReplayBuffer(tmp_path, (4, 4, 3), 2, capacity=30, nstep=nstep, state_dim=2)
    for episode in range(9):  # several times round the ring
        play(buffer, episode, 5 + episode % 3)
        batch = buffer.sample(64, episode)
        assert batch.state.dtype == torch.float32 and batch.state.shape == (64, 2)
        assert torch.equal(batch.state, batch.action)
        assert torch.equal(batch.next_state - batch.state, torch.tensor([[0.0, nstep]]).expand(64, 2))
    restored = ReplayBuffer(tmp_path, (4, 4, 3), 2, capacity=30, nstep=nstep, state_dim=2)
    restored.load_state_dict(buffer.state_dict())
    assert all(
        torch.equal(*pair) for pair in zip(buffer.sample(64, 99), restored.sample(64, 99), strict=True)
    )


def test_files_hold_a_state_only_where_there_is_one(tmp_path: Path) -> None:
    for width in (0, 2):
        folder = tmp_path / str(width)
        folder.mkdir()
        state = np.ones((4, width), np.float32)
        ends = np.ones(3, np.float32)
        episode = Episode(
            7, np.zeros((4, 3, 2, 2), np.uint8), np.zeros((3, 1), np.float32), ends, ends, state
        )
        episode.save(folder)
        with np.load(folder / episode.name) as archive:
            assert ("state" in archive.files) == bool(width)
        assert np.array_equal(Episode.load(folder / episode.name).state, state)


def test_files_of_another_state_are_set_aside(tmp_path: Path) -> None:
    buffer = ReplayBuffer(tmp_path, (4, 4, 3), 2, capacity=30, state_dim=2)
    play(buffer, 0, 5)
    other = ReplayBuffer(tmp_path, (4, 4, 3), 2, capacity=30, state_dim=3, max_lost=1.0)
    other.load_state_dict(buffer.state_dict())
    assert other.damaged_files == 1 and not other.can_sample


@pytest.mark.parametrize("name", AGENTS)
def test_every_agent_reads_the_state_and_learns_from_it(name: str) -> None:
    agent, batch = make_agent(name, state_dim=STATE), make_batch(state_dim=STATE)
    width = agent.encoder.repr_dim
    first = (agent.critic.trunk[0], next(m for m in agent.actor.modules() if isinstance(m, torch.nn.Linear)))
    before = [layer.weight[:, width:].clone() for layer in first]
    assert all(weight.shape[1] == STATE for weight in before)
    metrics = agent.update(batch, 100)
    assert all(torch.isfinite(value) for value in metrics.values())
    for layer, weight in zip(first, before, strict=True):
        assert not torch.equal(layer.weight[:, width:], weight)
    here, there = (agent.act(batch.obs, 100, True, state) for state in (batch.state, 9 * batch.state))
    assert here.shape == (5, 3) and not np.array_equal(here, there)
    alone = agent.act(batch.obs[3:4], 100, True, batch.state[3:4].numpy())
    assert np.allclose(here[3], alone, atol=1e-4)


def test_the_target_reads_the_next_state() -> None:
    agent, batch = make_agent("drqv2", state_dim=STATE), make_batch(state_dim=STATE)
    targets = []
    for changed in (batch, batch._replace(state=9 * batch.state), batch._replace(next_state=9 * batch.state)):
        agent.generators["update"].manual_seed(0)
        targets.append(agent.target(changed, 100))
    assert torch.equal(targets[0], targets[1]) and not torch.equal(targets[0], targets[2])


@pytest.mark.parametrize("num_envs", [1, 3])
def test_a_run_with_a_state_resumes_bit_by_bit(tmp_path: Path, num_envs: int) -> None:
    whole = make_run(tmp_path / "whole", env={"state": True}, num_envs=num_envs)
    actions = record_actions(whole)
    whole.train()
    first = make_run(tmp_path / "parts", env={"state": True}, num_envs=num_envs)
    stop_at(first, 75)
    with pytest.raises(SystemExit):
        first.train()
    second = make_run(tmp_path / "parts", env={"state": True}, num_envs=num_envs)
    rest = record_actions(second)
    second.train()
    assert np.array_equal(actions[-len(rest) :], rest) and len(rest) < len(actions)
    assert fingerprint(whole.agent) == fingerprint(second.agent)
    assert whole.replay.manifest() == second.replay.manifest()
    assert np.allclose(second.state[:, 0], [env.cursor for env in second.venv.envs])


class Recording:
    """An agent that keeps the states it is given."""

    def __init__(self) -> None:
        self.states: list[np.ndarray | None] = []

    def act(self, obs: np.ndarray, step: int, eval_mode: bool, state: np.ndarray | None = None) -> np.ndarray:
        self.states.append(state)
        return np.zeros((len(obs), 1), np.float32)


@pytest.mark.parametrize("padded", [1, 4])
def test_evaluation_hands_states_on(padded: int) -> None:
    agent = Recording()
    venv = FakeVectorEnv(2, length=5, state=True)
    evaluate(agent, venv, episodes=3, seed=0, agent_step=9, padded_batch=padded, frame_stack=2)
    assert all(state.shape == (padded, 2) and state.dtype == np.float32 for state in agent.states)
    times = [row[1] for state in agent.states for row in state[:2] if row.any()]
    assert {0.0, 1.0, 2.0, 3.0, 4.0} == set(times)
    policy = agent_policy(agent, 2, 9)
    policy(np.zeros((4, 4, 3), np.uint8), np.ones(2, np.float32))
    assert np.array_equal(agent.states[-1], np.ones((1, 2)))
    policy(np.zeros((4, 4, 3), np.uint8))
    assert agent.states[-1] is None


def test_only_a_float32_vector_is_a_state() -> None:
    pixels = gymnasium.spaces.Box(0, 255, (4, 4, 3), np.uint8)
    assert state_size(gymnasium.spaces.Dict({"pixels": pixels})) == 0
    for shape, dtype in (((2,), np.float64), ((2, 2), np.float32)):
        state = gymnasium.spaces.Box(-1, 1, shape, dtype)
        with pytest.raises(ConfigError, match="float32 vector"):
            state_size(gymnasium.spaces.Dict({"pixels": pixels, "state": state}))
