"""A real sweep on this machine, killed in the middle: every run ends once, equal to one never interrupted."""

import os
import signal

import pytest

from tests.support.sweeps import DECISIONS, SMALL, digests, run, snapshots, start, wait_for
from training.status import DONE, read_status

pytestmark = pytest.mark.cluster
TASKS = ("cartpole_balance", "pendulum_swingup")
SWEEP = (
    "--multirun",
    "+launcher=local",
    "hydra.launcher.n_jobs=2",
    f"task={','.join(TASKS)}",
    "seed=0,1",
    *SMALL,
)


def test_a_killed_sweep_goes_on_and_ends_with_the_same_figures(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="pip install '.[local]'")
    folder, whole = tmp_path / "killed", tmp_path / "whole"
    runs = [f"{task}/drqv2-none-s{seed}" for task in TASKS for seed in (0, 1)]
    process = start("train.py", *SWEEP, f"hydra.sweep.dir={folder}")
    wait_for("snapshot of two runs", lambda: sum(bool(snapshots(folder / name)) for name in runs) >= 2)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()

    code, said = run("train.py", *SWEEP, f"hydra.sweep.dir={folder}")
    assert code == 0, said
    assert said.count("Resumed") == 2 and "4 done" in said
    statuses = [read_status(folder / name) for name in runs]
    assert {(status.state, status.agent_steps) for status in statuses} == {(DONE, DECISIONS)}

    code, said = run("train.py", *SWEEP, f"hydra.sweep.dir={whole}")
    assert code == 0, said
    for name in runs:
        assert digests(folder / name) == digests(whole / name)

    times = [path.stat().st_mtime for path in folder.rglob("*.safetensors")]
    code, said = run("train.py", *SWEEP, f"hydra.sweep.dir={folder}")
    assert code == 0 and said.count("finished before") == 4, said
    assert times == [path.stat().st_mtime for path in folder.rglob("*.safetensors")]
