"""Flags that scripts here have in common, and one way to refuse them."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from common.errors import ConfigError, unknown_choice


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser that shows the docstring of a script as it is written."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_machine(made: argparse.ArgumentParser) -> None:
    """Add where to compute and where to write."""
    made.add_argument("--device", default="cpu")
    made.add_argument("--threads", type=int, default=1, help="torch threads")
    made.add_argument("--out", help="write the figures as JSON, and the table beside it")


def check_counts(flags: argparse.Namespace, *names: str, least: int = 1) -> None:
    """Refuse numbers below ``least``.

    Args:
        flags: parsed; a list is as small as its smallest number.
        names: attributes of ``flags``.
        least: what is possible.

    Raises:
        ConfigError: naming the flag.
    """
    for name in names:
        value = getattr(flags, name)
        smallest = min(value) if isinstance(value, list) else value
        if smallest < least:
            flag = name.replace("_", "-")
            raise ConfigError(f"--{flag} {smallest} is not possible.", f"Use {least} or more.")


def check_known(what: str, chosen: Iterable[str], known: Iterable[str]) -> None:
    """Refuse names that are not among ``known``.

    Raises:
        ConfigError: naming the first of them, what it should be and the nearest choice.
    """
    choices = list(known)
    for name in chosen:
        if name not in choices:
            raise unknown_choice(what, name, choices)
