"""How many cores and GPUs there are."""

from __future__ import annotations

import os
from pathlib import Path


def count_cores() -> int:
    """Return how many cores this process may use: on a cluster, those of its job."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def count_gpus() -> int:
    """Return how many NVIDIA GPUs the machine has, without waking one."""
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
