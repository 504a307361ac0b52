"""Simulators as gymnasium environments that return pixels, and the levels of the generalisation benchmark.

env = envs.make_env("walker_walk", level="video_hard", source="procedural")
venv = envs.make_vector_env("walker_walk", num_envs=4)
"""

import contextlib
import os
import sys

# torch must be loaded before MuJoCo's OpenGL libraries: the other order can crash (two copies of LLVM). torch
# itself loads triton only when it is first needed, which may be long after the first picture was drawn.
import torch  # noqa: F401

with contextlib.suppress(ImportError):
    import triton  # noqa: F401

if sys.platform.startswith("linux"):
    # MuJoCo reads this once, when it is imported. Every process that makes an environment, spawned workers
    # too, comes through here first; a value the user has set stays.
    os.environ.setdefault("MUJOCO_GL", "egl")

from envs.backends import check_rendering
from envs.make import episode_seed, make_env
from envs.tasks import SAMG8, Task, find_cameras, find_task, task_names
from envs.vector import get_states, make_vector_env, reset_episodes, set_states

__all__ = [
    "SAMG8",
    "Task",
    "check_rendering",
    "episode_seed",
    "find_cameras",
    "find_task",
    "get_states",
    "make_env",
    "make_vector_env",
    "reset_episodes",
    "set_states",
    "task_names",
]
