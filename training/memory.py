"""How much memory this machine can still give."""

from __future__ import annotations

from pathlib import Path

_LIMITS = (  # (limit, usage) of the control group, version 2 and 1
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # absent on this system, or "max"
        return None


def _cached(usage: Path) -> int:
    """Return the bytes in ``usage`` that are files kept in memory while there is room; 0 where unknown."""
    try:
        rows = dict(line.split() for line in (usage.parent / "memory.stat").read_text().splitlines())
        return int(rows.get("total_inactive_file", rows.get("inactive_file", 0)))  # version 1, 2
    except (OSError, ValueError):
        return 0


def replay_rows(capacity: int) -> int:
    """Return the rows of a replay buffer for ``capacity`` transitions.

    An episode of T transitions takes T + 1 rows: 4 % more rows serve episodes of 25 decisions or more.
    """
    return capacity + capacity // 25 + 8


def available_memory() -> int | None:
    """Return the bytes of memory available to this process, or None where that cannot be told."""
    found = []
    try:
        meminfo = Path("/proc/meminfo").read_text().splitlines()
        found += [int(line.split()[1]) * 1024 for line in meminfo if line.startswith("MemAvailable:")]
    except OSError:
        pass
    for limit, usage in _LIMITS:
        total, used = _number(limit), _number(usage)
        if total is not None and used is not None:
            found.append(max(total - used + _cached(usage), 0))
    return min(found, default=None)
