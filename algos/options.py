"""Checks of the numbers that agents are configured with."""

from __future__ import annotations

import math

from common.errors import ConfigError


def check_number(name: str, value: object, low: float, high: float = math.inf, ends: str = "[]") -> None:
    """Refuse what is not a number between ``low`` and ``high``.

    Args:
        name: of the option.
        value: what it was given.
        low: smallest number.
        high: largest number.
        ends: ``[`` or ``]`` where that end is allowed itself, ``(`` or ``)`` where it is not.

    Raises:
        ConfigError: it is something else.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        above = value >= low if ends[0] == "[" else value > low
        below = value <= high if ends[1] == "]" else value < high
        if above and below:
            return
    start = f"{'of at least' if ends[0] == '[' else 'above'} {low:g}"
    end = "" if high == math.inf else f" and {'at most' if ends[1] == ']' else 'below'} {high:g}"
    raise ConfigError(f"{name}={value} is not possible.", f"Use a number {start}{end}.")


def check_count(name: str, value: object) -> None:
    """Refuse what is not a whole number of at least 1.

    Raises:
        ConfigError: it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name}={value} is not possible.", "Use a whole number of at least 1.")
