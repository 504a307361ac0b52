"""What ``sweep.py status`` and ``evaluate`` say of a folder of runs."""

import os
import socket
import time

import pytest
from rich.console import Console

import sweep as script
from common.errors import ConfigError, InputError
from common.files import write_json
from evaluation.report.loading import read_inputs
from training.guard import exclusive
from training.status import DONE, FAILED, HEARTBEAT, RUNNING, STOPPED, Heartbeat, read_status, update_status
from training.sweeps import evaluation, overview


@pytest.fixture
def folder(tmp_path):
    """Return a folder with a run in every state."""
    names = ("done", "failed", "running", "gone", "far", "lost", "stopped", "waiting")
    runs = {name: {"overrides": [], "decisions": 1000} for name in names}
    write_json(tmp_path / ".sweep" / "plan.json", {"version": 1, "runs": runs})
    here = {"host": socket.gethostname(), "pid": os.getpid()}
    for name in names[:-1]:
        (tmp_path / name).mkdir()
    update_status(tmp_path / "done", state=DONE, agent_steps=1000, turns=2)
    update_status(
        tmp_path / "failed", state=FAILED, error={"type": "InputError", "message": "No.", "hint": "Yes."}
    )
    running = {"state": RUNNING, "decisions_per_second": 2.0, "agent_steps": 400}
    update_status(tmp_path / "running", **running, **here)
    update_status(tmp_path / "gone", state=RUNNING, host=here["host"], pid=2**22 + 1)
    update_status(tmp_path / "far", **running, host="elsewhere", job="12_3")
    update_status(tmp_path / "lost", state=RUNNING, host="elsewhere")
    aged = read_status(tmp_path / "lost")
    write_json(tmp_path / "lost" / "status.json", {**vars(aged), "updated": time.time() - 3600})
    update_status(tmp_path / "stopped", state=STOPPED, agent_steps=250)
    (tmp_path / "done" / "eval").mkdir()
    (tmp_path / "done" / "eval" / "train-dmcgb-none-s0.json").write_text("{}")
    return tmp_path


def test_every_state_is_told(folder):
    states = {run.name: run.state for run in overview.standings(folder)}
    assert states == {
        "done": "done",
        "failed": "failed",
        "running": "running",
        "gone": "interrupted",
        "far": "running",
        "lost": "interrupted",
        "stopped": "stopped",
        "waiting": "waiting",
    }
    with exclusive(folder / "gone"):  # whatever its status says: somebody holds it
        assert {run.name: run.state for run in overview.standings(folder)}["gone"] == "running"


def test_the_table_has_progress_speed_time_left_and_errors(folder):
    console = Console(record=True, width=140)
    console.print(overview.overview(folder))
    text = console.export_text()
    assert "failed: InputError: No. Yes." in text and "sweep.retry_failed=true" in text
    assert "8 runs: 2 running, 1 waiting, 1 stopped, 2 interrupted, 1 failed, 1 done." in text
    assert "5 min 00 s" in text and "12_3" in text  # 600 decisions at 2 per second
    # (600 + 600 of those that run + 3 x 1000 + 750 of the others) / 2 per second / 2 at once
    assert "About 20 min 37 s left." in text
    row = next(line for line in text.splitlines() if line.split()[:1] == ["done"])
    assert row.split() == ["done", "done", "1,000", "1,000", "2", "1"]


def test_watching_ends_when_all_is_over(folder):
    def finish(seconds: float) -> None:
        for run in overview.standings(folder):
            (folder / run.name).mkdir(exist_ok=True)
            update_status(folder / run.name, state=DONE)

    overview.watch(folder, 1.0, Console(record=True, width=100), sleep=finish)


def test_a_report_passes_over_runs_that_never_began(folder):
    with pytest.raises(InputError, match="No results in"):
        read_inputs([folder / "failed"])
    (folder / "done" / "config.yaml").write_text("{")
    with pytest.raises(InputError) as caught:
        read_inputs([folder])
    assert "status.json" not in str(caught.value) and "plan.json" not in str(caught.value)


def test_reports_of_progress_are_rare(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("training.status.time.monotonic", lambda: now[0])
    beat = Heartbeat(tmp_path, 100, 10)
    beat(20)
    assert read_status(tmp_path) is None
    now[0] = HEARTBEAT
    beat(40)
    status = read_status(tmp_path)
    assert (status.agent_steps, status.planned_decisions, status.decisions_per_second) == (40, 100, 2.0)


def test_nothing_to_evaluate_is_said(folder):
    with pytest.raises(InputError, match="is finished"):
        evaluation.evaluate(folder, [], [])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["stats"], "Unknown command 'stats'.*mean status"),
        (["status"], "Expected the folder of a sweep, got nothing"),
        (["status", "x", "--watch", "0.5", "y"], "got x y"),
        (["plan", "--rate", "fast"], "--rate fast is no speed"),
    ],
)
def test_bad_arguments_are_named(arguments, words):
    import re

    with pytest.raises(ConfigError) as caught:
        script.main(arguments)
    assert re.search(words, str(caught.value))


def test_help_is_the_manual(capsys):
    assert script.main(["--help"]) == 0
    assert "sweep.py evaluate" in capsys.readouterr().out
