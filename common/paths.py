"""Where things are: the project root, the cache, and how a path in a config or flag is resolved."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from common.errors import InputError

PROJECT_ROOT = Path(__file__).resolve().parent.parent


def cache_dir() -> Path:
    """Return the folder for downloaded weights and data: ``SAMG_CACHE``, else ``~/.cache/samg``."""
    return Path(os.environ.get("SAMG_CACHE") or Path.home() / ".cache" / "samg").expanduser()


def resolve(path: str | os.PathLike[str]) -> Path:
    """Return ``path`` as an absolute path.

    A relative path is looked for in the working directory first and in the project root second, so that
    ``reference_images/walker_0.png`` works from anywhere; one that exists in neither resolves to the root.

    Raises:
        InputError: no file system could hold such a path, or it names the home of nobody.
    """
    try:
        candidate = Path(path).expanduser()
        here = Path.cwd() / candidate
        found = here if candidate.is_absolute() or here.exists() else PROJECT_ROOT / candidate
        os.fsencode(found)
        found.exists()
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(error, OSError) and error.errno != errno.ENAMETOOLONG:
            raise  # a disk or a permission, not the path
        shown = ascii(os.fspath(path))
        shown = shown if len(shown) <= 100 else f"{shown[:90]}...'"
        reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())[:100]
        raise InputError(f"{shown} is no possible path ({reason}).", "Check the path.") from error
    return found


def output_path(path: str | os.PathLike[str]) -> Path:
    """Return where to write: ``path`` as an absolute path; a relative one lies in the working directory."""
    return Path.cwd() / Path(path).expanduser()


def existing_file(path: str | os.PathLike[str], what: str, hint: str = "") -> Path:
    """Return the resolved path of a file that must exist.

    Raises:
        InputError: there is nothing at ``path``, or it is not a file.
    """
    found = resolve(path)
    if not found.exists():
        raise InputError(f"{what} {path} does not exist.", hint or "Check the path.")
    if not found.is_file():
        raise InputError(f"{what} {path} is not a file.", hint or "Name the file itself.")
    return found
