"""How the runs of a folder stand, as a table that can be watched."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from training.guard import in_use
from training.status import DONE, FAILED, RUNNING, STOPPED, RunStatus, read_status, saved_steps
from training.sweeps.plan import planned_runs

WAITING, INTERRUPTED = "waiting", "interrupted"
STATES = (RUNNING, WAITING, STOPPED, INTERRUPTED, FAILED, DONE)
_COLOURS = {RUNNING: "cyan", DONE: "green", FAILED: "red", STOPPED: "yellow", INTERRUPTED: "yellow"}
_SILENT = 180.0  # seconds after which a run on another machine is taken for dead
_CONTINUED = (WAITING, STOPPED, INTERRUPTED)


@dataclass(frozen=True)
class Standing:
    """How one run stands.

    Attributes:
        name: its folder in the sweep's.
        state: one of ``STATES``: ``interrupted`` is a run that nobody works on and that could say no goodbye.
        status: its own words; None before it ever began.
        planned: decisions; 0 where nobody knows.
        evaluated: levels with a result.
    """

    name: str
    state: str
    status: RunStatus | None
    planned: int
    evaluated: int

    @property
    def seconds_left(self) -> float | None:
        """Wall clock that it needs at its present speed."""
        if self.status is None or not self.status.decisions_per_second or not self.planned:
            return None
        return max(self.planned - self.status.agent_steps, 0) / self.status.decisions_per_second


def standings(directory: Path) -> list[Standing]:
    """Return how every run of a folder stands.

    Raises:
        InputError: there is no such folder, or nothing in it.
    """
    found = []
    for name, planned in planned_runs(directory).items():
        folder = directory / name
        status = read_status(folder)
        results = [path for path in (folder / "eval").glob("*.json") if not path.name.startswith(".")]
        known = planned or (status.planned_decisions if status else 0)
        found.append(Standing(name, _state(folder, status), status, known, len(results)))
    return found


def _state(folder: Path, status: RunStatus | None) -> str:
    if status is None:
        return WAITING if saved_steps(folder) is None else INTERRUPTED
    if status.state != RUNNING:
        return status.state
    if in_use(folder):
        return RUNNING
    # Locks of other machines may not be seen here, and a run that begins or ends holds none for a moment.
    here, silent = status.host == socket.gethostname(), time.time() - status.updated
    alive = Path(f"/proc/{status.pid}").exists() if here else silent < _SILENT
    return RUNNING if alive else INTERRUPTED


def overview(directory: Path) -> Group:
    """Return the table of a folder of runs, with sums and errors below it."""
    runs = standings(directory)
    table = Table(box=None, header_style="bold")
    table.add_column("run", overflow="fold")
    table.add_column("state")
    for name in ("decisions", "planned", "per second", "left", "turns", "levels"):
        table.add_column(name, justify="right")
    table.add_column("job")
    for run in runs:
        status = run.status or RunStatus()
        table.add_row(
            run.name,
            Text(run.state, style=_COLOURS.get(run.state, "")),
            f"{status.agent_steps:,}",
            f"{run.planned:,}" if run.planned else "?",
            f"{status.decisions_per_second:.1f}" if status.decisions_per_second else "",
            _duration(run.seconds_left) if run.state == RUNNING else "",
            str(status.turns or ""),
            str(run.evaluated or ""),
            status.job,
        )
    return Group(table, Text(), *(Text(line) for line in [*_failures(runs), _sums(runs)]))


def _failures(runs: list[Standing]) -> list[str]:
    lines = []
    for run in runs:
        error = run.status.error if run.status else None
        if run.state == FAILED and error:
            lines.append(
                f"{run.name}: {error.get('type')}: {error.get('message')} {error.get('hint')}".rstrip()
            )
    if lines:
        lines.append("To try failed runs again: the same command with sweep.retry_failed=true.")
    return lines


def _sums(runs: list[Standing]) -> str:
    count = Counter(run.state for run in runs)
    parts = [f"{count[state]} {state}" for state in STATES if count[state]]
    left = _time_left(runs)
    return f"{len(runs)} runs: {', '.join(parts)}." + (f" About {_duration(left)} left." if left else "")


def _time_left(runs: list[Standing]) -> float | None:
    """Return the wall clock that all unfinished runs need, as many at once as run now."""
    running = [run for run in runs if run.state == RUNNING and run.seconds_left is not None]
    if not running:
        return None
    own = [run.seconds_left or 0.0 for run in running]
    rates = [run.status.decisions_per_second for run in running if run.status]
    rate = sum(rates) / len(rates)
    waiting = [run for run in runs if run.state in _CONTINUED]
    missing = sum(max(run.planned - (run.status.agent_steps if run.status else 0), 0) for run in waiting)
    return max(max(own), (sum(own) + missing / rate) / len(running))


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min {int(seconds % 60):02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes < 48 * 60 else f"{minutes / 1440:.1f} days"


def watch(
    directory: Path, every: float, console: Console, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Show the table and renew it every so many seconds, until every run is done or has failed."""
    with Live(overview(directory), console=console, auto_refresh=False) as live:
        while any(run.state not in (DONE, FAILED) for run in standings(directory)):
            sleep(every)
            live.update(overview(directory), refresh=True)
