"""Schedules of a standard deviation, written as DrQ-v2 writes them: ``1.0``, ``linear(1.0,0.1,100000)``."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from common.errors import ConfigError

Schedule = Callable[[int], float]
_CALL = re.compile(r"(\w+)\((.*)\)")


def linear(step: int, start: float, end: float, duration: float) -> float:
    """Return the value that moves from ``start`` to ``end`` over ``duration`` steps and then stays."""
    mix = min(max(step / duration, 0.0), 1.0)
    return (1.0 - mix) * start + mix * end


def step_linear(
    step: int, start: float, end1: float, duration1: float, end2: float, duration2: float
) -> float:
    """Return the value of two linear pieces, one after the other."""
    if step <= duration1:
        return linear(step, start, end1, duration1)
    return linear(int(step - duration1), end1, end2, duration2)


_KINDS: dict[str, tuple[Callable[..., float], int]] = {"linear": (linear, 3), "step_linear": (step_linear, 5)}


def parse_schedule(text: str | float) -> Schedule:
    """Return the function from step to value that ``text`` describes.

    Args:
        text: a number, ``linear(start,end,duration)`` or
            ``step_linear(start,end1,duration1,end2,duration2)``.

    Raises:
        ConfigError: ``text`` is none of these, a value is negative or infinite, or a duration not positive.
    """
    problem = ConfigError(
        f"'{text}' is not a schedule.",
        "Write a number of at least 0, linear(start,end,duration) or "
        "step_linear(start,end1,duration1,end2,duration2).",
    )
    try:
        constant = float(text)
    except ValueError:
        pass
    else:
        if not 0 <= constant < math.inf:
            raise problem
        return lambda step: constant
    found = _CALL.fullmatch(str(text).replace(" ", ""))
    if found is None or found[1] not in _KINDS:
        raise problem
    function, count = _KINDS[found[1]]
    try:
        values = [float(value) for value in found[2].split(",")]
    except ValueError:
        raise problem from None
    in_range = all(0 <= value < math.inf for value in values)
    if len(values) != count or not in_range or any(duration == 0 for duration in values[2::2]):
        raise problem
    return lambda step: function(step, *values)
