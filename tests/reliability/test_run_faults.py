"""A run whose disk, folder, device, environments or numbers fail: what is said, and how it goes on."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from common import faults
from common.errors import ConfigError, NonFiniteError, ResourceError, run_script
from envs.vector import ProcessVectorEnv
from tests.support.agents import AGENTS, make_agent
from tests.support.crashes import fork, kill_after
from tests.support.small_runs import fingerprint, intact, make_run, output, rows
from training import preflight
from training.guard import LOCK, exclusive

pytestmark = pytest.mark.usefixtures("one_thread")
RUN = {"num_train_frames": 160, "snapshot_every_frames": 40}


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    faults.arm("")


@pytest.fixture(scope="module")
def whole(one_thread_in_module: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    run = make_run(tmp_path_factory.mktemp("whole"), **RUN)
    run.train()
    return fingerprint(run.agent)


def goes_on(run_dir: Path, whole: str) -> None:
    run = make_run(run_dir, **RUN)
    run.train()
    assert "Resumed" in output(run) and fingerprint(run.agent) == whole


# Disk -----------------------------------------------------------------------------------------------------


@pytest.mark.reliability(
    "7", "a full disk ends the run with one sentence; once some is freed it goes on exactly"
)
@pytest.mark.parametrize("point", ["snapshot.file:6", "snapshot.synced:2", "replay.array:14", "log.append:3"])
def test_a_full_disk_spares_what_is_there(point: str, whole: str, tmp_path: Path) -> None:
    faults.arm(f"{point}:enospc")
    with pytest.raises(ResourceError, match=r"No space is left on the disk .* bytes are free"):
        make_run(tmp_path, **RUN).train()
    assert intact(tmp_path) >= 20 and not list(tmp_path.rglob(".stage-*"))
    faults.arm("")
    goes_on(tmp_path, whole)


@contextlib.contextmanager
def small_disk(path: Path, options: str) -> Iterator[Path]:
    """Mount a file system of its own, which needs root."""
    path.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("mounting a file system needs root")
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


@pytest.mark.crash
@pytest.mark.reliability("7", "the same on a disk that really is full")
def test_a_disk_that_is_really_full(whole: str, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=6m") as disk:
        run = make_run(disk / "run", **RUN)
        send = run.venv.step_async

        def step_async(actions: np.ndarray) -> None:
            if run.agent_steps == 45:
                with contextlib.suppress(OSError), (disk / "filler").open("wb") as handle:
                    while True:
                        handle.write(bytes(4096))
                        handle.flush()
            send(actions)

        run.venv.step_async = step_async
        with pytest.raises(ResourceError, match="No space is left"):
            run.train()
        assert intact(disk / "run") == 40
        (disk / "filler").unlink()
        goes_on(disk / "run", whole)


@pytest.mark.reliability("7", "too little disk for replay and snapshots is told before the start, in bytes")
def test_too_little_disk_is_told_before_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path: usage._replace(free=30_000))
    run = make_run(tmp_path, **RUN)
    with pytest.raises(ResourceError, match=r"will write about .* MB \(replay .*0\.0 MB are free"):
        run.train()
    assert run.agent_steps == 0


@pytest.mark.reliability("7", "the replay's memory map counts where it shares the disk with the run")
def test_a_memory_map_on_the_same_disk_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path: usage._replace(free=35_980_000))
    sizes = {**RUN, "num_train_frames": 40_000}  # rows of 36 MB: they fit, and so does all the rest
    with small_disk(tmp_path / "disk", "size=40m") as disk, contextlib.ExitStack() as stack:
        with pytest.raises(
            ResourceError, match=r"snapshots .* MB, the replay buffer's memory map 36\.0 MB\)"
        ) as caught:
            make_run(tmp_path / "mapped", **sizes, replay_cache="memmap").begin(stack)
        assert "replay.cache_dir" in caught.value.hint
        for name, choice in (
            ("elsewhere", {"replay_cache": "memmap", "replay_cache_dir": str(disk)}),
            ("ram", {"replay_cache": "ram"}),
        ):
            make_run(tmp_path / name, **sizes, **choice).begin(stack)


@pytest.mark.reliability("8", "a read-only run directory is named before anything is done")
def test_a_read_only_directory_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with small_disk(tmp_path / "disk", "size=1m,ro") as disk, pytest.raises(SystemExit) as caught:
        run_script(lambda: make_run(disk / "run", **RUN).train())
    assert caught.value.code == 5
    message = capsys.readouterr().err
    assert str(tmp_path / "disk" / "run") in message and "read-only" in message.lower()


@pytest.mark.reliability("8", "a run directory that vanishes ends the run; nothing claims to be saved")
@pytest.mark.parametrize("again", [False, True])
def test_a_directory_that_vanishes_ends_the_run(again: bool, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", **RUN)
    send = run.venv.step_async

    def step_async(actions: np.ndarray) -> None:
        if run.agent_steps == 45:
            shutil.rmtree(tmp_path / "run")
            if again:
                (tmp_path / "run").mkdir()
        send(actions)

    run.venv.step_async = step_async
    with pytest.raises(ResourceError, match="was removed or replaced"):
        run.train()
    assert not list(tmp_path.rglob("step_*")) and not list(tmp_path.rglob("*.csv"))


@pytest.mark.reliability("9", "a second process is told who holds the run; a dead one holds nothing")
def test_who_holds_the_run_and_that_a_dead_process_does_not(tmp_path: Path) -> None:
    def hold() -> None:
        with exclusive(tmp_path):
            (tmp_path / "held").touch()
            time.sleep(60)

    child = fork(hold)
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    with pytest.raises(ConfigError, match=f"in use by process {child} on "), exclusive(tmp_path):
        pytest.fail("two writers")
    assert kill_after(child, 0.0, 9) == -9
    assert json.loads((tmp_path / LOCK).read_text())["pid"] == child, "the lock file is still there"
    with exclusive(tmp_path) as check:
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
        check()


# Numbers --------------------------------------------------------------------------------------------------


@pytest.mark.reliability("21", "a number that is not finite: not stored, never saved, evidence kept, exit 4")
@pytest.mark.parametrize("broken", ["reward", "observation", "action", "loss", "parameter", "optimiser"])
def test_what_is_not_finite_is_kept_as_evidence_and_nowhere_else(
    broken: str, whole: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path, **RUN)
    learn, wait, act = run.agent.update, run.venv.step_wait, run.agent.act

    def update(batch: Any, step: int) -> Any:
        metrics = learn(batch, step)
        if step == 56:
            if broken == "loss":
                metrics["critic_loss"] = torch.tensor(float("nan"))
            if broken == "parameter":
                next(iter(run.agent.critic_target.parameters())).data[0] = float("nan")
            if broken == "optimiser":
                next(iter(run.agent.actor_opt.state.values()))["exp_avg"][0] = float("inf")
        return metrics

    def step_wait() -> Any:
        obs, reward, *rest = wait()
        now = run.agent_steps == 47
        if broken == "observation":
            obs = {**obs, "touch": np.full((1, 2), np.inf if now else 0.0, np.float32)}
        return obs, reward * (np.nan if broken == "reward" and now else 1.0), *rest

    def acting(obs: np.ndarray, step: int, eval_mode: bool, state: None) -> np.ndarray:
        return act(obs, step, eval_mode) * np.float32(np.nan if broken == "action" and step == 47 else 1.0)

    for owner, name, function in ((run.agent, "update", update), (run.agent, "act", acting)):
        monkeypatch.setattr(owner, name, function)
    monkeypatch.setattr(run.venv, "step_wait", step_wait)
    with pytest.raises(NonFiniteError, match="not finite") as caught:
        run.train()
    assert caught.value.exit_code == 4
    assert intact(tmp_path) == 40
    assert run.replay.open[0] is None or np.isfinite(run.replay.open[0].reward).all()
    if broken in ("reward", "observation", "action", "loss"):
        (evidence,) = (tmp_path / "nonfinite").iterdir()
        facts = json.loads((evidence / "facts.json").read_text())
        assert facts["agent_steps"] == run.agent_steps and "not finite" in facts["error"]
        with np.load(evidence / "arrays.npz") as arrays:
            assert len(arrays["actions_0"]) == run.agent_steps % 10
        assert str(evidence) in caught.value.hint
    goes_on(tmp_path, whole)


# Device and environments ----------------------------------------------------------------------------------


@pytest.mark.reliability("26", "out of GPU memory: what to change, exit 5, the last snapshot goes on")
@pytest.mark.parametrize("error", [torch.OutOfMemoryError, getattr(torch, "AcceleratorError", MemoryError)])
def test_a_device_that_fails_says_what_to_change(
    error: type[Exception], whole: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path, **RUN)
    learn = run.agent.update

    def update(batch: Any, step: int) -> Any:
        if step == 46:
            raise error("CUDA out of memory. Tried to allocate 2 GiB")
        return learn(batch, step)

    monkeypatch.setattr(run.agent, "update", update)
    with pytest.raises(ResourceError, match="The device failed: CUDA out of memory") as caught:
        run.train()
    assert all(knob in caught.value.hint for knob in ("batch_size", "num_envs", "replay_buffer_size"))
    assert caught.value.exit_code == 5 and intact(tmp_path) == 40
    goes_on(tmp_path, whole)


@pytest.mark.reliability("26", "a GPU too small is found out by a rehearsed update, which changes nothing")
@pytest.mark.parametrize("name", sorted(AGENTS))
def test_a_rehearsed_update_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make_agent(name)
    agent.prepare()
    before = fingerprint(agent)
    preflight.rehearse_update(agent, 3)
    assert fingerprint(agent) == before

    def update(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr(agent, "update", update)
    with pytest.raises(ResourceError, match="batch_size=3 does not fit"):
        preflight.rehearse_update(agent, 3)


@pytest.mark.reliability("23", "an environment that fails ends the run by its own error; no step is lost")
@pytest.mark.parametrize("method", ["step_async", "step_wait", "reset"])
def test_the_last_good_state_is_saved_when_an_environment_fails(
    method: str, whole: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path, **RUN)
    works = getattr(run.venv, method)

    def fails(*args: Any, **kwargs: Any) -> Any:
        if run.agent_steps >= 46:
            raise RuntimeError("the simulator's own words")
        return works(*args, **kwargs)

    monkeypatch.setattr(run.venv, method, fails)
    with pytest.raises(RuntimeError, match="the simulator's own words"):
        run.train()
    assert intact(tmp_path) == run.agent_steps == (50 if method == "reset" else 46)
    assert "The environments failed; saved" in output(run)
    goes_on(tmp_path, whole)
    assert len(rows(make_run(tmp_path, **RUN))) == 8


class Hanging(gymnasium.Env):
    """Answers a reset, and never a step."""

    observation_space = gymnasium.spaces.Dict({"pixels": gymnasium.spaces.Box(0, 255, (8, 8, 3), np.uint8)})
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return {"pixels": np.zeros((8, 8, 3), np.uint8)}, {}

    def step(self, action: np.ndarray) -> Any:
        time.sleep(3600)


@pytest.mark.crash
@pytest.mark.reliability("23", "an environment that hangs is an error after its time, and is ended")
def test_a_hanging_environment_is_an_error() -> None:
    venv = ProcessVectorEnv([Hanging])
    venv.reset(seed=[0])
    venv.timeout = 1.0
    with pytest.raises(ResourceError, match="not answered for 1 seconds"):
        venv.step(np.zeros((1, 1), np.float32))
    assert venv.closed and not any(process.is_alive() for process in venv.processes)
