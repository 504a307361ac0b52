"""Which GPU a worker draws on, told from made-up machines."""

import os
import subprocess
import sys

import pytest

import envs
from common.errors import ResourceError
from envs import render_device
from envs.render_device import choose_render_device, prepare_rendering


@pytest.mark.parametrize(
    ("wanted", "learner", "variables", "count", "devices"),
    [
        ("auto", None, {}, 0, [None, None, None]),  # no GPU: Mesa
        ("auto", 1, {}, 4, ["1", "1", "1"]),  # beside the learner
        ("auto", None, {}, 2, ["0", "1", "0"]),  # a learner on the CPU: in turn
        ("auto", 1, {"CUDA_VISIBLE_DEVICES": "5,7"}, 8, ["7", "7", "7"]),
        ("auto", None, {"CUDA_VISIBLE_DEVICES": "5, 7"}, 8, ["5", "7", "5"]),
        ("auto", None, {"CUDA_VISIBLE_DEVICES": ""}, 8, [None, None, None]),
        ("auto", 0, {"CUDA_VISIBLE_DEVICES": "GPU-8c1f"}, 8, [None, None, None]),
        ("auto", 0, {"CUDA_VISIBLE_DEVICES": "6"}, 1, [None, None, None]),  # a container's numbering
        (1, 0, {}, 4, ["1", "1", "1"]),
        (1, 0, {"CUDA_VISIBLE_DEVICES": "5,7"}, 8, ["7", "7", "7"]),
        (1, 0, {"MUJOCO_EGL_DEVICE_ID": "3"}, 8, [None, None, None]),  # the user's own stands
    ],
)
def test_workers_draw_where_they_should(wanted, learner, variables, count, devices):
    found = [choose_render_device(index, wanted, learner, variables, count) for index in range(3)]
    assert found == devices


def test_a_gpu_that_is_not_there_is_refused_before_any_process(monkeypatch):
    monkeypatch.delenv("MUJOCO_EGL_DEVICE_ID", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("envs.vector.count_gpus", lambda: 2)
    with pytest.raises(ResourceError, match=r"render_device=2 does not exist: 2 GPU\(s\)"):
        envs.make_vector_env("walker_walk", 2, render_device=2)


@pytest.mark.parametrize(
    ("several", "own", "threads"), [(True, None, "0"), (False, None, None), (True, "2", "2")]
)
@pytest.mark.parametrize(("offered", "device"), [(3, "1"), (2, "1"), (1, None), (0, None)])
def test_workers_draw_without_threads_beside_others_and_where_egl_can(
    monkeypatch, several, own, threads, offered, device
):
    monkeypatch.setattr(os, "environ", {} if own is None else {"LP_NUM_THREADS": own})
    monkeypatch.setattr(render_device, "count_gpus", lambda: 2)
    monkeypatch.setattr(render_device, "count_egl_devices", lambda: offered)
    prepare_rendering(1, several, "auto", None)
    assert os.environ.get("LP_NUM_THREADS") == threads
    assert os.environ.get("MUJOCO_EGL_DEVICE_ID") == device


def test_a_gpu_that_egl_does_not_offer_leaves_the_drawing_to_mesa():
    """In a process of its own: a container with two GPUs and without NVIDIA's EGL."""
    code = """
import torch
import envs
from envs import render_device
offered = render_device.count_egl_devices()
render_device.count_gpus = lambda: offered + 2
render_device.prepare_rendering(0, True, offered + 1, None)
assert "MUJOCO_EGL_DEVICE_ID" not in __import__("os").environ
print(offered, envs.make_env("cartpole_swingup").reset(seed=1)[0]["pixels"].std() > 0)
"""
    variables = {**os.environ, "MUJOCO_GL": "egl"}
    for name in ("MUJOCO_EGL_DEVICE_ID", "CUDA_VISIBLE_DEVICES"):
        variables.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=variables, check=False
    )
    assert done.returncode == 0, done.stderr
    offered, drawn = done.stdout.split()
    assert int(offered) >= 1 and drawn == "True"
