"""Signals that ask a program to end: noted until a good moment, or obeyed at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(BaseException):
    """A signal asked for the end; not an ``Exception``, so that nothing swallows it on its way."""


class StopSignal:
    """While it is entered, SIGTERM and SIGINT are noted; the handlers of before return at its end.

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
        """128 plus the number of the signal, as shells report it."""
        return 128 + (self.number or 0)

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def interrupting(self) -> Iterator[None]:
        """Let a signal end the block at once and go on behind it; for work that leaves no state behind."""
        with contextlib.suppress(Stopped), self._while(at_once=True):
            yield

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Only note a signal in the block, and raise ``Stopped`` at its end."""
        with self._while(at_once=False):
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
