"""One hierarchy of user-facing errors: two lines (what happened, what to do) and an exit code each."""

from __future__ import annotations

import difflib
import errno
import os
import sys
from collections.abc import Callable, Iterable


class SamgError(Exception):
    """An error a user can cure.

    Args:
        message: one sentence that names the thing and says what was expected.
        hint: what to do about it; may be empty only when the message already says it.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()

    def __reduce__(self) -> tuple[type[SamgError], tuple[str, str]]:
        # Errors cross process borders (environment workers), so both parts must survive pickling.
        return type(self), (self.message, self.hint)


class ConfigError(SamgError):
    """A flag or configuration value is unknown, impossible or contradicts another."""

    exit_code = 2


class InputError(SamgError):
    """An input file or asset (image, mask, video, weights, data) is missing or unusable."""

    exit_code = 3


class MaskerError(InputError):
    """A masker failed on a frame, or returned what is no mask."""


class NonFiniteError(SamgError):
    """A reward, observation, loss or parameter is not a finite number."""

    exit_code = 4


class ResourceError(SamgError):
    """Disk, memory or a device is missing or exhausted."""

    exit_code = 5


class SnapshotError(SamgError):
    """A run directory has no usable snapshot."""

    exit_code = 6


class DependencyError(SamgError):
    """Rendering does not work, or a library is missing or of the wrong version."""

    exit_code = 7


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return ``"Did you mean X? "`` for the choice most like ``name``, case aside, or an empty string."""
    plain = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(name.lower(), plain, n=1, cutoff=0.5)
    return f"Did you mean {plain[close[0]]}? " if close else ""


def unknown_choice(what: str, name: object, choices: Iterable[str]) -> ConfigError:
    """Return the error for a value that is not among ``choices``; it names the nearest and all of them."""
    options = sorted(choices)
    hint = f"{nearest(str(name), options)}Choose one of: {', '.join(options)}."
    return ConfigError(f"Unknown {what} '{name}'.", hint)


def report_error(error: SamgError) -> int:
    """Print the two-line form of ``error`` to standard error and return its exit code."""
    print(f"error: {error.message}", file=sys.stderr)  # noqa: T201
    if error.hint:
        print(f"  cure: {error.hint}", file=sys.stderr)  # noqa: T201
    return error.exit_code


_CURES = {
    errno.ENOSPC: "Free some space, or write elsewhere.",
    errno.EDQUOT: "Free some of your quota, or write elsewhere.",
    errno.EACCES: "Check the permissions, or write elsewhere.",
    errno.EPERM: "Check the permissions, or write elsewhere.",
    errno.EROFS: "The file system is read-only: write elsewhere.",
    errno.ENOTDIR: "A part of the path is a file: choose another path.",
    errno.EISDIR: "The path is a folder: name a file.",
}


def _resource_error(error: BaseException) -> ResourceError | None:
    """Return the two-line form of an error of disk, memory or device, or None when it is something else."""
    if isinstance(error, OSError):
        if error.errno not in _CURES:
            return None
        where = f"{error.filename}: " if error.filename else ""
        return ResourceError(f"{where}{error.strerror}.", _CURES[error.errno])
    # By name: importing torch to learn its class would make every small script slow.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        cure = "Lower batch_size, num_envs or replay_buffer_size, or choose another device."
        return ResourceError("Memory is exhausted.", cure)
    return None


def describe_error(error: BaseException) -> BaseException:
    """Return ``error`` in the form that has a message, a cure and an exit code, else as it is."""
    return error if isinstance(error, SamgError) else _resource_error(error) or error


def run_script(main: Callable[[], int | None], debug: bool = False) -> None:
    """Run a script's ``main``; unless it succeeds, leave the process with the documented exit code.

    A ``SamgError`` becomes two lines on standard error (with ``debug`` or ``SAMG_DEBUG=1``, a traceback);
    Ctrl-C becomes exit code 130; a full disk, a refused permission and exhausted memory become exit code 5.
    """
    try:
        code = main() or 0
    except SamgError as error:
        if debug or os.environ.get("SAMG_DEBUG"):
            raise
        code = report_error(error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)  # noqa: T201
        code = 130
    except (OSError, MemoryError, RuntimeError) as error:
        known = _resource_error(error)
        if known is None or debug or os.environ.get("SAMG_DEBUG"):
            raise
        code = report_error(known)
    if code:
        sys.exit(code)
