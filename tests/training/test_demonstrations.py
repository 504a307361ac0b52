"""Demonstrations: playing them again, and runs that begin with them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.errors import InputError
from samg.baselines import GroundTruthMasker
from tests.support.agents import returns, train_on_bars
from tests.support.demonstrations import bar_records
from tests.support.fake_env import FakeVectorEnv, PixelFakeEnv
from tests.support.small_runs import fingerprint, make_run, output, rows, stop_at
from training.demonstrations.cache import cached_episodes
from training.demonstrations.choosing import Filter, choose
from training.demonstrations.playing import play_again
from training.demonstrations.reading import Demonstration
from training.episodes import Episode
from wrappers import BatchMasker, MaskObservation


def demonstrated(count: int = 3, length: int = 10, **options: Any) -> list[Episode]:
    """Return episodes of the bars by hand."""
    return play_again(FakeVectorEnv(length=length, **options), recorded(bar_records(count, length)))


def recorded(records: list[dict[str, Any]]) -> list[Demonstration]:
    return [
        Demonstration(record["init_state_dict"], record["actions"].astype(np.float32)) for record in records
    ]


# Playing again ----------------------------------------------------------------------------------------------


def test_episodes_are_what_the_environment_shows() -> None:
    record = bar_records(1, 8)[0]
    actions = 3 * record["actions"].astype(np.float32)
    (episode,) = play_again(FakeVectorEnv(state=True), [Demonstration(record["init_state_dict"], actions)])
    env = PixelFakeEnv(state=True)
    obs, _ = env.reset(seed=0, options={"initial_state_dict": record["init_state_dict"]})
    seen, rewards = [obs], []
    for action in actions.clip(-1, 1):
        obs, reward, *_ = env.step(action)
        seen.append(obs)
        rewards.append(reward)
    assert np.array_equal(episode.frames, [o["pixels"].transpose(2, 0, 1) for o in seen])
    assert np.array_equal(episode.state, [o["state"] for o in seen])
    assert np.array_equal(episode.reward, np.float32(rewards)) and np.abs(episode.action).max() <= 1
    assert (episode.index, len(episode), episode.discount.tolist()) == (0, 8, [1.0] * 8)


def test_an_episode_ends_where_the_environment_ends_it() -> None:
    demonstrations = recorded(bar_records(1, 8))
    (episode,) = play_again(FakeVectorEnv(terminate_at=5), demonstrations)
    assert episode.discount.tolist() == [1.0, 1.0, 1.0, 1.0, 0.0]
    (episode,) = play_again(FakeVectorEnv(length=6), demonstrations)
    assert episode.discount.tolist() == [1.0] * 6


@pytest.mark.parametrize("every", [1, 3])
def test_frames_are_masked_as_a_run_masks_them_however_many_environments_there_are(every: int) -> None:
    demonstrations = recorded(bar_records(5, 7))
    maskers = [GroundTruthMasker(), GroundTruthMasker()]
    for masker in maskers:
        masker.every = every  # type: ignore[attr-defined]
    found = [
        play_again(FakeVectorEnv(count, foreground=True), demonstrations, BatchMasker(masker))
        for count, masker in zip((1, 3), maskers, strict=True)
    ]
    assert [episode.index for episode in found[1]] == list(range(5))
    assert all(np.array_equal(a.frames, b.frames) for a, b in zip(*found, strict=True))
    wrapped = MaskObservation(PixelFakeEnv(foreground=True), maskers[0])
    obs, _ = wrapped.reset(seed=0, options={"initial_state_dict": dict(demonstrations[2].start)})
    seen = [obs] + [wrapped.step(action)[0] for action in demonstrations[2].actions]
    assert np.array_equal(found[0][2].frames, [o["pixels"].transpose(2, 0, 1) for o in seen])


def test_what_ends_otherwise_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    apart = {"cursor": np.array(-0.5), "target": np.array(0.5)}
    idle = {"init_state_dict": apart, "actions": np.zeros((9, 1))}
    found = recorded(bar_records(2, 9) + 3 * [idle] + bar_records(1, 9, seed=2))
    env = PixelFakeEnv(success=True)
    assert choose(env, found, Filter()) == [*found[:2], found[5]]
    assert "3 of 6 demonstrations are left out: only 3 succeeds" in caplog.text
    assert choose(env, found, Filter("any")) == found
    assert choose(env, found, Filter("any", least_return=1.0)) == [*found[:2], found[5]]
    assert choose(env, found, Filter(most=1)) == found[:1]
    assert choose(env, found, Filter("any", most=4)) == found[:4]
    assert choose(PixelFakeEnv(), found, Filter()) == found  # one that does not tell
    with pytest.raises(InputError, match="None of 3 demonstrations succeeds"):
        choose(env, found[2:5], Filter())
    with pytest.raises(InputError, match="return of at least 99"):
        choose(env, found, Filter(least_return=99))


# Keeping ----------------------------------------------------------------------------------------------------


def test_played_demonstrations_are_kept_under_what_they_follow_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SAMG_CACHE", str(tmp_path))
    made: list[int] = []

    def make() -> list[Episode]:
        made.append(1)
        return demonstrated(2, 5, state=True)

    for times, key in ((1, {"file": "a"}), (1, {"file": "a"}), (2, {"file": "b"}), (2, {"file": "a"})):
        episodes = cached_episodes(key, make)
        assert len(made) == times
        for one, other in zip(episodes, demonstrated(2, 5, state=True), strict=True):
            assert one.index == other.index and np.array_equal(one.state, other.state)
            assert all(np.array_equal(one.arrays()[name], other.arrays()[name]) for name in other.arrays())
    file = sorted(tmp_path.glob("demonstrations/*/episode_*_5.npz"))[0]
    file.write_bytes(file.read_bytes()[:-40])
    folder = str(file.parent)
    cached_episodes({"file": "a"}, make)
    cached_episodes({"file": "b"}, make)
    assert len(made) == 3 and f"{folder} is damaged" in caplog.text
    monkeypatch.setenv("SAMG_CACHE", str(file))  # a file: nothing can be kept there
    assert len(cached_episodes({"file": "a"}, make)) == 2 and "cannot be kept" in caplog.text


# Runs -------------------------------------------------------------------------------------------------------


def vrl3_run(folder: Path, state: bool = False, **options: Any) -> Any:
    agent = {"offline_updates": 12, "cql_random_actions": 2} | options.pop("agent", {})
    demonstrations = options.pop("demonstrations", lambda: demonstrated(state=state))
    return make_run(
        folder, agent=agent, env={"state": state}, kind="VRL3Agent", demonstrations=demonstrations, **options
    )


def test_a_run_begins_with_its_demonstrations(tmp_path: Path) -> None:
    run = vrl3_run(tmp_path)
    calls: list[int] = []
    offline, online = run.agent.update_offline, run.agent.update
    run.agent.update_offline = lambda batch: calls.append(-1) or offline(batch)
    run.agent.update = lambda batch, step: calls.append(step) or online(batch, step)
    run.train()
    assert calls[:12] == [-1] * 12 and min(calls[12:]) >= 0
    assert run.updates == len(calls) == 12 + 50  # and those of a run without
    indices = [int(name[8:18]) for name in run.replay.manifest()]
    assert indices == list(range(1, 15))  # episodes this short leave a little before the capacity is reached
    assert run.demonstrated == 30 and run.replay.capacity == 150
    first = Episode.load(tmp_path / "replay" / run.replay.manifest()[0])
    assert np.array_equal(first.frames, demonstrated()[1].frames)
    assert [int(row["episode"]) for row in rows(run)] == list(range(3, 15))
    assert "12 updates" in output(run)


def test_without_demonstrations_there_is_no_offline_stage(tmp_path: Path) -> None:
    run = vrl3_run(tmp_path, demonstrations=list)
    run.train()
    assert run.updates == 50 and run.demonstrated == 0


@pytest.mark.parametrize(("kind", "state"), [("DrQV2Agent", False), ("VRL3Agent", True)])
def test_a_run_with_demonstrations_resumes_bit_by_bit(tmp_path: Path, kind: str, state: bool) -> None:
    def run(folder: str, demonstrations: Any = None) -> Any:
        give = demonstrations or (lambda: demonstrated(state=state))
        agent = {"offline_updates": 12, "cql_random_actions": 2} if kind == "VRL3Agent" else {}
        return make_run(tmp_path / folder, agent, {"state": state}, kind, demonstrations=give)

    whole = run("whole")
    whole.train()
    first = run("parts")
    stop_at(first, 45)
    with pytest.raises(SystemExit):
        first.train()
    second = run("parts", lambda: pytest.fail("played again"))
    second.train()
    assert fingerprint(whole.agent) == fingerprint(second.agent)
    assert whole.replay.files() == second.replay.files() and whole.replay.capacity == second.replay.capacity


def test_a_stop_in_the_offline_stage_goes_on_there(tmp_path: Path) -> None:
    whole = vrl3_run(tmp_path / "whole")
    whole.train()
    first = vrl3_run(tmp_path / "parts")
    learn = first.agent.update_offline

    def interrupted(batch: Any) -> Any:
        if first.updates == 7:
            os.kill(os.getpid(), 15)
        return learn(batch)

    first.agent.update_offline = interrupted
    with pytest.raises(SystemExit):
        first.train()
    assert first.updates == 8 and first.agent_steps == 0
    second = vrl3_run(tmp_path / "parts", demonstrations=list)
    second.train()
    assert fingerprint(whole.agent) == fingerprint(second.agent)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("one_thread")
def test_demonstrations_beat_none(tmp_path: Path) -> None:
    found = {}
    options = {"stddev_schedule": "linear(1.0,0.1,300)", "num_expl_steps": 0, "cql_random_actions": 4}
    for name, give in (("with", lambda: demonstrated(20, 20)), ("without", list)):
        agent = train_on_bars(
            "vrl3", tmp_path / name, 400, size=24, frame_stack=1,
            demonstrations=give, offline_updates=400, offline_bc_weight=1.0, **options,
        )  # fmt: skip
        found[name] = returns(agent, size=24, frame_stack=1)
    torch.manual_seed(0)
    assert found["with"] > 1.5 * found["without"], found
