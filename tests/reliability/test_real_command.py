"""The real command on the real simulator: killed at point after point, signalled, resumed: same digests."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common import faults
from common.paths import PROJECT_ROOT
from tests.support.small_runs import intact
from tests.support.sweeps import digests
from training.snapshot import read_manifest

pytestmark = [pytest.mark.crash, pytest.mark.slow, pytest.mark.timeout(3600)]
# Ten decisions an episode; a snapshot every 20, an evaluation every 100.
COMMAND = ["task=cartpole_balance", "masker=none", "action_repeat=100", "image_size=48", "batch_size=8"]
COMMAND += ["num_seed_frames=2000", "agent.num_expl_steps=30", "agent.hidden_dim=32", "agent.feature_dim=8"]
COMMAND += ["snapshot_every_frames=2000", "eval_every_frames=10000", "num_eval_episodes=1", "num_threads=1"]
COMMAND += ["agent.update_every_steps=1", "use_tb=false", "replay_buffer_size=30"]
DECISIONS = 200
POINTS = [p for p in faults.POINTS if p.split(".")[0] in ("snapshot", "replay", "log", "train", "evaluate")]


def start(run_dir: Path, fault: str = "", decisions: int = DECISIONS, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(PROJECT_ROOT / "train.py"), *COMMAND, f"hydra.run.dir={run_dir}", *more]
    environment = {**os.environ, "SAMG_FAULT": fault, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, f"num_train_frames={100 * decisions}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )


def train(run_dir: Path, fault: str = "", *more: str) -> tuple[int, str]:
    process = start(run_dir, fault, DECISIONS, *more)
    output, _ = process.communicate()
    return process.returncode, output


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    code, output = train(run_dir)
    assert code == 0, output
    assert read_manifest(run_dir / "snapshots" / f"step_{DECISIONS:010d}")["updates"] >= 50
    return digests(run_dir, DECISIONS)


@pytest.mark.reliability("1", "the real command, killed at every point in turn, ends with the same digests")
def test_killed_at_every_point_in_turn(whole: dict[str, str], tmp_path: Path) -> None:
    run_dir, before, unvisited = tmp_path / "run", 0, []
    for point in POINTS:
        kept = tmp_path / "kept"
        shutil.copytree(run_dir, kept) if run_dir.exists() else kept.mkdir()
        code, output = train(run_dir, f"{point}:1:kill")
        assert code in (0, -signal.SIGKILL), f"{point}: {output}"
        reached = intact(run_dir)
        assert reached >= before
        if code == 0:  # it never came there, and has ended: the other points need a run that has not
            unvisited.append(point)
            shutil.rmtree(run_dir)
            kept.rename(run_dir)
        else:
            shutil.rmtree(kept)
            before = reached
    assert not set(unvisited) - {"replay.moved"}  # nothing is newer than a snapshot where no episode ended
    code, output = train(run_dir)
    assert code == 0 and digests(run_dir, DECISIONS) == whole, output


@pytest.mark.reliability("exact", "the real command, stopped in a step, update and evaluation, ends the same")
@pytest.mark.reliability("3", "the real command saves within 15 seconds of a signal and says how to go on")
def test_stopped_by_signals(whole: dict[str, str], tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    stops = {"train.step:15:term": 143, "train.update:12:usr2": 143, "evaluate.step:4:int": 130}
    for fault, code in stops.items():
        process = start(run_dir, fault)
        output, _ = process.communicate()
        assert process.returncode == code, output
        assert "Stopped; saved" in output and f"hydra.run.dir={run_dir}" in output
        assert "Traceback" not in output
    process = start(run_dir)
    assert process.stdout is not None
    while "Resumed" not in (line := process.stdout.readline()):
        assert line, "it ended by itself"
    sent = time.monotonic()
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate()
    assert process.returncode in (0, 143), rest
    assert time.monotonic() - sent < 15 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    code, output = train(run_dir)
    assert code == 0 and digests(run_dir, DECISIONS) == whole, output


@pytest.mark.reliability("exact", "the real command with tiny and two environments ends the same")
def test_masked_and_in_two_environments(tmp_path: Path) -> None:
    more = ("masker=tiny", "num_envs=2", "image_size=84")
    found = []
    for name, fault in (("whole", ""), ("parts", "train.update:20:term")):
        code, output = train(tmp_path / name, fault, *more)
        assert code == (143 if fault else 0), output
        if fault:
            code, output = train(tmp_path / name, "", *more)
            assert code == 0 and "Resumed" in output, output
        found.append(digests(tmp_path / name, DECISIONS))
    assert found[0] == found[1]
