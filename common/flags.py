"""Checks that the command lines of several scripts share."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from pathlib import Path

from common.errors import ConfigError
from common.paths import output_path


def check_least(chosen: argparse.Namespace, least: Mapping[str, float], joint: str = "-") -> None:
    """Refuse numbers that are not finite or too small.

    Args:
        chosen: a parsed command line.
        least: name of an attribute -> the least that is possible.
        joint: between the words of a flag.

    Raises:
        ConfigError: naming the flag.
    """
    for name, smallest in least.items():
        value = getattr(chosen, name)
        if not (math.isfinite(value) and value >= smallest):
            flag = f"--{name.replace('_', joint)}"
            raise ConfigError(f"{flag} is {value:g}, expected at least {smallest:g}.", f"Change {flag}.")


def output_folder(path: str) -> Path:
    """Return what ``--out`` names, as an absolute path.

    Raises:
        ConfigError: it is a file.
    """
    folder = output_path(path)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--out {path} is a file.", "Name a folder, new or of an earlier run.")
    return folder
