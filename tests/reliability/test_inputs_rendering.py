"""Rendering that is missing, wrong, crashing or hanging; and libraries that do not belong together."""

import os
import re
import subprocess
import sys

import pytest

import envs
from common.errors import DependencyError
from common.paths import PROJECT_ROOT
from envs import backends

ROW = "22"
NO_VENDOR = {"__EGL_VENDOR_LIBRARY_FILENAMES": "/nonexistent.json"}


def failure(**options) -> DependencyError:
    with pytest.raises(DependencyError) as caught:
        envs.check_rendering(**options)
    assert caught.value.exit_code == 7 and caught.value.hint
    return caught.value


@pytest.fixture
def no_others(monkeypatch):
    """Leave out the other backends: each costs a second."""
    monkeypatch.setattr(backends, "BACKENDS", ())


def test_a_picture_comes(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "egl")
    envs.check_rendering()


@pytest.mark.reliability(
    ROW, "no EGL, a wrong device, an unknown backend: exit 7 with the reason and the cure"
)
@pytest.mark.parametrize(
    ("variables", "says"),
    [
        (NO_VENDOR, "MUJOCO_GL=egl failed: Cannot initialize a EGL device display"),
        ({"MUJOCO_EGL_DEVICE_ID": "99"}, "must be an integer between 0 and"),
        ({"MUJOCO_GL": "bogus"}, "MUJOCO_GL=bogus failed: invalid value for environment variable MUJOCO_GL"),
    ],
)
def test_a_backend_that_does_not_work_says_why(variables, says, monkeypatch, no_others):
    for name, value in {"MUJOCO_GL": "egl", **variables}.items():
        monkeypatch.setenv(name, value)
    error = failure()
    assert says in error.message and "libegl1 libgl1 libgl1-mesa-dri" in error.hint


@pytest.mark.reliability(
    ROW, "where another backend draws, the error names it; where none does, what each said"
)
def test_the_other_backends_are_tried(monkeypatch):
    answers = {"egl": "no driver", "osmesa": None, "glfw": "no display"}
    monkeypatch.setattr(backends, "probe_backend", lambda name, patience: answers[name])
    monkeypatch.setenv("MUJOCO_GL", "egl")
    assert failure().hint.startswith("MUJOCO_GL=osmesa works on this machine")
    answers["osmesa"] = "no library"
    error = failure()
    assert "egl failed: no driver; tried osmesa: no library; tried glfw: no display" in error.message


@pytest.mark.reliability(ROW, "a driver that hangs or crashes is reported, and takes no run with it")
@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import time; time.sleep(60)", "no picture within 1 s"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended by SIGSEGV"),
        ("import sys; sys.exit('broken driver')", "broken driver"),
        ("import os; os._exit(3)", "ended with code 3"),
        ("print('noise')", "ended with code 0"),
        ("print('{}')", "ended with code 0"),
        ("print('{\"mean\": 0.0}')", "pictures stay black"),
    ],
)
def test_processes_that_misbehave(code, says, tmp_path, monkeypatch, no_others):
    script = tmp_path / "probe.py"
    script.write_text(code)
    monkeypatch.setattr(backends, "PROBE", script)
    assert says in failure(patience=1.0).message


@pytest.mark.reliability(
    ROW, "mujoco and dm_control that do not fit: both versions and the tested pair are named"
)
def test_libraries_that_do_not_belong_together(monkeypatch):
    from dm_control import suite

    def broken(*_, **__):
        raise AttributeError("'mujoco._structs.MjModel' object has no attribute 'flex_vertedge'")

    monkeypatch.setattr(suite, "load", broken)
    with pytest.raises(AttributeError):  # of the right versions, this is another fault
        envs.make_env("walker_walk")
    monkeypatch.setattr(backends, "installed_version", lambda name: "4.0.0" if name == "mujoco" else "1.0.50")
    with pytest.raises(DependencyError, match=r"mujoco 4\.0\.0 with dm_control 1\.0\.50") as caught:
        envs.make_env("walker_walk")
    assert (
        "flex_vertedge" in caught.value.message and "mujoco==3.17.0 dm_control==1.0.50" in caught.value.hint
    )


def test_the_tested_pair_is_the_pinned_one():
    pins = (PROJECT_ROOT / "setup" / "constraints.txt").read_text()
    for name, version in backends.TESTED_PAIR.items():
        assert re.search(rf"^{name.replace('_', '[-_]')}=={re.escape(version)}$", pins, re.MULTILINE)
        assert backends.installed_version(name) == version
    assert backends.installed_version("no-such-package") == "not installed"


@pytest.mark.slow
@pytest.mark.reliability(ROW, "train.py on a machine without EGL: two lines, exit 7, nothing written")
def test_the_command_stops_before_any_work(tmp_path):
    command = [
        sys.executable,
        str(PROJECT_ROOT / "train.py"),
        "masker=none",
        f"hydra.run.dir={tmp_path / 'run'}",
    ]
    environment = {**os.environ, "MUJOCO_GL": "egl", **NO_VENDOR}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=200, check=False)
    assert done.returncode == 7, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith(("error:", "  cure:"))]
    assert len(lines) == 2 and "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "config.yaml").exists()
