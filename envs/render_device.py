"""Which GPU the processes of a vector environment draw on."""

from __future__ import annotations

import os
from collections.abc import Mapping

from common.cores import count_gpus
from common.errors import ResourceError

VARIABLE = "MUJOCO_EGL_DEVICE_ID"


def choose_render_device(
    index: int, wanted: int | str, learner: int | None, environment: Mapping[str, str], count: int
) -> str | None:
    """Return on which EGL device a worker draws, a value of ``MUJOCO_EGL_DEVICE_ID``; None leaves it to EGL.

    EGL counts the machine's GPUs, whatever CUDA has been told to see.

    Args:
        index: of the worker.
        wanted: a GPU as CUDA counts those it sees, or ``auto``: that of the learner, and where that is none,
            the visible GPUs in turn.
        learner: GPU of the learner as CUDA counts; None if it learns on the CPU.
        environment: variables of the process; the user's own ``MUJOCO_EGL_DEVICE_ID`` stands.
        count: GPUs of the machine.

    Raises:
        ResourceError: there is no such GPU.
    """
    if VARIABLE in environment:
        return None
    named = environment.get("CUDA_VISIBLE_DEVICES")
    listed = map(str, range(count)) if named is None else (part.strip() for part in named.split(","))
    visible = [gpu for gpu in listed if gpu not in ("", "-1")]
    if wanted != "auto":
        if not int(wanted) < len(visible):
            raise ResourceError(
                f"render_device={wanted} does not exist: {len(visible)} GPU(s) can be seen.",
                "Set render_device=auto, or another CUDA_VISIBLE_DEVICES.",
            )
        gpu = visible[int(wanted)]
    elif visible:
        gpu = visible[(index if learner is None else learner) % len(visible)]
    else:
        return None
    # EGL knows no UUIDs. In a container CUDA's numbers may be other GPUs' than those that can be seen.
    return gpu if gpu.isdigit() and int(gpu) < count else None


def prepare_rendering(index: int, several: bool, wanted: int | str, learner: int | None) -> None:
    """Set what OpenGL reads when it is first used in worker ``index``; other arguments as above.

    With ``several`` workers Mesa's software renderer gets no threads of its own: in every one it would start
    a thread per core, which costs a third more CPU time. The user's own ``LP_NUM_THREADS`` stands.

    Raises:
        ResourceError: there is no such GPU.
    """
    if several:
        os.environ.setdefault("LP_NUM_THREADS", "0")
    device = choose_render_device(index, wanted, learner, os.environ, count_gpus())
    # Where NVIDIA's EGL is not installed there are GPUs that it does not offer; Mesa draws then.
    if device is not None and int(device) < count_egl_devices():
        os.environ[VARIABLE] = device


def count_egl_devices() -> int:
    """Return how many devices EGL offers to draw on; 0 where there is no EGL."""
    try:
        from mujoco.egl import egl_ext
    except (ImportError, AttributeError):  # PyOpenGL's, without the library
        return 0
    return len(egl_ext.eglQueryDevicesEXT())
