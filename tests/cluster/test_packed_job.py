"""Two runs in one job: a signal of SLURM lets both save, and only then is the job requeued."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from common.stopping import StopSignal

pytestmark = pytest.mark.cluster


def trains_until_stopped(launcher, name, *rest) -> None:
    """Stand in for a run: wait for the signal, then take a while to save."""
    folder = Path(os.environ["PACKED_TEST"])
    with StopSignal() as stop:
        (folder / f"{name}.running").touch()
        while stop.number is None:
            time.sleep(0.05)
    time.sleep(0.3)
    (folder / f"{name}.saved").touch()


def test_all_runs_of_a_job_save_before_it_is_requeued(tmp_path, monkeypatch):
    slurm = pytest.importorskip("training.sweeps.slurm", reason="pip install '.[slurm]'")
    monkeypatch.setattr(slurm._STOCK, "__call__", trains_until_stopped)
    monkeypatch.setenv("PACKED_TEST", str(tmp_path))
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    requeued: list[list[str]] = []

    def requeue(number, frame) -> None:
        requeued.append(sorted(path.name for path in tmp_path.glob("*.saved")))

    def preempt() -> None:
        while len(list(tmp_path.glob("*.running"))) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGUSR2)

    before = signal.signal(signal.SIGUSR2, requeue)
    try:
        threading.Thread(target=preempt, daemon=True).start()
        returned = slurm.SlurmLauncher()(['["a"]', '["b"]'], "hydra.sweep.dir", 0, "job", {})
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert requeued == [["['a'].saved", "['b'].saved"]]
    assert returned.overrides == ["a", "b"]
