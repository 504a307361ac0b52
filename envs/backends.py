"""Which OpenGL backends can draw on this machine, found out in processes that may crash or hang."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from common.errors import DependencyError

BACKENDS = ("egl", "osmesa", "glfw")
PROBE = Path(__file__).with_name("probe.py")
PATIENCE = 60.0  # seconds; a picture takes one, on a busy machine a few
# The releases that belong together; setup/constraints.txt pins them, and a test compares.
TESTED_PAIR = {"mujoco": "3.17.0", "dm_control": "1.0.50"}
INSTALL = (
    "Install Mesa's software renderer (Debian, Ubuntu: apt-get install libegl1 libgl1 libgl1-mesa-dri) and "
    "set MUJOCO_GL=egl; with a display, MUJOCO_GL=glfw also works."
)


def chosen_backend() -> str:
    """Return the backend that ``MUJOCO_GL`` names; EGL on Linux where it names none."""
    return os.environ.get("MUJOCO_GL", "").lower().strip() or ("egl" if sys.platform == "linux" else "glfw")


def probe_backend(backend: str, patience: float = PATIENCE) -> str | None:
    """Draw one picture in a process of its own.

    Args:
        backend: a value of ``MUJOCO_GL``.
        patience: seconds after which the process counts as hanging and is killed.

    Returns:
        What is wrong, in one line; None where the picture came.
    """
    environment = {**os.environ, "MUJOCO_GL": backend}
    command = [sys.executable, str(PROBE)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=patience, env=environment, check=False)
    except subprocess.TimeoutExpired:
        return f"no picture within {patience:g} s"
    if done.returncode < 0:
        return f"the process was ended by {signal.Signals(-done.returncode).name}"
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
        reason = answer.get("reason")
        return reason or (None if answer["mean"] > 0 else "pictures stay black")
    except (ValueError, IndexError, KeyError, TypeError, AttributeError):
        said = " ".join(done.stderr.decode(errors="replace").split())[-200:]
        return said or f"the process ended with code {done.returncode}"


def check_rendering(patience: float = PATIENCE) -> None:
    """Draw one small picture, so that a machine that cannot render says so before any work is done.

    It is drawn in a process of its own: a driver that crashes or hangs takes no run with it. Where the chosen
    backend fails, the others are tried, and the error names one that works.

    Raises:
        DependencyError: the backend that ``MUJOCO_GL`` names does not draw.
    """
    backend = chosen_backend()
    failure = probe_backend(backend, patience)
    if failure is None:
        return
    tried, cure = "", INSTALL
    for other in (name for name in BACKENDS if name != backend):
        why = probe_backend(other, patience)
        if why is None:
            cure = f"MUJOCO_GL={other} works on this machine: set it, or mend {backend}. {INSTALL}"
            break
        tried += f"; tried {other}: {why}"
    raise DependencyError(
        f"OpenGL rendering does not work: MUJOCO_GL={backend} failed: {failure}{tried}.", cure
    )


def explain_versions(error: Exception) -> DependencyError | None:
    """Return what ``error`` means where mujoco and dm_control are not the pair that was tested, else None."""
    found = {name: installed_version(name) for name in TESTED_PAIR}
    if found == TESTED_PAIR:
        return None
    here, tested = (" with ".join(f"{k} {v}" for k, v in pair.items()) for pair in (found, TESTED_PAIR))
    return DependencyError(
        f"{here} does not work ({type(error).__name__}: {error}); tested is {tested}.",
        "Install the pair: pip install " + " ".join(f"{k}=={v}" for k, v in TESTED_PAIR.items()),
    )


def installed_version(package: str) -> str:
    """Return the version of an installed package, or ``not installed``."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
