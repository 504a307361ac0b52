"""Unusual hosts: no home to write to, no temporary folder, odd paths, no network, a clock that jumps."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.files import read_json, sha256_file, write_json
from common.paths import PROJECT_ROOT, cache_dir
from samg.reference import Reference
from tests.support.scenes import scene
from training.snapshot import SnapshotStore

ROW = "28"


@pytest.mark.slow
@pytest.mark.reliability(
    ROW, "training runs with a HOME and a TMPDIR that cannot be written, and without a network"
)
def test_training_without_home_and_temporary_folder(tmp_path):
    run_dir = tmp_path / "läufe ☃" / "a run"
    command = [
        "masker=tiny",
        "num_threads=1",
        "num_train_frames=40",
        "num_seed_frames=20",
        "num_eval_episodes=0",
    ]
    command += ["agent.num_expl_steps=10", "batch_size=4", "agent.hidden_dim=16", "replay_buffer_size=500"]
    command = [sys.executable, str(PROJECT_ROOT / "train.py"), *command, f'hydra.run.dir="{run_dir}"']
    odd = {"HOME": "/proc/nowhere", "TMPDIR": "/proc/nowhere", "XDG_CACHE_HOME": "/proc/nowhere"}
    odd |= {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "HTTPS_PROXY")}
    environment = {**os.environ, "MUJOCO_GL": "egl", "OMP_NUM_THREADS": "1", **odd}
    environment.pop("SAMG_CACHE", None)
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=290, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert (run_dir / "snapshots" / "step_0000000020" / "manifest.json").exists()


@pytest.mark.reliability(ROW, "files with names that are no UTF-8 are read and written")
def test_names_that_are_no_utf8(tmp_path):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/odd \xff\xfe"))
    folder.mkdir()
    image, mask = scene(size=24)
    for name, pixels in (("image.png", image), ("mask.png", mask.astype(np.uint8) * 255)):
        Image.fromarray(pixels).save(folder / name)
    Reference.load(folder / "image.png", folder / "mask.png").save(folder / "reference")
    assert np.array_equal(Reference.restore(folder / "reference").mask, mask)
    write_json(folder / "a.json", {"a": 1})
    assert read_json(folder / "a.json") == {"a": 1} and len(sha256_file(folder / "a.json")) == 64


@pytest.mark.reliability(ROW, "snapshots are ordered by step: a clock that jumps back changes nothing")
def test_a_clock_that_jumps(tmp_path, monkeypatch):
    store = SnapshotStore(tmp_path / "snapshots")
    now = time.time()
    for step, moment in ((1, now), (2, now - 10**8), (10, 0.0)):
        monkeypatch.setattr(time, "time", lambda moment=moment: moment)
        path = store.save(step, {"agent": {"step": step}}, {})
        os.utime(path, (moment, moment))
    assert store.latest_valid().name == "step_0000000010"
    assert [path.name for path in store.paths()] == ["step_0000000002", "step_0000000010"]


@pytest.mark.reliability(
    ROW, "a cache that cannot be written is named by SAMG_CACHE, and by default below HOME"
)
def test_the_cache_follows_the_variables(monkeypatch, tmp_path):
    monkeypatch.delenv("SAMG_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache" / "samg"
    monkeypatch.setenv("SAMG_CACHE", str(tmp_path / "other"))
    assert cache_dir() == tmp_path / "other"
