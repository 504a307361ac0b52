"""A training command that submitit can run on a cluster, stop and put into the queue again."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from typing import Any

from common.errors import DependencyError
from common.paths import PROJECT_ROOT


class TrainingJob:
    """``train.py`` with some overrides, as a function without arguments.

    ``submitit.AutoExecutor(folder=...).submit(TrainingJob(["task=walker_walk", "masker=tiny"]))``. When SLURM
    is about to end the job it sends SIGUSR2: the run saves, and only then submitit's handler asks for
    ``checkpoint`` and queues the same command again, which goes on from that snapshot.

    Args:
        arguments: Hydra overrides, as on the command line; they must name the run directory or leave it to
            the configuration, whose names hold no time.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self.arguments = list(arguments)

    def __call__(self) -> None:
        """Train in this process, whose main thread receives the signals."""
        script, before = str(PROJECT_ROOT / "train.py"), sys.argv
        sys.argv = [script, *self.arguments]
        try:
            runpy.run_path(script, run_name="__main__")
        finally:
            sys.argv = before

    def checkpoint(self) -> Any:
        """Return what submitit queues when the job was preempted or its time is up.

        Raises:
            DependencyError: submitit is not installed.
        """
        try:
            from submitit.helpers import DelayedSubmission
        except ImportError as error:
            raise DependencyError("Jobs on a cluster need the package submitit.", "Install it.") from error
        return DelayedSubmission(TrainingJob(self.arguments))
