"""A real SLURM of one node: an array of four, one preempted, one failing; then evaluation and report."""

import json
import os
import subprocess

import pytest

from common.paths import PROJECT_ROOT
from tests.support.sweeps import DECISIONS, SMALL, run, snapshots, start, wait_for
from training.status import DONE, FAILED, STOPPED, read_status

pytestmark = pytest.mark.cluster
NODE = str(PROJECT_ROOT / "setup" / "slurm_node.sh")
RESOURCES = ("hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=3")
SWEEP = ("+launcher=slurm", "task=cartpole_balance", "seed=0,1,2,3", *RESOURCES, *SMALL)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """Start a node; yield what scripts need in their environment."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="pip install '.[slurm]'")
    checked = subprocess.run([NODE, "check"], capture_output=True, text=True)
    if checked.returncode:
        pytest.skip(checked.stderr.strip())
    folder = str(tmp_path_factory.mktemp("slurm"))
    try:
        subprocess.run([NODE, "start", folder], check=True)
        os.environ["SLURM_CONF"] = f"{folder}/slurm.conf"
        yield {"SLURM_CONF": os.environ["SLURM_CONF"]}
    finally:
        os.environ.pop("SLURM_CONF", None)
        subprocess.run([NODE, "stop", folder], check=True)


def slurm_says(*command: str) -> str:
    # scancel repeats a signal that was delivered, and complains when the job is on its way into the queue.
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def test_an_unknown_partition_is_refused_before_anything_is_submitted(slurm, tmp_path):
    code, said = run(
        "train.py", *SWEEP, "hydra.launcher.partition=mian", f"hydra.sweep.dir={tmp_path / 's'}", **slurm
    )
    assert code == 2 and "no SLURM partition 'mian'" in said and "Did you mean main?" in said, said
    assert not (tmp_path / "s").exists()


def test_preempted_and_failing_jobs_then_evaluation_and_report(slurm, tmp_path):
    folder = tmp_path / "sweep"
    runs = [folder / "cartpole_balance" / f"drqv2-none-s{seed}" for seed in range(4)]
    (runs[3] / "snapshots" / "step_0000000010.bad-1").mkdir(parents=True)  # nothing to go on from: it fails
    front = start("train.py", *SWEEP, f"hydra.sweep.dir={folder}", **slurm)

    wait_for("snapshot", lambda: snapshots(runs[0]) or front.poll() is not None)
    assert front.poll() is None, front.communicate()
    job, saved = read_status(runs[0]).job, snapshots(runs[0])
    slurm_says("scancel", "--signal=USR2", job)
    wait_for("end of the first turn", lambda: read_status(runs[0]).state == STOPPED)
    assert len(snapshots(runs[0])) > len(saved)  # it saved when it was told, not at the next period
    wait_for("requeue", lambda: "PENDING" in slurm_says("scontrol", "show", "job", job))
    code, said = run("sweep.py", "status", str(folder), **slurm)
    assert code == 0 and "1 stopped" in said, said
    slurm_says("scontrol", "update", f"JobId={job}", "StartTime=now")  # not in two minutes

    said, _ = front.communicate()
    assert front.returncode == 6, said
    assert "3 done, 1 failed" in said
    statuses = [read_status(path) for path in runs]
    assert [status.state for status in statuses] == [DONE, DONE, DONE, FAILED]
    assert [status.turns for status in statuses] == [2, 1, 1, 1]
    assert {status.agent_steps for status in statuses[:3]} == {DECISIONS}
    assert statuses[3].error["type"] == "SnapshotError"

    code, said = run("sweep.py", "status", str(folder), **slurm)
    assert code == 0 and "4 runs: 1 failed, 3 done." in said and "SnapshotError" in said, said

    flags = ("--mode", "train", "--episodes", "1", "+launcher=slurm", *RESOURCES)
    code, said = run("sweep.py", "evaluate", str(folder), *flags, **slurm)
    assert code == 0 and "Evaluated 3 finished runs of 4" in said, said
    for path in runs[:3]:
        (result,) = (path / "eval").glob("*.json")
        assert len(json.loads(result.read_text())["episode_returns"]) == 1
    code, said = run("report.py", str(folder), "--out", str(tmp_path / "report"))
    assert code == 0 and "3 results" in said, said
