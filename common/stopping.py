"""Signals that ask a program to end: noted until a good moment, or obeyed at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

#: SIGUSR2 is what SLURM sends a job before its time is up, if asked to, as submitit does.
SIGNALS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)
_SAME = (signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler, None)


class Stopped(BaseException):
    """A signal asked for the end; not an ``Exception``, so that nothing swallows it on its way."""


class StopSignal:
    """While it is entered, SIGTERM, SIGUSR2 and SIGINT are noted; the handlers of before return at its end.

    Outside the main thread, where Python allows no handlers, nothing changes.

    Args:
        at_once: whether a signal raises ``Stopped`` where it arrives, or is only noted.

    Attributes:
        number: of the signal that came, or None.
    """

    def __init__(self, at_once: bool = False) -> None:
        self.number: int | None = None
        self._at_once = at_once
        self._before: dict[int, Any] = {}

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, as shells report it, and 143 after the other signals."""
        return 128 + (signal.SIGINT if self.number == signal.SIGINT else signal.SIGTERM)

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def leave(self) -> NoReturn:
        """End as the signal asks, now that everything is saved.

        A handler that was there before is called first: submitit's puts its job into the queue again.

        Raises:
            SystemExit: with ``exit_code``, or whatever the other handler raises.
        """
        before = self._before.get(self.number or 0)
        if before not in _SAME:
            before(self.number, None)
        raise SystemExit(self.exit_code)

    @contextlib.contextmanager
    def interrupting(self) -> Iterator[None]:
        """Let a signal end the block at once and go on behind it; for work that leaves no state behind."""
        with contextlib.suppress(Stopped), self._while(at_once=True):
            yield

    @contextlib.contextmanager
    def noting(self) -> Iterator[None]:
        """Only note a signal in the block."""
        with self._while(at_once=False):
            yield

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Only note a signal in the block, and raise ``Stopped`` at its end."""
        with self.noting():
            yield
        if self.number is not None:
            raise Stopped

    @contextlib.contextmanager
    def _while(self, at_once: bool) -> Iterator[None]:
        before, self._at_once = self._at_once, at_once
        try:
            yield
        finally:
            self._at_once = before

    def _receive(self, number: int, frame: FrameType | None) -> None:
        impatient = number == self.number == signal.SIGINT
        self.number = number
        if self._at_once:
            self._at_once = False  # the way out is not interrupted again
            raise Stopped
        if impatient:
            raise KeyboardInterrupt


def run_stoppable(work: Callable[[StopSignal], None], command: str) -> None:
    """Run ``work`` with a signal that ends it at once where it arrives, unless ``work`` says otherwise.

    Args:
        work: gets the signal; leaves by itself where it has something to save first.
        command: what to type to begin again, for the message.

    Raises:
        SystemExit: a signal came; see ``StopSignal.leave``.
    """
    text = f"Stopped before there was anything to save. To begin again: {command}"
    stopped = _run(work, lambda: print(text, flush=True))  # noqa: T201
    if stopped is not None:
        stopped.leave()


def run_until_stopped(work: Callable[[StopSignal], None], farewell: Callable[[], object]) -> int:
    """Run ``work``, which keeps by itself what a signal's end must not lose.

    Args:
        work: gets the signal, which ends it at once where it arrives unless it says otherwise.
        farewell: tells the user, after a signal, what was kept and how to go on.

    Returns:
        The exit code: 0, or the signal's.
    """
    stopped = _run(work, farewell)
    return 0 if stopped is None else stopped.exit_code


def _run(work: Callable[[StopSignal], None], farewell: Callable[[], object]) -> StopSignal | None:
    """Run ``work``; after a signal say farewell and return it."""
    with StopSignal(at_once=True) as stop:
        try:
            work(stop)
        except Stopped:
            farewell()
            return stop
    return None
