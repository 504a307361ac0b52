"""Where numbers go: CSV files always; a progress display; TensorBoard and wandb on request."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor

from common.errors import DependencyError
from common.files import write_bytes
from training.finite import check_metrics
from training.status import Heartbeat
from training.tables import STEP, CsvTable

Row = dict[str, Any]


class Sink(Protocol):
    """Somewhere rows go besides the CSV files."""

    def write(self, table: str, row: Row) -> None:
        """Record the numbers of a row of ``table`` at its agent step."""
        ...

    def close(self) -> None:
        """Flush and let go."""
        ...


class MetricMean:
    """Means of the agent's metrics since the last question, kept on the device until then."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def add(self, metrics: dict[str, Tensor]) -> None:
        """Add the scalar metrics of one update; does not wait for the device."""
        self._count += 1
        for name, value in metrics.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value

    def check(self) -> None:
        """Raise ``NonFiniteError`` naming the first metric that is not finite."""
        check_metrics(self._sums)

    def take(self) -> dict[str, float]:
        """Check, return the means and start over."""
        self.check()
        means = {name: value.item() / self._count for name, value in self._sums.items()}
        self._sums, self._count = {}, 0
        return means

    def state_dict(self) -> dict[str, Any]:
        """Return sums and count, so that a resumed run logs the same rows."""
        return {"sums": dict(self._sums), "count": self._count}

    def load_state_dict(self, state: dict[str, Any], device: torch.device | str) -> None:
        """Restore what ``state_dict`` returned."""
        self._sums = {name: value.to(device) for name, value in state["sums"].items()}
        self._count = state["count"]


class Logger:
    """Writes ``train.csv`` and ``eval.csv`` of a run and shows how far it is.

    Args:
        run_dir: the run's directory.
        total_steps: decisions planned.
        resume_step: decisions made already; -1 starts the tables anew.
        use_tb: also TensorBoard event files in ``tb/``.
        use_wandb: also Weights & Biases (obeys ``WANDB_MODE``).
        wandb_options: further arguments of ``wandb.init`` such as project, group, config.
        interval: seconds between lines where the output is not a terminal.
        console: where progress is shown; standard output by default.
    """

    def __init__(
        self,
        run_dir: Path,
        total_steps: int,
        resume_step: int = -1,
        use_tb: bool = False,
        use_wandb: bool = False,
        wandb_options: dict[str, Any] | None = None,
        interval: float = 30.0,
        console: Console | None = None,
    ) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        self.metrics = MetricMean()
        self._tables = {name: CsvTable(run_dir / f"{name}.csv", resume_step) for name in ("train", "eval")}
        self._sinks: list[Sink] = []
        if use_tb:
            self._sinks.append(_TensorBoard(run_dir, resume_step))
        if use_wandb:
            self._sinks.append(_Wandb(run_dir, wandb_options or {}))
        self.console = console or Console(highlight=False)
        self._total, self._interval = total_steps, interval
        self._began, self._first_step = time.monotonic(), max(resume_step, 0)
        self._last_line, self._line_step, self._note = time.monotonic(), self._first_step, ""
        self._heartbeat, self._step = Heartbeat(run_dir, total_steps, self._first_step), self._first_step
        self._bar: tuple[Progress, TaskID] | None = None
        if self.console.is_terminal:
            columns = (
                TextColumn("{task.completed}/{task.total} decisions"),
                BarColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.description}"),
            )
            progress = Progress(*columns, console=self.console, refresh_per_second=2)
            progress.start()
            self._bar = progress, progress.add_task("", total=total_steps, completed=self._first_step)

    def last_step(self, table: str) -> int:
        """Return the agent step of the last row of ``train`` or ``eval``, -1 if there is none."""
        return self._tables[table].last_step

    def write(self, table: str, row: Row) -> None:
        """Add a row, which has ``agent_steps``, to ``train`` or ``eval`` and to every sink."""
        self._tables[table].append(row)
        for sink in self._sinks:
            sink.write(table, row)
        if "episode_return" in row:
            self._note = f"{table}: return {row['episode_return']:.1f}"
        if table == "eval":
            numbers = ", ".join(
                f"{name} {value:.3f}" for name, value in row.items() if isinstance(value, float)
            )
            self.print(f"evaluation at {row[STEP]} decisions: {numbers}")

    def sync(self) -> None:
        """Flush the tables to disk."""
        for table in self._tables.values():
            table.sync()

    def print(self, text: str) -> None:
        """Show a line above the progress display."""
        self.console.print(text, markup=False, soft_wrap=True)

    def progress(self, agent_steps: int) -> None:
        """Show how far the run is; cheap enough for every decision."""
        self._step = agent_steps
        self._heartbeat(agent_steps)
        if self._bar is not None:
            self._bar[0].update(self._bar[1], completed=agent_steps, description=self._note)
            return
        now = time.monotonic()
        if now - self._last_line >= self._interval:
            rate = (agent_steps - self._line_step) / max(now - self._last_line, 1e-9)
            self._last_line, self._line_step = now, agent_steps
            line = f"{agent_steps}/{self._total} decisions, {rate:.1f} per second"
            self.print(", ".join(filter(None, (line, self._note))))

    def rate(self, agent_steps: int) -> float:
        """Return decisions per second since this process began to log."""
        return (agent_steps - self._first_step) / max(time.monotonic() - self._began, 1e-9)

    def close(self) -> None:
        """Flush everything and remove the progress display."""
        self._heartbeat.report(self._step)
        if self._bar is not None:
            self._bar[0].stop()
        for sink in self._sinks:
            sink.close()


class _TensorBoard:
    """Event files; rows of later steps than ``resume_step`` are hidden by TensorBoard's own means."""

    def __init__(self, run_dir: Path, resume_step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise DependencyError(
                "use_tb=true needs the package tensorboard.", "Install it or set use_tb=false."
            ) from error
        purge = resume_step + 1 if resume_step >= 0 else None
        self._writer = SummaryWriter(str(run_dir / "tb"), purge_step=purge)

    def write(self, table: str, row: Row) -> None:
        for name, value in row.items():
            if name != STEP and isinstance(value, int | float):
                self._writer.add_scalar(f"{table}/{name}", value, row[STEP])

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    """A Weights & Biases run that a resumed training continues."""

    def __init__(self, run_dir: Path, options: dict[str, Any]) -> None:
        try:
            import wandb
        except ImportError as error:
            raise DependencyError(
                "use_wandb=true needs the package wandb.", "Install it or set use_wandb=false."
            ) from error
        id_file = run_dir / "wandb_id"
        if not id_file.exists():
            write_bytes(id_file, uuid.uuid4().hex[:8].encode())
        self._run = wandb.init(dir=str(run_dir), id=id_file.read_text(), resume="allow", **options)

    def write(self, table: str, row: Row) -> None:
        numbers = {f"{table}/{name}": v for name, v in row.items() if isinstance(v, int | float)}
        self._run.log(numbers, step=row[STEP])

    def close(self) -> None:
        self._run.finish()
