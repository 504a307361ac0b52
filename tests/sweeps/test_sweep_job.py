"""A job among many: what happens to it happens to no other, and what is done is not done again."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from common.errors import InputError
from common.stopping import StopSignal
from training.guard import exclusive, in_use
from training.status import DONE, FAILED, RUNNING, STOPPED, is_done, read_status, recorded, update_status
from training.sweeps import front, job
from training.sweeps.expand import PlannedRun, Sweep
from training.sweeps.job import requeueing, run_job

CFG = OmegaConf.create(
    {"num_train_frames": 200, "action_repeat": 2, "resume": "auto", "debug": False, "device": "cpu"}
    | {"sweep": {"retry_failed": False}}
)


def snapshot(run_dir: Path, steps: int) -> None:
    (run_dir / "snapshots" / f"step_{steps:010d}").mkdir(parents=True)


@pytest.fixture
def in_sweep(monkeypatch):
    monkeypatch.setattr(job, "in_sweep", lambda: True)
    monkeypatch.setattr(job, "_choose_gpu", lambda cfg: None)


@pytest.fixture
def alone(monkeypatch):
    monkeypatch.setattr(job, "in_sweep", lambda: False)


def trains_to(run_dir: Path, steps: int = 100):
    def train() -> None:
        assert read_status(run_dir).state == RUNNING
        calls.append(run_dir)
        snapshot(run_dir, steps)

    calls: list[Path] = []
    return train, calls


def fails_with(error: BaseException):
    def train() -> None:
        raise error

    return train


def test_a_finished_run_is_done_and_is_not_trained_again(alone, tmp_path):
    train, calls = trains_to(tmp_path)
    run_job(train, CFG, tmp_path)
    status = read_status(tmp_path)
    assert (status.state, status.agent_steps, status.turns, status.pid) == (DONE, 100, 1, os.getpid())
    run_job(train, CFG, tmp_path)
    assert len(calls) == 1
    assert not is_done(tmp_path, 101)  # more decisions are planned: it goes on


def test_alone_an_error_ends_the_process_with_its_code_and_is_remembered(alone, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        run_job(fails_with(InputError("No picture.", "Draw one.")), CFG, tmp_path)
    assert caught.value.code == 3
    assert "error: No picture.\n  cure: Draw one." in capsys.readouterr().err
    assert read_status(tmp_path).error["exit_code"] == 3


def test_in_a_sweep_a_failure_stays_with_its_run_and_is_retried_on_demand(in_sweep, tmp_path, caplog):
    run_job(fails_with(InputError("No picture.", "Draw one.")), CFG, tmp_path)
    status = read_status(tmp_path)
    assert status.state == FAILED
    assert status.error["message"] == "No picture." and status.error["type"] == "InputError"
    train, calls = trains_to(tmp_path)
    with caplog.at_level("INFO"):
        run_job(train, CFG, tmp_path)
    assert not calls and "failed before (No picture.)" in caplog.text
    run_job(train, OmegaConf.merge(CFG, {"sweep": {"retry_failed": True}}), tmp_path)
    assert calls and read_status(tmp_path).state == DONE and read_status(tmp_path).error is None


def test_an_unknown_error_is_recorded_too(in_sweep, tmp_path):
    run_job(fails_with(ZeroDivisionError("by zero")), CFG, tmp_path)
    assert read_status(tmp_path).error == {
        "type": "ZeroDivisionError",
        "message": "by zero",
        "hint": "",
        "exit_code": 1,
    }


def test_a_signal_stops_the_run_and_the_jobs_behind_it(in_sweep, tmp_path, monkeypatch):
    stop = tmp_path / f"sweep-{os.getpid()}" / "stop"
    stop.parent.mkdir()
    monkeypatch.setenv(job.STOP_FILE, str(stop))
    run_job(fails_with(SystemExit(143)), CFG, tmp_path / "one")
    assert read_status(tmp_path / "one").state == STOPPED and stop.exists()
    train, calls = trains_to(tmp_path / "two")
    run_job(train, CFG, tmp_path / "two")
    assert not calls and read_status(tmp_path / "two") is None


def test_a_run_that_another_process_trains_is_left_to_it(in_sweep, tmp_path):
    update_status(tmp_path, state=RUNNING, pid=1)
    train, calls = trains_to(tmp_path)
    with exclusive(tmp_path):
        assert in_use(tmp_path)
        run_job(train, CFG, tmp_path)
    assert not calls and read_status(tmp_path).pid == 1
    assert not in_use(tmp_path) and not in_use(tmp_path / "nowhere")


def test_another_experiment_changes_nothing_of_a_finished_run(in_sweep, tmp_path):
    train, calls = trains_to(tmp_path)
    (tmp_path / "config.yaml").write_text("{nstep: 3, agent: {_target_: a}}")
    snapshot(tmp_path, 100)
    update_status(tmp_path, state=DONE)
    before = (tmp_path / "status.json").read_bytes()
    run_job(train, OmegaConf.merge(CFG, {"nstep": 5, "agent": {"_target_": "a"}}), tmp_path)
    assert not calls and (tmp_path / "status.json").read_bytes() == before


def test_a_status_that_cannot_be_written_stops_nobody(tmp_path):
    (tmp_path / "file").write_text("")
    with recorded(tmp_path / "file"):
        update_status(tmp_path / "file", agent_steps=3)


@pytest.fixture
def submitit_handler(monkeypatch):
    came: list[str] = []
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    before = signal.signal(signal.SIGUSR2, lambda number, frame: came.append("requeued"))
    yield came
    signal.signal(signal.SIGUSR2, before)


def test_a_preempted_run_saves_before_submitit_puts_it_back_into_the_queue(submitit_handler):
    came = submitit_handler
    with requeueing() as answer:
        with pytest.raises(SystemExit), StopSignal() as stop:
            os.kill(os.getpid(), signal.SIGUSR2)
            assert stop.number == signal.SIGUSR2 and came == []
            came.append("saved")
            stop.leave()
        assert stop.number == signal.SIGUSR2  # nobody was asked again
        os.kill(os.getpid(), signal.SIGUSR2)  # said twice: the answer is on its way
        answer()
    os.kill(os.getpid(), signal.SIGUSR2)
    assert came == ["saved", "requeued"]


def test_where_nobody_trains_submitit_answers_at_once_and_otherwise_never(submitit_handler):
    with requeueing() as answer:
        answer()
        assert submitit_handler == []
        os.kill(os.getpid(), signal.SIGUSR2)
        assert submitit_handler == ["requeued"]


def test_several_runs_of_a_job_are_asked_together(submitit_handler):
    asked: list[int] = []
    with requeueing(lambda: not asked.append(1)) as answer:
        os.kill(os.getpid(), signal.SIGUSR2)
        assert asked == [1] and submitit_handler == []
        answer()
    assert submitit_handler == ["requeued"]


def sweep_of(directory: Path, *names: str) -> Sweep:
    return Sweep(directory, "slurm", {}, tuple(PlannedRun((f"seed={n}",), n, CFG) for n in names))


def test_the_end_of_a_sweep_lists_what_failed_and_returns_its_code(tmp_path, capsys):
    update_status(tmp_path / "a", state=DONE)
    (tmp_path / "b").mkdir()
    update_status(
        tmp_path / "b", state=FAILED, error={"message": "Full.", "hint": "Free some.", "exit_code": 5}
    )
    assert front.sum_up(sweep_of(tmp_path, "a")) == 0
    assert "sweep.py evaluate" in capsys.readouterr().out
    assert front.sum_up(sweep_of(tmp_path, "a", "b", "c")) == 5
    said = capsys.readouterr().out
    assert "failed   b: Full. Free some." in said and "1 done, 1 failed, 1 waiting" in said
    assert "sweep.retry_failed=true" in said
    assert front.sum_up(sweep_of(tmp_path, "a", "c")) == 143


def test_slurm_jobs_are_made_for_open_runs_only_and_hold_several(tmp_path, monkeypatch):
    slurm = pytest.importorskip("training.sweeps.slurm")
    snapshot(tmp_path / "a", 100)
    update_status(tmp_path / "a", state=DONE)
    (tmp_path / "b").mkdir()
    update_status(tmp_path / "b", state=FAILED)
    launched: list[list[list[str]]] = []
    monkeypatch.setattr(slurm._STOCK, "launch", lambda self, groups, first: launched.append(groups) or [])
    launcher = slurm.SlurmLauncher()
    launcher.config = SimpleNamespace(sweep=SimpleNamespace(pack=2))
    monkeypatch.setattr(slurm.SlurmLauncher, "sweep", sweep_of(tmp_path, *"abcde"))
    launcher.launch([[f"seed={name}"] for name in "abcde"], 0)
    assert launched == [[['["seed=c"]', '["seed=d"]'], ['["seed=e"]']]]
    launcher.launch([["seed=a"]], 0)
    assert len(launched) == 1  # nothing to do


def test_only_processes_of_this_sweep_are_told_to_stop():
    assert not front._is_descendant(1) and not front._is_descendant(os.getpid())
    assert not front._is_descendant(2**22 + 1)
