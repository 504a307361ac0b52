"""What protects a run from outside: one writer per run directory, and words for exhausted resources."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from common.devices import DEVICE_ERRORS
from common.errors import ConfigError, ResourceError

log = logging.getLogger(__name__)
LOCK = ".lock"
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)  # of file systems that know none


@contextlib.contextmanager
def exclusive(run_dir: Path) -> Iterator[Callable[[], None]]:
    """Hold the run directory for this process; the lock ends with the process, however it ends.

    Yields:
        a function that raises ``ResourceError`` if the directory is no longer the one that was locked:
        whoever writes into another that appeared in its place would leave half a run there.

    Raises:
        ConfigError: another process is training in the same directory.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir / LOCK
    with path.open("a+") as handle:
        _lock(handle.fileno(), path)
        handle.truncate(0)
        handle.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        handle.flush()
        mine = os.fstat(handle.fileno())

        def check() -> None:
            with contextlib.suppress(OSError):
                if os.path.samestat(mine, path.stat()):
                    return
            raise ResourceError(
                f"The run directory {run_dir} was removed or replaced during the run.",
                "What was saved went with it: put it back and give the same command again.",
            )

        yield check


def _lock(descriptor: int, path: Path) -> None:
    try:
        _wait_for(descriptor, patience=1.0)  # longer than any look of ``in_use``
    except BlockingIOError as error:
        raise ConfigError(
            f"{path.parent} is in use by {_owner(path)}.",
            "Wait for that run or end it, or choose another hydra.run.dir.",
        ) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        log.warning("The file system of %s has no locks: start no second run there.", path.parent)


def _wait_for(descriptor: int, patience: float) -> None:
    """Lock a file that is free or becomes so within ``patience`` seconds; else ``BlockingIOError``."""
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= until:
                raise
            time.sleep(0.02)


def in_use(run_dir: Path) -> bool:
    """Return whether another process, of any host where the file system can tell, trains in ``run_dir``."""
    try:
        with (run_dir / LOCK).open("r+") as handle:
            _wait_for(handle.fileno(), patience=0.0)
    except BlockingIOError:
        return True
    except OSError:  # no such file: nobody was ever there
        return False
    return False


def _owner(path: Path) -> str:
    try:
        owner = json.loads(path.read_text())
        return f"process {owner['pid']} on {owner['host']}"
    except (OSError, ValueError, KeyError, TypeError):  # it is writing this very moment
        return "another process"


@contextlib.contextmanager
def resource_errors(run_dir: Path) -> Iterator[None]:
    """Turn a full disk and a device that failed into errors that a user can cure."""
    go_on = "the same command goes on from the last snapshot"
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ResourceError(
            f"No space is left on the disk of {run_dir}{_free(run_dir)}.", f"Free some, and {go_on}."
        ) from error
    except DEVICE_ERRORS as error:
        first_line = str(error).partition("\n")[0]
        raise ResourceError(
            f"The device failed: {first_line}",
            f"End what else runs on it or set device=..., and {go_on}. A new run needs less memory with a "
            "smaller batch_size, num_envs or replay_buffer_size.",
        ) from error


def _free(run_dir: Path) -> str:
    with contextlib.suppress(OSError):
        return f" ({shutil.disk_usage(run_dir).free:,} bytes are free)"
    return ""
