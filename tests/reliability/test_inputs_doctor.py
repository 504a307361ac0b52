"""The doctor: what it finds, what it advises, and that its exit code is the one training would end with."""

import importlib.util
import json
import os
import subprocess
import sys
from importlib import metadata
from types import ModuleType

import pytest

from common.paths import PROJECT_ROOT
from envs import backends

SCRIPT = PROJECT_ROOT / "setup" / "doctor.py"


@pytest.fixture(scope="module")
def doctor() -> ModuleType:
    spec = importlib.util.spec_from_file_location("doctor", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["doctor"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """No pictures are drawn, no weights are at hand, nothing is fetched."""
    from huggingface_hub import constants

    monkeypatch.setattr(backends, "probe_backend", lambda name: None if name == "egl" else "no such library")
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("SAMG_DATA", raising=False)
    monkeypatch.setenv("SAMG_CACHE", str(tmp_path / "cache"))


def examine(doctor, capsys, *overrides):
    """Return the exit code and name -> check of the doctor's JSON."""
    code = doctor.main([*overrides, "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report["exit_code"] == code and report["ok"] == (code == 0)
    assert all(check["cure"] for check in report["checks"] if check["status"] != "ok"), report
    return code, {check["name"]: check for check in report["checks"]}


@pytest.mark.reliability(
    "22", "setup/doctor.py says that training can start, with versions, frames, assets and space"
)
def test_everything_is_fine(doctor, capsys, tmp_path):
    code, checks = examine(doctor, capsys, "masker=tiny", f"hydra.run.dir={tmp_path / 'run'}")
    assert code == 0
    assert {
        "Python",
        "libraries",
        "device",
        "MUJOCO_GL=egl",
        "reference",
        "weights",
        "memory",
    } <= checks.keys()
    assert "mujoco 3.17.0" in checks["libraries"]["found"]
    assert (
        checks["MUJOCO_GL=osmesa"]["status"] == "ok" and "not needed" in checks["MUJOCO_GL=osmesa"]["found"]
    )
    assert checks["DMC-GB data"]["status"] == "warning" and "procedural" in checks["DMC-GB data"]["cure"]
    assert "550,000 transitions" in checks["memory"]["found"]
    assert not (tmp_path / "run").exists(), "the doctor writes nothing"


@pytest.mark.reliability("17", "setup/doctor.py finds what train.py would stop at, with its exit code")
@pytest.mark.parametrize(
    ("overrides", "code", "name", "says"),
    [
        (["batchsize=3"], 2, "configuration", "batchsize"),
        (["nstep=0"], 2, "configuration", "nstep=0"),
        (["device=cuda:7"], 5, "device", "cuda:7"),
        (["masker=paper"], 3, "masker", "efficientvit_sam_l1.pt"),
        (["masker=tiny", "masker.weights=nowhere.safetensors"], 3, "masker", "nowhere.safetensors"),
        (["masker=tiny", "original_image=nowhere.png"], 3, "masker", "nowhere.png does not exist"),
        (["masker=tiny", "image_size=64"], 3, "masker", "the environment renders 64 x 64"),
        (["masker=none", "background.type=color"], 3, "data", "color_easy"),
        (["masker=none", "num_train_frames=100000000", "replay_buffer_size=40000000"], 5, "memory", "GB"),
        (["masker=none", "hydra.run.dir=/dev/null/run"], 5, "run directory", "/dev/null is not writable"),
    ],
)
def test_problems_have_the_codes_of_training(overrides, code, name, says, doctor, capsys):
    found, checks = examine(doctor, capsys, *overrides)
    assert found == code, checks
    assert checks[name]["status"] == "problem" and says in checks[name]["found"]


@pytest.mark.reliability("22", "setup/doctor.py: a backend that does not draw is exit 7 with the cure")
def test_a_backend_that_does_not_draw(doctor, capsys, monkeypatch):
    monkeypatch.setattr(backends, "probe_backend", lambda name: "no driver")
    code, checks = examine(doctor, capsys, "masker=none")
    assert code == 7 and checks["MUJOCO_GL=egl"]["found"] == "no driver"
    assert "libegl1" in checks["MUJOCO_GL=egl"]["cure"]


@pytest.mark.reliability(
    "22", "setup/doctor.py: a mujoco that does not belong to dm_control is exit 7; others only warn"
)
def test_versions_that_were_not_tested(doctor):
    pins = doctor.read_pins()
    assert pins["mujoco"] == "3.17.0"

    def versions(**changed):
        def version(name):
            value = changed.get(name.replace("-", "_"), pins[name])
            if value is None:
                raise metadata.PackageNotFoundError(name)
            return value

        checks = doctor.check_versions(pins, version)
        return doctor.exit_code(checks), {check.name: check.status for check in checks}

    assert versions() == (0, {"Python": "ok", "libraries": "ok"})
    assert versions(mujoco="4.0.0")[0] == 7
    assert versions(torch="2.99.0+cu130") == (0, {"Python": "ok", "torch": "warning", "libraries": "ok"})
    assert versions(torch=pins["torch"] + "+cpu")[1] == {"Python": "ok", "libraries": "ok"}
    assert versions(timm=None)[0] == 7


@pytest.mark.slow
@pytest.mark.reliability("22", "setup/doctor.py as a command: a table, and exit 7 without EGL")
@pytest.mark.parametrize(("vendor", "code"), [({}, 0), ({"__EGL_VENDOR_LIBRARY_FILENAMES": "/none"}, 7)])
def test_the_command(vendor, code, tmp_path):
    environment = {**os.environ, "MUJOCO_GL": "egl", "PYTHONPATH": str(PROJECT_ROOT), **vendor}
    command = [sys.executable, str(SCRIPT), "masker=none", f"hydra.run.dir={tmp_path / 'run'}"]
    command += ["num_train_frames=1000"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=280, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert ("Training can start." in done.stdout) == (code == 0)
