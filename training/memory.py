"""How much memory this machine can still give."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")
_FILES = (  # limit and usage of a control group, version 2 and 1
    ("memory.max", "memory.current"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes"),
)


def _control_groups() -> Iterator[Path]:
    """Yield the control groups whose limits hold for this process: its own, and all above them."""
    try:
        lines = _OWN.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root, parts = _GROUPS / ("memory" if controllers else ""), Path(path).parts[1:]
        # A container may see its own group as the root, and its path as one that leads out of there.
        for depth in range(0 if ".." in parts else len(parts), -1, -1):
            yield root.joinpath(*parts[:depth])


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # absent on this system, or "max"
        return None


def _cached(group: Path) -> int:
    """Return the bytes in use that are files kept in memory while there is room; 0 where unknown."""
    try:
        rows = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
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
    for group in _control_groups():
        for limit, usage in _FILES:
            total, used = _number(group / limit), _number(group / usage)
            if total is not None and used is not None:
                found.append(max(total - used + _cached(group), 0))
    return min(found, default=None)
