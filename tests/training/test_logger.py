"""Tables with stable columns, progress without a terminal, TensorBoard, wandb, schedules of the loop."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console

from common.errors import NonFiniteError
from training.logger import Logger, MetricMean
from training.schedule import Every, Until
from training.tables import CsvTable


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_columns_stay_and_new_ones_come_last(tmp_path: Path) -> None:
    table = CsvTable(tmp_path / "t.csv")
    table.append({"agent_steps": 1, "a": 0.5})
    table.append({"agent_steps": 2, "loss": 1e-9, "a": 2})
    table.append({"agent_steps": 3, "a": float("nan")})
    assert lines(table.path) == ["agent_steps,a,loss", "1,0.5,", "2,2,1e-09", "3,nan,"]
    assert table.last_step == 3


def test_later_rows_and_cut_lines_are_dropped_on_resume(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("agent_steps,a\n10,1\n20,2\n30,3\n40")
    table = CsvTable(path, resume_step=20)
    assert lines(path) == ["agent_steps,a", "10,1", "20,2"] and table.last_step == 20
    path.write_text("agent_steps,a\n10,1\n20,2")
    assert lines(CsvTable(path, resume_step=20).path) == ["agent_steps,a", "10,1"]
    path.write_text("agent_steps,a\n10,1\n15\n20,2\n")
    assert lines(CsvTable(path, resume_step=20).path) == ["agent_steps,a", "10,1", "20,2"]
    assert CsvTable(path).last_step == -1
    assert not path.exists(), "a run that begins anew begins its tables anew"
    path.write_text("")
    CsvTable(path).append({"agent_steps": 1})
    assert lines(path) == ["agent_steps", "1"]


def test_means_of_metrics_and_what_is_not_finite() -> None:
    mean = MetricMean()
    for value in (1.0, 2.0, 6.0):
        mean.add({"loss": torch.tensor(value), "q": torch.tensor(-value)})
    again = MetricMean()
    again.load_state_dict(mean.state_dict(), "cpu")
    assert mean.take() == again.take() == {"loss": 3.0, "q": -3.0}
    assert mean.take() == {}
    mean.add({"loss": torch.tensor(1.0), "q": torch.tensor(float("inf"))})
    with pytest.raises(NonFiniteError, match="The update's q is inf"):
        mean.take()


def make_logger(run_dir: Path, **options: object) -> Logger:
    return Logger(run_dir, 1000, console=Console(file=io.StringIO()), **options)  # type: ignore[arg-type]


def test_without_a_terminal_a_line_comes_every_interval(tmp_path: Path) -> None:
    logger = make_logger(tmp_path, interval=3600.0)
    logger.write("train", {"agent_steps": 10, "episode_return": 5.0})
    for step in range(20):
        logger.progress(step)
    assert logger.console.file.getvalue() == ""  # type: ignore[attr-defined]
    logger._interval = 0.0
    logger.progress(20)
    shown = logger.console.file.getvalue()  # type: ignore[attr-defined]
    assert shown.startswith("20/1000 decisions") and "return 5.0" in shown
    logger.write("eval", {"agent_steps": 20, "episode_return": 7.25})
    assert "evaluation at 20 decisions: episode_return 7.250" in logger.console.file.getvalue()  # type: ignore[attr-defined]
    logger.close()


def test_on_a_terminal_a_bar_is_drawn_and_removed(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=120)
    logger = Logger(tmp_path, 1000, console=console)
    logger.progress(500)
    logger.print("a [line] of its own")
    logger.close()
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "500/1000 decisions" in shown and "a [line] of its own" in shown


def test_tensorboard_gets_every_number(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = make_logger(tmp_path, use_tb=True)
    logger.write("train", {"agent_steps": 10, "episode_return": 5.0, "level": "train"})
    logger.write("train", {"agent_steps": 20, "episode_return": 6.0})
    logger.close()
    resumed = make_logger(tmp_path, use_tb=True, resume_step=10)
    resumed.write("train", {"agent_steps": 20, "episode_return": 7.0})
    resumed.close()
    events = EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    assert events.Tags()["scalars"] == ["train/episode_return"]
    found = [(event.step, event.value) for event in events.Scalars("train/episode_return")]
    assert found == [(10, 5.0), (20, 7.0)], "what followed the snapshot was replaced"


def test_wandb_works_offline_and_keeps_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    ids = []
    for step in (-1, 10):
        logger = make_logger(tmp_path, use_wandb=True, wandb_options={"project": "p"}, resume_step=step)
        logger.write("train", {"agent_steps": step + 20, "episode_return": 5.0})
        logger.close()
        ids.append((tmp_path / "wandb_id").read_text())
    assert ids[0] == ids[1] and len(ids[0]) == 8
    assert len(list(tmp_path.glob(f"wandb/offline-run-*-{ids[0]}/run-{ids[0]}.wandb"))) >= 1


def test_until_and_every_count_frames() -> None:
    until = Until(11, action_repeat=2)
    assert [until(step) for step in (0, 4, 5)] == [True, True, False]
    assert Until(None)(10**9)
    every = Every(20, action_repeat=2)
    assert [step for step in range(1, 41) if every(step)] == [10, 20, 30, 40]
    strided = Every(20, action_repeat=2, stride=4)
    assert [step for step in range(4, 45, 4) if strided(step)] == [12, 20, 32, 40]
    assert not any(Every(0)(step) for step in range(10)) and not Every(None)(3)
    assert all(Every(1, action_repeat=4)(step) for step in range(1, 5))


def test_a_table_that_starts_anew_keeps_the_old_one(tmp_path: Path) -> None:
    for number in range(3):
        CsvTable(tmp_path / "train.csv", -1).append({"agent_steps": number, "x": 1.0})
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == ["train.csv", "train.old-1.csv", "train.old-2.csv"]
    assert (tmp_path / "train.old-1.csv").read_text().splitlines()[1] == "0,1"
