"""The local executor of submitit preempts a training: it is saved, queued again, and ends the same."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.small_runs import fingerprint, make_run

pytestmark = [pytest.mark.crash, pytest.mark.usefixtures("one_thread")]
RUN = {"num_train_frames": 1200}


class SmallJob:
    """What ``training.submission.TrainingJob`` is to ``train.py``, for the fake environment."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir

    def __call__(self) -> tuple[str, bool]:
        torch.set_num_threads(1)
        run = make_run(self.run_dir, **RUN)
        run.train()
        return fingerprint(run.agent), "Resumed" in run.console.file.getvalue()  # type: ignore[attr-defined]

    def checkpoint(self) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(SmallJob(self.run_dir))


@pytest.mark.reliability("4", "submitit interrupts a training: saved, queued again, the same result")
def test_an_interrupted_job_goes_on(tmp_path: Path) -> None:
    submitit = pytest.importorskip("submitit")
    whole = make_run(tmp_path / "whole", **RUN)
    whole.train()
    executor = submitit.LocalExecutor(folder=tmp_path / "jobs", max_num_timeout=3)
    executor.update_parameters(timeout_min=30, signal_delay_s=20)
    job = executor.submit(SmallJob(tmp_path / "run"))
    while not list((tmp_path / "run").glob("snapshots/step_*")):
        assert not job.done(), job.stderr()
        time.sleep(0.01)
    job._interrupt(timeout=False)
    digest, resumed = job.result()
    assert resumed and digest == fingerprint(whole.agent)
