"""The real commands on the hand: record, train with demonstrations, be killed, go on, evaluate on levels."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from evaluation.results import load_result
from tests.support.sweeps import digests
from tests.test_train_cli import run, table
from training.snapshot import read_manifest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
SMALL = ("batch_size=8", "agent.hidden_dim=32", "agent.feature_dim=16", "num_threads=1", "fast_render=true")
PEN = ("task=pen", "masker=groundtruth", "agent=vrl3", "agent.offline_updates=6", "image_size=48", *SMALL)
LEVELS = ("train", "color_easy", "color_hard", "video_easy", "video_hard")


@pytest.fixture(scope="module")
def pens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("recorded") / "pen.npz"
    done = run("record.py", "--task", "pen", "--policy", "still", "--episodes", "2", "--out", str(file))
    assert done.returncode == 0 and "2 successful" in done.stdout, done.stderr
    return file


def test_a_run_with_demonstrations_is_killed_and_goes_on_bit_by_bit(
    pens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAMG_CACHE", str(tmp_path / "cache"))
    command = [*PEN, f"demonstrations={pens}", "num_train_frames=160", "snapshot_every_frames=100"]
    whole = tmp_path / "whole"
    done = run("train.py", *command, f"hydra.run.dir={whole}")
    assert done.returncode == 0, done.stderr
    assert "Learning offline from 100 transitions: 6 updates" in done.stdout
    manifest = read_manifest(whole / "snapshots" / "step_0000000080")
    assert manifest["demonstrated"] == 100 and manifest["updates"] == 6 + 40

    parts = tmp_path / "parts"
    command.append(f"hydra.run.dir={parts}")
    monkeypatch.setenv("SAMG_FAULT", "train.update:3:kill")  # while it learns offline
    assert run("train.py", *command).returncode == -9
    monkeypatch.setenv("SAMG_FAULT", "train.act:70:kill")  # after a snapshot
    assert run("train.py", *command).returncode == -9
    monkeypatch.delenv("SAMG_FAULT")
    shutil.rmtree(tmp_path / "cache")  # what was played is in the replay now
    done = run("train.py", *command)
    assert done.returncode == 0 and "Resumed" in done.stdout, done.stderr
    assert digests(parts, 80) == digests(whole, 80)
    assert not (tmp_path / "cache").exists()

    recorded = tmp_path / "trained.npz"
    flags = ("--episodes", "1", "--attempts", "1", "--outcome", "any", "--out", str(recorded))
    done = run("record.py", "--model_dir", str(whole), *flags)
    assert done.returncode == 0 and "1 of 1 episodes" in done.stdout, done.stderr
    again = (*PEN, f"demonstrations={recorded}", "demonstration_filter.outcome=any", "num_train_frames=20")
    done = run("train.py", *again, f"hydra.run.dir={tmp_path / 'again'}")
    assert done.returncode == 0 and "Learning offline from 50 transitions" in done.stdout, done.stderr


def test_a_run_of_two_cameras_is_recorded_and_begun_with(tmp_path: Path) -> None:
    command = ["task=relocate", "camera=[cam1,cam3]", "masker=groundtruth", *SMALL, "num_seed_frames=0"]
    first, file = tmp_path / "first", tmp_path / "relocate.npz"
    done = run("train.py", *command, "num_train_frames=20", f"hydra.run.dir={first}")
    assert done.returncode == 0, done.stderr
    flags = ("--episodes", "1", "--attempts", "1", "--outcome", "any", "--out", str(file))
    done = run("record.py", "--model_dir", str(first), *flags)
    assert done.returncode == 0 and "1 of 1 episodes" in done.stdout, done.stderr
    command += [f"demonstrations={file}", "demonstration_filter.outcome=any", "num_train_frames=20"]
    done = run("train.py", *command, f"hydra.run.dir={tmp_path / 'second'}")
    assert done.returncode == 0, done.stderr
    manifest = read_manifest(tmp_path / "second" / "snapshots" / "step_0000000010")
    assert manifest["demonstrated"] == 100 and manifest["updates"] == 5


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["task=door", "demonstrations={pens}"], "not of adroit_door"),
        (["task=pen", "demonstrations={cut}"], "cannot be read"),
        (["task=pen", "demonstrations={pens}", "demonstration_filter.least_return=1000"], "at least 1000"),
    ],
)
def test_demonstrations_that_will_not_do_stop_the_command_before_anything_is_written(
    overrides: list[str], words: str, pens: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.npz"
    cut.write_bytes(pens.read_bytes()[:900])
    filled = [text.format(pens=pens, cut=cut) for text in overrides]
    done = run("train.py", *filled, "masker=tiny", "agent=vrl3", f"hydra.run.dir={tmp_path / 'run'}")
    assert done.returncode == 3, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith(("error:", "  cure:"))]
    assert len(lines) == 2 and words in lines[0] and "Traceback" not in done.stderr
    assert not {path.name for path in (tmp_path / "run").iterdir()} & {"masker", "config.yaml", "replay"}


def test_door_with_tiny_in_two_environments_goes_on_and_is_evaluated_on_every_level(tmp_path: Path) -> None:
    command = ["env=adroit", "task=door", "masker=tiny", "num_envs=2", "num_seed_frames=200", *SMALL]
    command += ["agent.num_expl_steps=100", "eval_every_frames=0"]
    for name, budgets in (("whole", (520,)), ("parts", (440, 520))):
        for frames in budgets:
            done = run("train.py", *command, f"num_train_frames={frames}", f"hydra.run.dir={tmp_path / name}")
            assert done.returncode == 0, done.stderr
    assert "Resumed" in done.stdout
    run_dir = tmp_path / "parts"
    assert digests(run_dir, 260) == digests(tmp_path / "whole", 260)
    assert read_manifest(run_dir / "snapshots" / "step_0000000260")["updates"] >= 20
    episodes = table(run_dir / "train.csv")
    assert len(episodes) == 2 and all(float(row["mask_area"]) > 0 for row in episodes)

    flags = ("--mode", *LEVELS, "--background-source", "procedural", "--episodes", "1")
    done = run("locoeval.py", "--model_dir", str(run_dir), *flags, timeout=900)
    assert done.returncode == 0 and "success" in done.stdout, done.stderr
    for level in LEVELS:
        result = load_result(run_dir / "eval" / f"{level}-procedural-tiny-s0.json")
        assert result.success_rate == 0.0 and result.mask_iou is not None
