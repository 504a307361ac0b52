"""The real command: with a counting environment in this process, and its errors in a process of its own."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

import envs
import locoeval
from algos import DrQV2Agent
from common.errors import ConfigError, InputError
from common.paths import PROJECT_ROOT
from evaluation import load_result
from evaluation.videos import count_frames
from samg import build_masker
from tests.support.fake_evaluation import vector_env
from training.config import compose_config
from training.snapshot import SnapshotStore

SMALL = ["feature_dim=8", "agent.hidden_dim=16", "num_train_frames=4000"]
ACTIONS = {"fake": 2, "walker_walk": 6}


def make_run(path, masker, actions):
    """A run as train.py leaves it, with an untrained agent."""
    config = compose_config(["task=walker_walk", f"masker={masker}", *SMALL])
    config.background.source = "procedural"
    torch.manual_seed(0)
    agent = DrQV2Agent((9, 84, 84), (actions,), feature_dim=8, hidden_dim=16)
    SnapshotStore(path / "snapshots").save(2000, {"agent": agent.state_dict()["networks"]}, {"updates": 750})
    OmegaConf.save(config, path / "config.yaml", resolve=True)
    if masker in ("none", "groundtruth"):
        build_masker(masker).fit(None).save(path / "masker")
    return path


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run", "groundtruth", ACTIONS["fake"])


@pytest.fixture
def made(monkeypatch):
    """Counting environments instead of a simulator; returns what was asked of them."""
    asked = []

    def fake(task, num_envs, **options):
        asked.append({"task": task, "num_envs": num_envs, **options})
        return vector_env(num_envs, size=84, length=lambda e: 55 + e)

    monkeypatch.setattr(envs, "make_vector_env", fake)
    return asked


def evaluate(run, *flags):
    locoeval.main(["--model_dir", str(run), "--device", "cpu", *flags])


def test_levels_results_table_and_picture(run, made, capsys):
    evaluate(run, "--mode", "train", "video_hard", "--episodes", "2", "--random-baseline", "--num_envs", "8")
    printed = capsys.readouterr().out
    assert [options["level"] for options in made] == ["train", "video_hard"]
    assert made[0]["num_envs"] == 2, "no more environments than episodes"
    assert made[0]["task"] == "walker_walk" and made[0]["foreground"] and made[0]["action_repeat"] == 2

    files = [run / "eval" / f"{level}-procedural-groundtruth-s0.json" for level in ("train", "video_hard")]
    results = [load_result(file) for file in files]
    assert [r.episode_lengths for r in results] == [[55, 56]] * 2
    assert results[1].conditions.level_facts["clips"] > 0 and results[1].conditions.source == "procedural"
    assert results[0].conditions.training_masker["fingerprint"] == results[0].conditions.masker["fingerprint"]
    assert (results[0].conditions.agent_steps, results[0].conditions.frames) == (2000, 4000)
    assert results[0].mask_iou == 1.0 and results[0].random_return is not None

    picture = run / "eval" / "train+video_hard-procedural-groundtruth-s0.png"
    assert np.asarray(Image.open(picture)).shape[0] > 500
    assert str(picture) in printed and str(files[0]) in printed
    for word in (
        "train",
        "video_hard",
        "random",
        "mask IoU",
        "empty masks",
        "2,000 decisions",
        "750 updates",
    ):
        assert word in " ".join(printed.split())
    assert "procedural levels" in printed
    flat = " ".join(printed.split())
    assert (
        f"Backgrounds from procedural: video_hard {results[1].conditions.level_facts['clips']} clips." in flat
    )
    assert "Random: mean of 2 episodes of random actions." in flat
    assert sorted(p.name for p in (run / "eval").iterdir()) == sorted(p.name for p in [*files, picture])


def test_the_level_train_draws_from_no_source(run, made, capsys):
    evaluate(run, "--mode", "train", "--episodes", "1")
    printed = capsys.readouterr().out
    assert "walker_walk" in printed and "procedural levels" not in printed and "Backgrounds" not in printed


def test_shadows_are_drawn_as_in_training_unless_asked_otherwise(run, made, caplog):
    flags = ("--mode", "train", "--episodes", "1", "--out", str(run / "out"))
    result = run / "out" / "train-procedural-groundtruth-s0.json"
    evaluate(run, *flags)
    assert made[-1]["fast_render"] is False and not caplog.text
    assert "fast_render" not in load_result(result).conditions.level_facts
    evaluate(run, *flags, "--overwrite", "--fast-render")
    assert made[-1]["fast_render"] is True and "trained with fast_render=false" in caplog.text
    assert load_result(result).conditions.level_facts["fast_render"] is True
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("fast_render: false", "fast_render: true"))
    evaluate(run, *flags, "--overwrite")
    assert made[-1]["fast_render"] is True
    evaluate(run, *flags, "--overwrite", "--fast_render", "false")
    assert made[-1]["fast_render"] is False and "trained with fast_render=true" in caplog.text


def test_returns_do_not_depend_on_the_number_of_environments(run, made):
    found = []
    for count in (1, 2, 3):
        flags = ("--mode", "train", "--episodes", "3", "--padded_batch", "8", "--num_envs", str(count))
        evaluate(run, *flags, "--out", str(run / f"out{count}"))
        found.append(
            load_result(run / f"out{count}" / "train-procedural-groundtruth-s0.json").episode_returns
        )
    assert found[0] == found[1] == found[2] and len(set(found[0])) == 3


def test_results_are_not_overwritten(run, made):
    flags = ("--mode", "train", "--episodes", "1")
    evaluate(run, *flags)
    path = run / "eval" / "train-procedural-groundtruth-s0.json"
    before, count = path.stat().st_mtime_ns, len(made)
    with pytest.raises(ConfigError, match="exists already"):
        evaluate(run, *flags)
    assert len(made) == count, "the refusal comes before any work"
    assert path.stat().st_mtime_ns == before
    evaluate(run, *flags, "--overwrite")
    assert path.stat().st_mtime_ns > before


def test_an_interrupted_level_keeps_those_before_it(run, made, monkeypatch):
    class Interrupted(Exception):
        pass

    fake = envs.make_vector_env

    def interrupt(task, num_envs, **options):
        if options["level"] == "video_hard":
            raise Interrupted
        return fake(task, num_envs, **options)

    monkeypatch.setattr(envs, "make_vector_env", interrupt)
    with pytest.raises(Interrupted):
        evaluate(run, "--mode", "train", "video_hard", "--episodes", "1")
    names = sorted(p.name for p in (run / "eval").iterdir())
    assert names == [f"train-procedural-groundtruth-s0.{suffix}" for suffix in ("json", "partial")]


def test_videos(run, made):
    evaluate(run, "--mode", "train", "--episodes", "2", "--save_video")
    videos = sorted((run / "videos").iterdir())
    assert [v.name for v in videos] == [f"train-procedural-groundtruth-s0-e{e}.mp4" for e in (0, 1)]
    assert [count_frames(v) for v in videos] == [56, 57]


def test_another_masker_is_recorded_with_the_one_of_training(run, made, caplog):
    evaluate(run, "--mode", "train", "--episodes", "1", "--masker", "none")
    conditions = load_result(run / "eval" / "train-procedural-none-s0.json").conditions
    assert conditions.masker["variant"] == "none" and conditions.training_masker["variant"] == "groundtruth"
    assert conditions.masker["fingerprint"] != conditions.training_masker["fingerprint"]
    assert "not the one of training" in caplog.text


def test_a_bad_reference_is_found_before_anything_is_made(run, made, tmp_path):
    flags = ("--mode", "train", "--masker", "tiny", "--masked_image")
    with pytest.raises(InputError, match=r"none\.png"):
        evaluate(run, *flags, "a.png", "--original_image", str(tmp_path / "none.png"))
    Image.fromarray(np.zeros((84, 84, 3), np.uint8)).save(tmp_path / "black.png")
    Image.fromarray(np.full((84, 84, 3), 99, np.uint8)).save(tmp_path / "image.png")
    with pytest.raises(InputError, match="is empty"):
        evaluate(run, *flags, str(tmp_path / "black.png"), "--original_image", str(tmp_path / "image.png"))
    assert made == [] and not (run / "eval").exists()


def test_missing_data_is_found_before_anything_is_made(run, made, tmp_path):
    with pytest.raises(InputError, match="color_hard"):
        evaluate(
            run,
            "--mode",
            "color_hard",
            "--background-source",
            "dmcgb",
            "--data-dir",
            str(tmp_path / "nothing"),
        )
    assert made == []


def command(*flags, script="locoeval.py", **variables):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    words = [sys.executable, str(PROJECT_ROOT / script), *flags]
    return subprocess.run(words, capture_output=True, text=True, env=environment, cwd="/", timeout=600)


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--model_dir", "no/such/run"], 6, ["no/such/run does not exist", "cure:"]),
        (["--model_dir", "RUN", "--mode", "video_hrad"], 2, ["Unknown level 'video_hrad'", "video_hard"]),
        (
            [
                "--model_dir",
                "RUN",
                "--masker",
                "tiny",
                "--original_image",
                "N.png",
                "--masked_image",
                "N.png",
            ],
            3,
            ["N.png does not exist"],
        ),
    ],
)
def test_exit_codes(run, flags, code, words):
    done = command("--device", "cpu", *[str(run) if flag == "RUN" else flag for flag in flags])
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr and done.stderr.count("\n") == 2
    for word in words:
        assert word in done.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="EGL is Linux's")
@pytest.mark.parametrize("script", ["locoeval.py", "train.py"])
def test_a_machine_that_cannot_render_is_told_first(run, tmp_path, script):
    trained = tmp_path / "trained"
    flags = {
        "locoeval.py": ("--model_dir", str(run), "--mode", "train", "--device", "cpu"),
        "train.py": ("task=walker_walk", "masker=groundtruth", "device=cpu", f"hydra.run.dir={trained}"),
    }
    no_driver = {"MUJOCO_GL": "egl", "__EGL_VENDOR_LIBRARY_FILENAMES": str(tmp_path / "none.json")}
    done = command(*flags[script], script=script, **no_driver)
    assert done.returncode == 7, done.stderr
    assert "OpenGL rendering does not work" in done.stderr and "Traceback" not in done.stderr
    assert not (run / "eval").exists() and not (trained / "masker").exists()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_real_simulator(tmp_path):
    run = make_run(tmp_path / "run", "groundtruth", ACTIONS["walker_walk"])
    flags = ["--model_dir", str(run), "--mode", "color_hard", "--device", "cpu"]
    results = []
    for count in ("1", "2"):
        done = command(*flags, "--episodes", "2", "--num_envs", count, "--out", str(tmp_path / count))
        assert done.returncode == 0, done.stderr
        results.append(load_result(tmp_path / count / "color_hard-procedural-groundtruth-s0.json"))
    assert results[0].episode_returns == results[1].episode_returns
    assert results[0].episode_lengths == [500, 500] and results[0].mask_iou == 1.0
