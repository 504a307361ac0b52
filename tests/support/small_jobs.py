"""A small training as a job, in a module of its own: the process that runs it imports it by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.support.small_runs import fingerprint, make_run

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
