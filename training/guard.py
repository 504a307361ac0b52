"""What protects a run from outside: one writer per run directory, and words for a full disk."""

from __future__ import annotations

import contextlib
import errno
import fcntl
from collections.abc import Iterator
from pathlib import Path

from common.errors import ResourceError


@contextlib.contextmanager
def exclusive(run_dir: Path) -> Iterator[None]:
    """Hold the run directory for this process; the lock ends with the process, however it ends.

    Raises:
        ResourceError: another process is training in the same directory.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ResourceError(
                f"Another process is training in {run_dir}.", "Wait for it, or choose another hydra.run.dir."
            ) from error
        yield


@contextlib.contextmanager
def disk_errors(run_dir: Path) -> Iterator[None]:
    """Turn a full disk into the error a user can cure."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ResourceError(
            f"No space is left on the disk of {run_dir}.",
            "Free some and give the same command again: the run goes on from its last snapshot.",
        ) from error
