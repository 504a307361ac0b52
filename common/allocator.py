"""Keeping memory instead of asking the system for it again and again."""

from __future__ import annotations

import ctypes
import os

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_KEPT = 1 << 30  # bytes; no array of an update is larger
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let this process reuse freed memory; to be called before large arrays are made.

    By default glibc returns arrays of many megabytes to the system as soon as they are freed, and the system
    clears every page before it hands them out again. An update of an agent makes some hundreds of them, which
    on a CPU was a quarter of its time. The memory of the process then stays at its peak, that of an update.

    Whoever sets a variable of glibc's allocator (``MALLOC_*``, ``GLIBC_TUNABLES``) keeps that choice.

    Returns:
        whether it was done; it is not where the C library has no such switch.
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is None:
        return False
    switches = ((_M_MMAP_THRESHOLD, _LARGEST_KEPT), (_M_TRIM_THRESHOLD, _NEVER))
    return all(mallopt(name, value) == 1 for name, value in switches)
