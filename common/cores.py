"""How many cores there are for this process."""

from __future__ import annotations

import os


def count_cores() -> int:
    """Return how many cores this process may use: on a cluster, those of its job."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
