"""What protects a run from outside: one writer per run directory, and words for a full disk."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from common.errors import ResourceError


@contextlib.contextmanager
def exclusive(run_dir: Path) -> Iterator[None]:
    """Hold the run directory for this process; the lock ends with the process, however it ends.

    Raises:
        ResourceError: another process is training in the same directory.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / ".lock").open("w") as handle:
        if not _locked(handle, patience=1.0):  # longer than any look of ``in_use``
            raise ResourceError(
                f"Another process is training in {run_dir}.", "Wait for it, or choose another hydra.run.dir."
            )
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


def in_use(run_dir: Path) -> bool:
    """Return whether another process, of any host where the file system can tell, trains in ``run_dir``."""
    try:
        with (run_dir / ".lock").open("r+") as handle:
            return not _locked(handle)
    except OSError:  # no such file: nobody was ever there
        return False


def _locked(handle: IO[str], patience: float = 0.0) -> bool:
    """Lock a file if it becomes free within ``patience`` seconds; return whether it is locked now."""
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(0.02)
