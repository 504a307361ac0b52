"""Demonstrations: what files are read, what is refused, playing again, and runs that begin with them."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.errors import DependencyError, InputError
from tests.support.agents import returns, train_on_bars
from tests.support.demonstrations import START, bar_records, write_records
from tests.support.fake_env import PixelFakeEnv
from tests.support.small_runs import fingerprint, make_run, output, rows, stop_at
from training.demonstrations import Demonstration, play_again, read_demonstrations
from training.episodes import Episode


def demonstrated(count: int = 3, length: int = 10, **options: Any) -> list[Episode]:
    """Return episodes of the bars by hand."""
    recorded = [Demonstration(r["init_state_dict"], r["actions"]) for r in bar_records(count, length)]
    return play_again(PixelFakeEnv(length=length, success=True, **options), recorded)


# Reading ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_every_protocol_are_read(tmp_path: Path, protocol: int) -> None:
    records = bar_records(4, 7)
    file = write_records(tmp_path / "bars-v0_demos.pickle", records, protocol)
    found = read_demonstrations(file, 1, START)
    assert len(found) == 4
    for demonstration, record in zip(found, records, strict=True):
        assert demonstration.actions.dtype == np.float32
        assert np.array_equal(demonstration.actions, record["actions"].astype(np.float32))
        assert all(np.array_equal(demonstration.start[n], v) for n, v in record["init_state_dict"].items())


def test_pickles_of_python_2_are_read(tmp_path: Path) -> None:
    """As written there: the names of NumPy 1, bytes as text of protocol 0."""
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I1\nI1\ntcnumpy\ndtype\n"
        b"(S'f8'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS'\\x00\\x00\\x00\\x00\\x00\\x00\\xe0?'\ntb"
    )
    file = tmp_path / "demos.pickle"
    file.write_bytes(b"(l(dS'actions'\n" + array + b"sS'init_state_dict'\n(dS'cursor'\n" + array + b"ssa.")
    (found,) = read_demonstrations(file, 1, ["cursor"])
    assert found.actions.tolist() == [[0.5]] and found.start["cursor"].tolist() == [[0.5]]


class Foreign:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("ran",)


def changed(**values: Any) -> list[dict[str, Any]]:
    records = bar_records(2, 5)
    records[1] |= values
    return records


BAD: dict[str, tuple[Any, str]] = {
    "code": (changed(actions=Foreign()), r"posix.mkdir|nt.mkdir"),
    "object": (changed(rewards=Path("x")), "pathlib"),
    "objects in an array": (changed(actions=np.array([Foreign(), 1], object)), "more than numbers"),
    "wrong task": (changed(actions=np.zeros((5, 26))), "26 numbers instead of 1"),
    "no actions": ([{"init_state_dict": {}}], "no table of actions"),
    "empty episode": (changed(actions=np.zeros((0, 1))), "no table of actions"),
    "text": (changed(actions=np.array([["a"]])), "no table of actions"),
    "no state": (changed(init_state_dict=None), "no initial state"),
    "state of another task": (changed(init_state_dict={"cursor": np.zeros(1)}), "no 'target'"),
    "not finite": (changed(actions=np.array([[np.nan]])), "finite"),
    "state not finite": (changed(init_state_dict={"cursor": np.inf, "target": 0.0}), "'cursor'"),
    "no list": ({"actions": 1}, "no list of episodes"),
    "nothing": ([], "no episode"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_will_not_do_is_one_error_and_writes_nothing(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content, words = BAD[case]
    file = write_records(tmp_path / "demos.pickle", content)
    with pytest.raises(InputError, match=words) as caught:
        read_demonstrations(file, 1, START)
    assert str(file) in caught.value.message and caught.value.hint
    assert os.listdir(tmp_path) == ["demos.pickle"]


def test_truncated_and_altered_files_are_one_error(tmp_path: Path) -> None:
    data = pickle.dumps(bar_records(2, 5))
    file, rng = tmp_path / "demos.pickle", np.random.default_rng(0)
    for length in [0, 1, *rng.integers(2, len(data) - 1, 25)]:
        file.write_bytes(data[:length])
        with pytest.raises(InputError, match="cannot be read"):
            read_demonstrations(file, 1, START)
    for place in rng.integers(0, len(data), 60):
        file.write_bytes(data[:place] + bytes([rng.integers(256)]) + data[place + 1 :])
        try:
            read_demonstrations(file, 1, START)
        except InputError as error:
            assert str(file) in error.message
    with pytest.raises(InputError, match="do not exist"):
        read_demonstrations(tmp_path / "none.pickle", 1)


def test_minari_needs_h5py_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(DependencyError, match="pip install h5py"):
        read_demonstrations(tmp_path, 1)


def test_minari_folders_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    records = bar_records(11, 6)
    (tmp_path / "data").mkdir()
    file = tmp_path / "data" / "main_data.hdf5"
    with h5py.File(file, "w") as data:
        for number, record in enumerate(records):
            group = data.create_group(f"episode_{number}")
            group["actions"] = record["actions"]
            for name, value in record["init_state_dict"].items():
                group[f"infos/{name}"] = np.stack([value, value + 1])
    for path in (tmp_path, file):
        found = read_demonstrations(path, 1, START)
        assert [d.start["cursor"] for d in found] == [r["init_state_dict"]["cursor"] for r in records]
    file.write_bytes(file.read_bytes()[:3000])
    with pytest.raises(InputError, match="cannot be read"):
        read_demonstrations(tmp_path, 1, START)


# Playing again ----------------------------------------------------------------------------------------------


def test_episodes_are_what_the_environment_shows() -> None:
    record = bar_records(1, 8)[0]
    actions = 3 * record["actions"].astype(np.float32)
    (episode,) = play_again(PixelFakeEnv(state=True), [Demonstration(record["init_state_dict"], actions)])
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
    record = bar_records(1, 8)[0]
    demonstration = Demonstration(record["init_state_dict"], record["actions"])
    (episode,) = play_again(PixelFakeEnv(terminate_at=5), [demonstration])
    assert episode.discount.tolist() == [1.0, 1.0, 1.0, 1.0, 0.0]
    (episode,) = play_again(PixelFakeEnv(length=6), [demonstration])
    assert episode.discount.tolist() == [1.0] * 6


def test_what_fails_again_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    apart = {"cursor": np.array(-0.5), "target": np.array(0.5)}
    idle = {"init_state_dict": apart, "actions": np.zeros((9, 1))}
    records = bar_records(2, 9) + 3 * [idle] + bar_records(1, 9, seed=2)
    recorded = [Demonstration(r["init_state_dict"], r["actions"]) for r in records]
    kept = play_again(PixelFakeEnv(success=True), recorded)
    assert [episode.index for episode in kept] == [0, 1, 2]
    assert all(np.abs(episode.reward[-1] - 1) < 1e-3 for episode in kept)
    assert "3 of 6 demonstrations did not succeed" in caplog.text
    assert len(play_again(PixelFakeEnv(success=True), recorded, failures=True)) == 6
    with pytest.raises(InputError, match="None of 3"):
        play_again(PixelFakeEnv(success=True), recorded[2:5])


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
