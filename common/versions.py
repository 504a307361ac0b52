"""What a file that ships was made with."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any


def made_with(packages: Sequence[str]) -> dict[str, Any]:
    """Return ``python`` and ``versions`` of the packages, for the record beside a file; all must be there."""
    return {"python": platform.python_version(), "versions": {name: version(name) for name in packages}}
