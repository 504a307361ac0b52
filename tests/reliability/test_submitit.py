"""The local executor of submitit preempts a training: it is saved, queued again, and ends the same."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest

from common.paths import PROJECT_ROOT
from tests.support.small_jobs import RUN, SmallJob
from tests.support.small_runs import fingerprint, make_run

pytestmark = [pytest.mark.crash, pytest.mark.usefixtures("one_thread")]


def task_of(jobs: Path) -> int:
    """Return the process that trains: SLURM signals it; the local executor's own would die of SIGUSR2."""
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = place.read_bytes().decode(errors="replace").split("\0")
            if "submitit.core._submit" in words and str(jobs) in words:
                return int(place.parent.name)
    raise AssertionError("no task is running")


@pytest.mark.reliability("4", "submitit interrupts a training: saved, queued again, the same result")
def test_an_interrupted_job_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    submitit = pytest.importorskip("submitit")
    monkeypatch.setenv("PYTHONPATH", str(PROJECT_ROOT))  # for the job's process
    whole = make_run(tmp_path / "whole", **RUN)
    whole.train()
    executor = submitit.LocalExecutor(folder=tmp_path / "jobs", max_num_timeout=3)
    executor.update_parameters(timeout_min=30, signal_delay_s=20)
    job = executor.submit(SmallJob(tmp_path / "run"))
    while not list((tmp_path / "run").glob("snapshots/step_*")):
        assert not job.done(), job.stderr()
        time.sleep(0.01)
    os.kill(task_of(tmp_path / "jobs"), signal.SIGUSR2)
    digest, resumed = job.result()
    assert resumed and digest == fingerprint(whole.agent)
