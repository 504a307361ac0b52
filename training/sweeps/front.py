"""The process that launches a sweep: plans it, lets runs save when it is interrupted, and sums up."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from common.errors import run_script
from training.status import DONE, FAILED, RUNNING, read_status
from training.sweeps.expand import Sweep, chosen_launcher, is_sweep
from training.sweeps.job import STOP_FILE, jobs_here
from training.sweeps.launchers import let_jobs_import
from training.sweeps.plan import check_disk, make_plan, write_plan

_INFORMS_ONLY = ("--cfg", "-c", "--info", "-i", "--hydra-help", "--version", "--shell-completion", "-sc")


def run_command(main: Callable[[], None]) -> None:
    """Run ``train.py``: show the manual, or check the command line, train, and sum up a sweep.

    Args:
        main: the function that Hydra has wrapped; its docstring is the manual.
    """
    from training.config import prepare_command_line

    found: list[Sweep] = []

    def prepare() -> None:
        sys.argv[1:] = prepare_command_line(sys.argv[1:], main.__doc__)
        informs = any(argument.partition("=")[0] in _INFORMS_ONLY for argument in sys.argv[1:])
        if is_sweep(sys.argv[1:]) and not informs:
            found.append(prepare_sweep())

    run_script(prepare)
    if not found:
        main()
        return
    (sweep,) = found
    try:
        with stopping_jobs(sweep):
            main()
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)  # noqa: T201
    sys.exit(sum_up(sweep))


def prepare_sweep() -> Sweep:
    """Plan the sweep of this command line, write the plan down, and complete the command line."""
    arguments = sys.argv[1:]
    launcher = chosen_launcher(arguments)
    plan = make_plan(arguments, launcher)
    check_disk(plan)
    write_plan(plan)
    sys.argv[1:] = plan.arguments
    if launcher == "slurm":
        from training.sweeps.slurm import install

        install(plan.sweep)
    let_jobs_import()
    return plan.sweep


@contextlib.contextmanager
def stopping_jobs(sweep: Sweep) -> Iterator[None]:
    """While entered, Ctrl-C and SIGTERM let the runs save and begin no others; a second Ctrl-C ends at once.

    Jobs of SLURM do not depend on this process: they go on.
    """
    if sweep.launcher == "slurm":
        yield
        return
    with tempfile.TemporaryDirectory(prefix="samg-sweep-", suffix=f"-{os.getpid()}") as folder:
        flag = Path(folder) / "stop"
        os.environ[STOP_FILE] = str(flag)

        def receive(number: int, frame: FrameType | None) -> None:
            again = flag.exists()
            flag.touch()
            if jobs_here() or (again and number == signal.SIGINT):
                raise KeyboardInterrupt
            if not again:
                print("Stopping: the runs save. Ctrl-C again ends at once.", file=sys.stderr)  # noqa: T201
                threading.Thread(target=_ask_to_stop, args=(sweep,), daemon=True).start()

        before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            del os.environ[STOP_FILE]


def _ask_to_stop(sweep: Sweep) -> None:
    """Send SIGTERM, once, to every process that says it works on a run of the sweep."""
    asked: set[int] = set()
    while True:
        for run in sweep.runs:
            status = read_status(sweep.folder(run))
            if status is None or status.state != RUNNING or status.host != socket.gethostname():
                continue
            if status.pid not in asked and _is_descendant(status.pid):
                asked.add(status.pid)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(status.pid, signal.SIGTERM)
        time.sleep(0.5)


def _is_descendant(pid: int) -> bool:
    """Return whether a process comes from this one; old statuses may name numbers that others have now."""
    while pid > 1:
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return False
        if pid == os.getpid():
            return True
    return False


def sum_up(sweep: Sweep) -> int:
    """Print how the runs of a sweep stand; return the exit code: that of the first failed run, if any."""
    states: dict[str, list[str]] = {}
    code = 0
    for run in sweep.runs:
        status = read_status(sweep.folder(run))
        state = status.state if status else "waiting"
        states.setdefault(state, []).append(run.subdir)
        if status and status.state == FAILED:
            error = status.error or {}
            code = code or int(error.get("exit_code", 1))
            _say(f"failed   {run.subdir}: {error.get('message', '')} {error.get('hint', '')}".rstrip())
    counts = ", ".join(f"{len(names)} {state}" for state, names in sorted(states.items()))
    _say(f"{len(sweep.runs)} runs in {sweep.directory}: {counts}.")
    if FAILED in states:
        _say("To try failed runs again: the same command with sweep.retry_failed=true.")
    if set(states) - {DONE, FAILED}:
        if sweep.launcher == "slurm":
            _say(f"Jobs in the queue go on without this process: python sweep.py status {sweep.directory}")
        _say("To go on with unfinished runs: the same command.")
        code = code or 143
    elif FAILED not in states:
        _say(f"To evaluate: python sweep.py evaluate {sweep.directory} --mode all")
    return code


def _say(text: str) -> None:
    print(text)  # noqa: T201
