"""Which GPU a worker draws on, told from made-up machines."""

import os

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
def test_workers_beside_others_draw_without_threads(monkeypatch, several, own, threads):
    monkeypatch.setattr(os, "environ", {} if own is None else {"LP_NUM_THREADS": own})
    monkeypatch.setattr(render_device, "count_gpus", lambda: 2)
    prepare_rendering(1, several, "auto", None)
    assert os.environ.get("LP_NUM_THREADS") == threads and os.environ["MUJOCO_EGL_DEVICE_ID"] == "1"
