"""What protects a run from outside: one writer per run directory, and signals that wait for a good moment."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from common.errors import ResourceError


@contextlib.contextmanager
def exclusive(run_dir: Path) -> Iterator[None]:
    """Hold the run directory for this process; the lock ends with the process, however it ends.

    Raises:
        ResourceError: another process is training in the same directory.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ResourceError(
                f"Another process is training in {run_dir}.", "Wait for it, or choose another hydra.run.dir."
            ) from error
        yield


@contextlib.contextmanager
def disk_errors(run_dir: Path) -> Iterator[None]:
    """Turn a full disk into the error a user can cure."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ResourceError(
            f"No space is left on the disk of {run_dir}.",
            "Free some and give the same command again: the run goes on from its last snapshot.",
        ) from error


class StopNow(BaseException):
    """Raised by a signal inside ``StopSignal.at_once``; not an ``Exception``, so that nothing swallows it."""


class StopSignal:
    """Remembers SIGTERM and SIGINT, for the loop to look at; a second SIGINT interrupts at once.

    Used as a context manager; the handlers of before return at its end. Outside the main thread, where Python
    allows no handlers, it remembers nothing.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Any] = {}
        self._at_once = False

    @property
    def exit_code(self) -> int:
        """128 plus the number of the signal, as shells report it."""
        return 128 + (self.number or 0)

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Let a signal end the block at once; for long work that leaves no state behind."""
        self._at_once = True
        try:
            yield
            self._at_once = False
        except StopNow:
            pass
        finally:
            self._at_once = False

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number
        if self._at_once:
            self._at_once = False
            raise StopNow
