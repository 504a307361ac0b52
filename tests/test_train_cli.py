"""The real command: train past the first updates, continue, evaluate; and every bad input it must refuse."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from common.files import sha256_file
from common.paths import PROJECT_ROOT

SMALL = ("batch_size=8", "num_seed_frames=200", "agent.num_expl_steps=100", "agent.hidden_dim=64")
REPEAT = 8  # four times walker's: an episode of 125 decisions


def run(script: str, *arguments: str, timeout: float = 280) -> subprocess.CompletedProcess[str]:
    nothing_cached = {"HF_HUB_OFFLINE": "1", "HF_HOME": "/nonexistent"}
    environment = {**os.environ, **nothing_cached, "OMP_NUM_THREADS": "1"}
    environment.pop("SAMG_DATA", None)
    return subprocess.run(
        [sys.executable, str(PROJECT_ROOT / script), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment,
        check=False,
    )


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as handle:
        return list(csv.DictReader(handle))


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("run") / "walker"
    command = [
        "task=walker_walk",
        "masker=tiny",
        f"action_repeat={REPEAT}",
        *SMALL,
        f"hydra.run.dir={folder}",
    ]
    done = run("train.py", *command, "num_train_frames=1240")
    assert done.returncode == 0, done.stderr
    assert "locoeval.py" in done.stdout  # says what to type next
    return folder, command


def test_training_gets_past_its_first_updates(trained):
    folder, _ = trained
    manifest = json.loads((folder / "snapshots" / "step_0000000155" / "manifest.json").read_text())
    assert manifest["agent_steps"] == 155
    # One update every second decision, from the end of the first episode on.
    assert manifest["updates"] == 15
    assert (folder / "masker" / "masker.json").exists()
    (episode,) = table(folder / "train.csv")
    assert int(episode["episode_length"]) == 1000 // REPEAT
    assert 0.01 < float(episode["mask_area"]) < 0.5
    assert float(episode["empty_masks"]) < 0.5


def test_the_same_command_continues_the_run(trained):
    folder, command = trained
    done = run("train.py", *command, "num_train_frames=1400")
    assert done.returncode == 0, done.stderr
    assert "Resumed" in done.stdout and "155 decisions" in done.stdout
    manifest = json.loads((folder / "snapshots" / "step_0000000175" / "manifest.json").read_text())
    assert manifest["agent_steps"] == 175
    assert manifest["updates"] == 25
    assert len(table(folder / "train.csv")) == 1


@pytest.mark.slow
def test_the_continued_run_equals_an_uninterrupted_one(trained, tmp_path):
    folder, command = trained
    whole = tmp_path / "whole"
    done = run("train.py", *command[:-1], f"hydra.run.dir={whole}", "num_train_frames=1400")
    assert done.returncode == 0, done.stderr
    for name in ("agent.safetensors", "optimizers.safetensors"):
        one, other = (root / "snapshots" / "step_0000000175" / name for root in (folder, whole))
        assert sha256_file(one) == sha256_file(other), name


def test_any_run_directory_evaluates_on_a_level(trained):
    folder, _ = trained
    flags = ("--mode", "color_hard", "--background-source", "procedural", "--episodes", "1")
    done = run("locoeval.py", "--model_dir", str(folder), *flags)
    assert done.returncode == 0, done.stderr
    result = json.loads((folder / "eval" / "color_hard-procedural-tiny-s0.json").read_text())
    assert len(result["episode_returns"]) == 1
    assert 0 <= result["mean"] <= 1000
    conditions = result["conditions"]
    assert conditions["source"] == "procedural" and conditions["protocol"] == "dmcgb"
    assert conditions["masker"]["fingerprint"] == conditions["training_masker"]["fingerprint"]
    assert conditions["frames"] == REPEAT * conditions["agent_steps"]
    assert result["mask_iou"] > 0.3
    pictures = list((folder / "eval").glob("*.png"))
    assert pictures and Image.open(pictures[0]).width > 300


def test_another_experiment_does_not_overwrite_a_run(trained):
    folder, command = trained
    before = sorted(path.name for path in (folder / "snapshots").iterdir())
    done = run("train.py", *command, "num_train_frames=1600", "nstep=5")
    assert done.returncode == 2
    assert "nstep: 1 -> 5" in done.stderr and "hydra.run.dir" in done.stderr
    assert sorted(path.name for path in (folder / "snapshots").iterdir()) == before


def bad_image(folder: Path) -> Path:
    path = folder / "cut.png"
    path.write_bytes((PROJECT_ROOT / "reference_images" / "walker_0.png").read_bytes()[:900])
    return path


def in_process_too(*case):
    """A case that other tests put to the functions themselves: a start of the real command takes seconds."""
    return pytest.param(*case, marks=pytest.mark.slow)


@pytest.mark.reliability("24", "train.py answers bad input with two lines and the documented exit code")
@pytest.mark.parametrize(
    ("overrides", "code", "words"),
    [
        (["task=walker_wlak"], 2, ["walker_wlak", "walker_walk"]),
        (["batchsize=3"], 2, ["batchsize", "batch_size"]),
        (["batch_size=many"], 2, ["batch_size", "whole number"]),
        in_process_too(["use_SAM_g=false", "masker=tiny"], 2, ["contradicts"]),
        in_process_too(["device=cuda:7"], 5, ["cuda:7"]),
        (["original_image=nowhere.png"], 3, ["nowhere.png", "does not exist"]),
        (["original_image={bad_image}"], 3, ["cut.png"]),
        in_process_too(["extra_points_list=[[84,10]]"], 3, ["84", "outside"]),
        (["masker=paper"], 3, ["masker=tiny", "setup/download.py paper"]),
        in_process_too(
            ["masker=paper", "masker.weights={empty}"], 3, ["holds none", "efficientvit_sam_l1.pt"]
        ),
        (["background.type=video", "background.data_dir={empty}"], 3, ["setup/download.py", "procedural"]),
    ],
)
def test_bad_input_gets_one_clear_error_and_its_exit_code(tmp_path, overrides, code, words):
    empty = tmp_path / "empty"
    empty.mkdir()
    filled = [text.format(bad_image=bad_image(tmp_path), empty=empty) for text in overrides]
    if not any(text.startswith("masker=") for text in filled):
        filled.append("masker=tiny")
    run_dir = tmp_path / "run"
    done = run("train.py", *filled, f"hydra.run.dir={run_dir}")
    assert done.returncode == code, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith(("error:", "  cure:"))]
    assert len(lines) == 2, done.stderr
    assert all(word in " ".join(lines) for word in words), lines
    assert "Traceback" not in done.stderr
    assert not (run_dir / "masker").exists()
