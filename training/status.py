"""How a run stands: ``status.json`` in its directory, for whoever looks at many runs at once.

Nothing that a run computes depends on this file. It is whole or absent, and a disk that refuses it stops
nobody: the last word on what was trained are the snapshots.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from common.errors import SamgError, describe_error
from common.files import write_json

FILE = "status.json"
RUNNING, DONE, STOPPED, FAILED = "running", "done", "stopped", "failed"
HEARTBEAT = 15.0  # seconds between two reports of a running run
_STEP = re.compile(r"step_(\d{10})")


@dataclass(frozen=True)
class RunStatus:
    """What a run last said of itself.

    Attributes:
        state: ``running``, ``done``, ``stopped`` (by a signal; goes on with the same command) or ``failed``.
        agent_steps: decisions made.
        planned_decisions: of the whole run; 0 before it is known.
        decisions_per_second: since the present process began; 0 before it is known.
        seconds: of wall clock, of all turns together.
        turns: how many processes have worked on it.
        updated: when this was written, in seconds since 1970.
        host, pid, job: who works on it; ``job`` is the cluster's number or "".
        error: ``{"type", "message", "hint", "exit_code"}`` of a failed run, else None.
    """

    state: str = RUNNING
    agent_steps: int = 0
    planned_decisions: int = 0
    decisions_per_second: float = 0.0
    seconds: float = 0.0
    turns: int = 0
    updated: float = 0.0
    host: str = ""
    pid: int = 0
    job: str = ""
    error: dict[str, Any] | None = None


def read_status(run_dir: Path) -> RunStatus | None:
    """Return what the run says; None where it says nothing, or nothing that can be read."""
    try:
        found = json.loads((run_dir / FILE).read_text())
        return RunStatus(**{f.name: found[f.name] for f in fields(RunStatus) if f.name in found})
    except (OSError, ValueError, TypeError):
        return None


def update_status(run_dir: Path, **changes: Any) -> None:
    """Change fields of the status; a disk that is full or refuses is none of the run's business."""
    before = read_status(run_dir) or RunStatus()
    with contextlib.suppress(OSError):
        write_json(run_dir / FILE, {**asdict(before), **changes, "updated": time.time()})


def saved_steps(run_dir: Path) -> int | None:
    """Return the decisions of the newest snapshot by its name (it is not verified); None without any."""
    found = [_STEP.fullmatch(path.name) for path in (run_dir / "snapshots").glob("step_*")]
    return max((int(match[1]) for match in found if match), default=None)


def is_done(run_dir: Path, planned_decisions: int) -> bool:
    """Return whether the run has said that it ended, and has a snapshot of all decisions that are planned."""
    status, steps = read_status(run_dir), saved_steps(run_dir)
    return status is not None and status.state == DONE and (steps or 0) >= planned_decisions


class Heartbeat:
    """Reports progress now and then, and cheaply.

    Args:
        run_dir: of the run.
        planned_decisions: of the whole run.
        first_step: decisions made before this process.
    """

    def __init__(self, run_dir: Path, planned_decisions: int, first_step: int) -> None:
        self._run_dir, self._planned, self._first_step = run_dir, planned_decisions, first_step
        self._began = self._last = time.monotonic()

    def __call__(self, agent_steps: int) -> None:
        """Report if it is time."""
        if time.monotonic() - self._last >= HEARTBEAT:
            self.report(agent_steps)

    def report(self, agent_steps: int) -> None:
        """Report now."""
        self._last = time.monotonic()
        rate = (agent_steps - self._first_step) / max(self._last - self._began, 1e-9)
        update_status(
            self._run_dir,
            agent_steps=agent_steps,
            planned_decisions=self._planned,
            decisions_per_second=round(rate, 3),
        )


@contextlib.contextmanager
def recorded(run_dir: Path) -> Iterator[None]:
    """Say that a run began, and how the block ended; every exception goes on its way."""
    before, began = read_status(run_dir) or RunStatus(), time.monotonic()
    job = os.environ.get("SLURM_JOB_ID", "")
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ.get('SLURM_ARRAY_TASK_ID')}"
    who = {"host": socket.gethostname(), "pid": os.getpid(), "job": job}
    update_status(run_dir, state=RUNNING, turns=before.turns + 1, error=None, **who)
    state, error = DONE, None
    try:
        yield
    except (SystemExit, KeyboardInterrupt):
        state = STOPPED
        raise
    except Exception as failure:
        state, error = FAILED, error_record(failure)
        raise
    finally:
        steps = saved_steps(run_dir)
        known = {} if steps is None else {"agent_steps": steps}
        seconds = round(before.seconds + time.monotonic() - began, 1)
        update_status(run_dir, state=state, error=error, seconds=seconds, **known)


def error_record(error: BaseException) -> dict[str, Any]:
    """Return an error as it is kept in a status, and as a sweep lists it."""
    known = describe_error(error)
    if isinstance(known, SamgError):
        kind, message, hint, code = type(known).__name__, known.message, known.hint, known.exit_code
    else:
        kind, message, hint, code = type(error).__name__, str(error), "", 1
    return {"type": kind, "message": message, "hint": hint, "exit_code": code}
