"""The renderer: the pictures of dm_control, and no disturbance between two of them."""

import os
import subprocess
import sys

import numpy as np
import pytest

from common.errors import ConfigError, DependencyError
from envs.renderer import Renderer, load_mujoco
from envs.tasks import find_task

mujoco = load_mujoco()

RED = """<mujoco><asset><texture name="t" type="2d" builtin="flat" rgb1="1 0 0" width="8" height="8"/>
<material name="m" texture="t"/></asset><worldbody><light pos="0 0 3"/><camera pos="0 0 2"/>
<geom type="plane" size="3 3 1" material="m"/>{extra}</worldbody></mujoco>"""
EXTRA = '<geom type="sphere" size=".3" pos=".4 0 .3" rgba="0 0 1 1"/>'


def make(xml):
    model = mujoco.MjModel.from_xml_string(xml)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


@pytest.fixture
def pair():
    """Two different models, their data, renderers and first pictures."""
    first, second = make(RED.format(extra="")), make(RED.format(extra=EXTRA))
    renderers = [Renderer(model, 32, 32) for model, _ in (first, second)]
    yield first, second, renderers
    for renderer in renderers:
        renderer.close()


def test_two_models_in_turn_do_not_mix(pair):
    (_, data_a), (_, data_b), (a, b) = pair
    alone = [a.render(data_a), b.render(data_b)]
    assert not np.array_equal(*alone)
    for _ in range(3):
        assert np.array_equal(a.render(data_a), alone[0])
        assert np.array_equal(b.render(data_b), alone[1])


def test_closing_one_leaves_the_other_intact(pair):
    (_, data_a), (_, data_b), (a, b) = pair
    before = b.render(data_b)
    a.render(data_a)
    b.render(data_b)  # b's context is current while a closes
    a.close()
    assert np.array_equal(b.render(data_b), before)
    a.close()  # twice is harmless
    with pytest.raises(ValueError, match="closed"):
        a.render(data_a)


def test_an_upload_changes_its_own_model_only(pair):
    (model_a, data_a), (_, data_b), (a, b) = pair
    before_a, before_b = a.render(data_a), b.render(data_b)  # b's context is current now
    model_a.tex_data[:] = 0
    model_a.tex_data[1::3] = 255
    assert np.array_equal(a.render(data_a), before_a), "nothing may change before the upload"
    b.render(data_b)
    a.upload_texture(0)
    green = a.render(data_a)
    assert green[..., 1].mean() > before_a[..., 1].mean() + 50
    assert np.array_equal(b.render(data_b), before_b)


def test_segmentation_names_the_geoms(pair):
    _, (_, data_b), (_, b) = pair
    segmentation = b.render_segmentation(data_b)
    assert segmentation.shape == (32, 32, 2) and segmentation.dtype == np.int32
    assert set(np.unique(segmentation[..., 0])) == {0, 1}
    assert (segmentation[..., 1] == int(mujoco.mjtObj.mjOBJ_GEOM)).all()
    picture = b.render(data_b)  # the mode does not stick
    assert picture.dtype == np.uint8 and picture.shape == (32, 32, 3)
    blue = picture[..., 2] > picture[..., 0]
    assert (blue == (segmentation[..., 0] == 1)).mean() > 0.95


def test_fast_render_is_nearly_the_same_picture():
    from envs.dmc import DMCEnv

    frames = []
    for fast in (False, True):
        env = DMCEnv(find_task("walker_walk"), fast_render=fast)
        frames.append(env.reset(seed=0)[0]["pixels"].astype(int))
        assert (env.model.vis.quality.shadowsize == 512) == fast
        env.close()
    difference = np.abs(frames[0] - frames[1])
    assert difference.mean() < 0.2 and difference.any()


COMPARE = """
import envs, numpy as np, sys
from dm_control import suite
from envs.renderer import Renderer
from envs.tasks import find_task
cases = []
for task in map(find_task, sys.argv[1:]):
    env = suite.load(task.domain, task.task, task_kwargs=dict(random=0))
    env.reset()
    picture, segments = (env.physics.render(84, 84, task.camera, segmentation=s) for s in (False, True))
    cases.append((task, env.physics, picture, segments))
for task, physics, picture, segments in cases:
    ours = Renderer(physics.model.ptr, 84, 84, task.camera)
    assert np.array_equal(ours.render(physics.data.ptr), picture), task
    assert np.array_equal(ours.render_segmentation(physics.data.ptr), segments), task
print("equal")
"""


def test_pictures_equal_those_of_dm_control():
    # In a process of its own: dm_control's context must not meet other renderers (it would draw into theirs).
    command = [sys.executable, "-c", COMPARE, "walker_walk", "quadruped_walk", "cup_catch"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout == "equal\n", done.stderr


def test_environments_left_open_make_no_noise_at_exit():
    code = "import envs; kept = [envs.make_env(name) for name in ('walker_walk', 'cup_catch')]; "
    code += "[env.reset() for env in kept]"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stderr == ""


def test_impossible_sizes_and_cameras_are_refused(pair):
    (model, _), _, _ = pair
    with pytest.raises(ConfigError, match="image size 5000x32"):
        Renderer(model, 5000, 32)
    with pytest.raises(ConfigError, match="Camera 7"):
        Renderer(model, 32, 32, camera=7)


@pytest.mark.parametrize("variable", [{"MUJOCO_EGL_DEVICE_ID": "99"}, {"PYOPENGL_PLATFORM": "nonsense"}])
def test_missing_rendering_is_one_error_with_the_cure(variable):
    code = "import envs; from common.errors import run_script; "
    code += "run_script(lambda: envs.make_env('walker_walk').reset())"
    environment = {**os.environ, "MUJOCO_GL": "egl", **variable}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == DependencyError.exit_code, done.stderr
    assert "libegl1 libgl1 libgl1-mesa-dri" in done.stderr and "MUJOCO_GL" in done.stderr
    assert "Traceback" not in done.stderr
