"""Books what a reading (time, FLOPs) rises by inside wrapped functions; used by scripts here."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

Reading = Callable[[], float]


def clock(device: torch.device) -> Reading:
    """Return a clock in seconds: CPU time of the process, or wall time once the GPU is idle."""
    if device.type != "cuda":
        return time.process_time

    def read() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return read


class Ledger:
    """Books a reading under labels; what wrapped functions call inside each other counts once, innermost.

    Args:
        read: what is booked; may be exchanged between measurements.
    """

    def __init__(self, read: Reading) -> None:
        self.read = read
        self._booked: dict[str, float] = defaultdict(float)
        self._inner = [0.0]

    def measure(self, label: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function and book it under ``label``, less what is measured inside it."""
        self._inner.append(0.0)
        start = self.read()
        result = function(*args, **kwargs)
        total = self.read() - start
        self._booked[label] += total - self._inner.pop()
        self._inner[-1] += total
        return result

    def wrap(self, owner: Any, name: str, label: str) -> None:
        """Measure every later call of ``owner.name``."""
        function = getattr(owner, name)
        setattr(owner, name, lambda *args, **kwargs: self.measure(label, function, *args, **kwargs))

    def take(self) -> dict[str, float]:
        """Return what was booked and start anew."""
        booked = dict(self._booked)
        self._booked.clear()
        return booked

    def count_flops(self, function: Callable[..., Any], *args: Any) -> dict[str, float]:
        """Call a function once and return each label's floating-point operations, 2 per multiply-add."""
        timed = self.read
        with FlopCounterMode(display=False) as counter:
            self.read = lambda: float(counter.get_total_flops())
            self.take()
            try:
                self.measure("rest", function, *args)
            finally:
                self.read = timed
        return self.take()
