"""SIGTERM, SIGUSR2 and Ctrl-C in every phase: saved, told how to go on, nothing repeated."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from common import faults
from common.stopping import StopSignal, run_stoppable
from tests.support.small_runs import fingerprint, intact, make_run, output
from training.snapshot import read_manifest

pytestmark = pytest.mark.usefixtures("one_thread")
CODES = {"term": 143, "usr2": 143, "int": 130}
PHASES = ("train.act:45", "train.update:15", "train.step:45", "train.reset:5", "evaluate.step:2")
PHASES += ("snapshot.file:5",)


@pytest.fixture(autouse=True)
def disarmed() -> Any:
    yield
    faults.arm("")


@pytest.fixture(scope="module")
def whole(one_thread_in_module: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    run = make_run(tmp_path_factory.mktemp("whole"))
    run.train()
    return fingerprint(run.agent)


@pytest.mark.crash
@pytest.mark.reliability("3", "a signal while acting, updating, evaluating, saving: nothing is repeated")
@pytest.mark.parametrize("action", CODES)
@pytest.mark.parametrize("phase", PHASES)
def test_a_signal_in_any_phase_saves(phase: str, action: str, whole: str, tmp_path: Path) -> None:
    faults.arm(f"{phase}:{action}")
    run = make_run(tmp_path)
    with pytest.raises(SystemExit) as caught:
        run.train()
    assert caught.value.code == CODES[action]
    path = run.store.paths()[-1]
    assert read_manifest(path)["agent_steps"] == run.agent_steps
    assert f"Stopped; saved {path}. To continue: train again" in output(run)
    faults.arm("")
    again = make_run(tmp_path)
    again.train()
    assert f"at {run.agent_steps} decisions" in output(again) and fingerprint(again.agent) == whole


@pytest.mark.reliability("3", "the second Ctrl-C ends at once and leaves the last good snapshot")
def test_the_second_interrupt_does_not_wait_for_the_snapshot(tmp_path: Path) -> None:
    faults.arm("snapshot.file:5:int,snapshot.staged:2:int")  # in the second snapshot
    with pytest.raises(KeyboardInterrupt):
        make_run(tmp_path).train()
    assert intact(tmp_path) == 30 and not list(tmp_path.rglob(".stage-*"))


@pytest.mark.reliability("3", "a signal while the masker is fitted ends the program at once")
@pytest.mark.parametrize("action", CODES)
def test_a_signal_while_the_masker_is_fitted(
    action: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from samg import build_masker
    from tests.support.maskers import fake_reference

    def work(stop: StopSignal) -> None:
        build_masker("tiny").fit(fake_reference()).save(tmp_path / "masker")

    faults.arm(f"masker.fit:1:{action}")
    with pytest.raises(SystemExit) as caught:
        run_stoppable(work, "python train.py")
    assert caught.value.code == CODES[action] and not (tmp_path / "masker").exists()
    assert "python train.py" in capsys.readouterr().out


@pytest.mark.reliability("3", "a signal while a run is resumed ends at once; its snapshots stay")
def test_a_signal_while_resuming(tmp_path: Path) -> None:
    make_run(tmp_path, num_train_frames=100).train()
    (tmp_path / "replay" / "episode_0000000099_10.npz").write_bytes(b"newer than the snapshot")
    faults.arm("replay.moved:1:term")
    run = make_run(tmp_path)
    with pytest.raises(SystemExit) as caught:
        run.train()
    assert caught.value.code == 143 and "Stopped at the start" in output(run)
    assert intact(tmp_path) == 50


@pytest.mark.reliability("4", "a handler of before, as submitit's, is called once all is saved")
def test_the_handler_of_before_is_called_after_saving(tmp_path: Path) -> None:
    seen: list[int] = []

    def requeue(number: int, frame: object) -> None:
        seen.append(intact(tmp_path))
        raise SystemExit(-1)

    before = signal.signal(signal.SIGUSR2, requeue)
    try:
        faults.arm("train.step:45:usr2")
        with pytest.raises(SystemExit) as caught:
            make_run(tmp_path).train()
        assert caught.value.code == -1 and seen == [45]
        assert signal.getsignal(signal.SIGUSR2) is requeue
    finally:
        signal.signal(signal.SIGUSR2, before)


@pytest.mark.reliability("4", "a job of submitit that is preempted is queued again as it was")
def test_a_training_job_checkpoints_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    from types import SimpleNamespace

    from training.submission import TrainingJob

    class Delayed:
        def __init__(self, function: Any, *args: Any) -> None:
            self.function, self.args = function, args

    helpers = SimpleNamespace(DelayedSubmission=Delayed)
    monkeypatch.setitem(sys.modules, "submitit", SimpleNamespace(helpers=helpers))
    monkeypatch.setitem(sys.modules, "submitit.helpers", helpers)  # type: ignore[misc]
    job = TrainingJob(["task=walker_walk", "masker=tiny"])
    again = job.checkpoint()
    assert isinstance(again.function, TrainingJob) and again.function.arguments == job.arguments
    ran: list[list[str]] = []
    run_path = lambda path, run_name: ran.append(list(sys.argv))  # noqa: E731
    monkeypatch.setattr("training.submission.runpy.run_path", run_path)
    kept = list(sys.argv)
    again.function(*again.args)
    assert ran[0][0].endswith("train.py") and ran[0][1:] == job.arguments and sys.argv == kept


def test_the_number_of_this_process_is_not_lost() -> None:
    """The signals of this file go to this process, so a handler must be in place."""
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGUSR2)
        assert stop.number == signal.SIGUSR2 and stop.exit_code == 143
