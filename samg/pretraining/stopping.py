"""SIGINT and SIGTERM: training finishes its step and saves, everything else ends at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any


class Stopped(BaseException):
    """A signal asked for the end; not an ``Exception``, so that nothing swallows it on its way."""


class StopSignal:
    """While it is entered, SIGINT and SIGTERM raise ``Stopped``; the handlers of before return at its end.

    Outside the main thread, where Python allows no handlers, nothing changes.

    Attributes:
        number: of the signal that came, or None.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Any] = {}
        self._wait = False

    @property
    def exit_code(self) -> int:
        """128 plus the number of the signal, as shells report it."""
        return 128 + (self.number or 0)

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Only note a signal in the block, and raise ``Stopped`` at its end; a second one ends at once."""
        self._wait = True
        try:
            yield
        finally:
            self._wait = False
        if self.number is not None:
            raise Stopped

    def _receive(self, number: int, frame: FrameType | None) -> None:
        first, self.number = self.number is None, number
        if not (self._wait and first):
            raise Stopped
