"""Processes that are forked, broken and watched: imports are paid for once, so a crash takes a second."""

from __future__ import annotations

import mmap
import os
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from common import faults
from training.workspace import Workspace


class Progress:
    """A number that a forked process writes and its parent reads."""

    def __init__(self, value: int = 0) -> None:
        self._shared = mmap.mmap(-1, 8)
        self.value = value

    @property
    def value(self) -> int:
        return int(struct.unpack("q", self._shared[:8])[0])

    @value.setter
    def value(self, value: int) -> None:
        self._shared[:8] = struct.pack("q", value)

    def follow(self, run: Workspace) -> Workspace:
        """Keep the decisions that ``run`` has made; return it."""
        send = run.venv.step_async

        def step_async(actions: object) -> None:
            self.value = run.agent_steps
            send(actions)

        run.venv.step_async = step_async
        return run


def fork(work: Callable[[], object], fault: str = "", log: Path | None = None) -> int:
    """Run ``work`` in a forked process with ``fault`` armed; return its number."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        if log is not None:
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
        torch.set_num_threads(1)
        faults.arm(fault)
        work()
        code = 0
    except SystemExit as error:
        code = int(error.code or 0)
    except BaseException:
        sys.__excepthook__(*sys.exc_info())  # type: ignore[arg-type]
    finally:
        os._exit(code)


def wait(process: int) -> int:
    """Return the exit code of a forked process; minus the number of the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def run_forked(work: Callable[[], object], fault: str = "", log: Path | None = None) -> int:
    """Run ``work`` in a forked process to its end; return its exit code."""
    return wait(fork(work, fault, log))


def kill_after(process: int, seconds: float, number: int) -> int:
    """Send a signal after so many seconds and return the exit code."""
    time.sleep(seconds)
    os.kill(process, number)
    return wait(process)
