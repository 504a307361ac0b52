"""An evaluation that was interrupted goes on where it stopped and ends as if it had not been."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from omegaconf import OmegaConf

import envs
import locoeval
from algos import DrQV2Agent
from common.errors import ConfigError
from common.paths import PROJECT_ROOT
from evaluation import load_result
from evaluation.partial import Partial
from samg import build_masker
from tests.support.fake_evaluation import vector_env
from training.config import compose_config
from training.snapshot import SnapshotStore


def make_run(path, task, masker, actions, action_repeat=2):
    """A run as train.py leaves it, with an untrained agent."""
    config = compose_config([f"task={task}", f"masker={masker}", "feature_dim=8", "agent.hidden_dim=16"])
    config.background.source, config.action_repeat = "procedural", action_repeat
    torch.manual_seed(0)
    agent = DrQV2Agent((9, 84, 84), (actions,), feature_dim=8, hidden_dim=16)
    SnapshotStore(path / "snapshots").save(2000, {"agent": agent.state_dict()["networks"]}, {"updates": 750})
    OmegaConf.save(config, path / "config.yaml", resolve=True)
    build_masker(masker).fit(None).save(path / "masker")
    return path


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run", "walker_walk", "groundtruth", 2)


@pytest.fixture
def made(monkeypatch):
    """Counting environments instead of a simulator; returns the levels they were made for."""
    levels = []

    def fake(task, num_envs, **options):
        levels.append(options["level"])
        return vector_env(num_envs, size=84, length=lambda episode: 52 + 7 * episode % 5)

    monkeypatch.setattr(envs, "make_vector_env", fake)
    return levels


def evaluate(run, *flags):
    return locoeval.main(["--model_dir", str(run), "--device", "cpu", *flags])


def contents(folder):
    """File name -> its bytes, results without their dates."""
    found = {}
    for path in sorted(folder.iterdir()):
        found[path.name] = path.read_bytes()
        if path.suffix == ".json":
            found[path.name] = {k: v for k, v in json.loads(path.read_text()).items() if k != "date"}
    return found


@pytest.fixture
def interrupt(monkeypatch):
    """Send this process a signal after the given numbers of episodes and random episodes are kept."""

    def after(number, episodes, what="add_episode"):
        keep, left = getattr(Partial, what), [episodes]

        def count(self, *args):
            keep(self, *args)
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), number)

        monkeypatch.setattr(Partial, what, count)

    return after


FLAGS = ("--mode", "train", "video_hard", "--episodes", "4", "--random-baseline", "--padded_batch", "2")


@pytest.mark.parametrize(
    ("number", "episodes", "what", "code"),
    [
        (
            signal.SIGTERM,
            2,
            "add_episode",
            143,
        ),  # within the first level, without the picture's episode or with
        (signal.SIGINT, 6, "add_episode", 130),  # within the second level
        (signal.SIGTERM, 2, "add_random", 143),
    ],
)
def test_a_signal_and_the_same_command_again(
    run, made, interrupt, monkeypatch, capsys, number, episodes, what, code
):
    assert evaluate(run, *FLAGS, "--out", str(run / "whole")) == 0
    again = ("--out", str(run / "resumed"), "--num_envs")
    interrupt(number, episodes, what)
    assert evaluate(run, *FLAGS, *again, "2") == code
    printed = capsys.readouterr().err
    assert "To continue: python" in printed and f"--out {run / 'resumed'}" in printed
    unfinished = [path for path in (run / "resumed").iterdir() if path.suffix == ".partial"]
    assert unfinished and not (run / "resumed" / "video_hard-procedural-groundtruth-s0.json").exists()
    kept = {path.name: len(json.loads(path.read_text())["episodes"]) for path in unfinished}

    monkeypatch.undo()
    played, keep = [], Partial.add_episode
    monkeypatch.setattr(
        Partial, "add_episode", lambda self, *one: (played.append(one[0].episode), keep(self, *one))
    )
    monkeypatch.setattr(
        envs, "make_vector_env", lambda task, n, **o: vector_env(n, size=84, length=lambda e: 52 + 7 * e % 5)
    )
    assert evaluate(run, *FLAGS, *again, "3") == 0
    assert len(played) == 8 - sum(kept.values()), "a finished episode was played again"
    assert contents(run / "resumed") == contents(run / "whole")
    result = load_result(run / "resumed" / "video_hard-procedural-groundtruth-s0.json")
    assert result.random_returns is not None and len(result.random_returns) == 4


def test_finished_levels_are_kept_where_they_fit(run, made, capsys):
    flags = ("--episodes", "2", "--out", str(run / "out"))
    evaluate(run, "--mode", "train", *flags)
    stamp = (run / "out" / "train-procedural-groundtruth-s0.json").stat().st_mtime_ns
    evaluate(run, "--mode", "train", "color_easy", *flags)
    assert made == ["train", "color_easy"]
    assert (run / "out" / "train-procedural-groundtruth-s0.json").stat().st_mtime_ns == stamp
    table = capsys.readouterr().out.rsplit("┏", 1)[1]
    assert "train " in table and "color_easy" in table
    with pytest.raises(
        ConfigError, match=r"made under other conditions: episodes is 2 there and 3 here"
    ) as caught:
        evaluate(run, "--mode", "train", "color_hard", "--episodes", "3", "--out", str(run / "out"))
    assert "--overwrite" in caught.value.hint and made == ["train", "color_easy"]
    with pytest.raises(ConfigError, match="exists already and would be overwritten"):
        evaluate(run, "--mode", "train", "color_easy", *flags)


def test_an_unfinished_evaluation_of_another_agent_is_refused(run, made, interrupt, monkeypatch):
    flags = ("--mode", "train", "--episodes", "3")
    interrupt(signal.SIGTERM, 1)
    assert evaluate(run, *flags) == 143
    torch.manual_seed(1)
    other = DrQV2Agent((9, 84, 84), (2,), feature_dim=8, hidden_dim=16).state_dict()["networks"]
    SnapshotStore(run / "snapshots").save(3000, {"agent": other}, {"updates": 900})
    before = contents(run / "eval")
    with pytest.raises(ConfigError, match="agent_steps is 2000 there and 3000 here") as caught:
        evaluate(run, *flags)
    assert "--overwrite" in caught.value.hint and contents(run / "eval") == before
    assert evaluate(run, *flags, "--overwrite") == 0
    assert load_result(run / "eval" / "train-procedural-groundtruth-s0.json").conditions.agent_steps == 3000


def test_overwriting_can_be_interrupted_too(run, made, interrupt, monkeypatch):
    flags = ("--mode", "train", "--episodes", "3", "--overwrite")
    evaluate(run, "--mode", "train", "--episodes", "2")
    old = contents(run / "eval")["train-procedural-groundtruth-s0.json"]
    interrupt(signal.SIGTERM, 2)
    assert evaluate(run, *flags) == 143
    assert contents(run / "eval")["train-procedural-groundtruth-s0.json"] == old
    assert evaluate(run, *flags) == 0
    assert load_result(run / "eval" / "train-procedural-groundtruth-s0.json").episodes == 3
    assert not list((run / "eval").glob("*.partial"))


def test_videos_of_finished_episodes_are_there_or_made(run, made, interrupt):
    flags = ("--mode", "train", "--episodes", "3", "--out", str(run / "out"))
    interrupt(signal.SIGTERM, 2)
    assert evaluate(run, *flags) == 143
    assert evaluate(run, *flags, "--save_video") == 0
    assert len(list((run / "out").glob("*.mp4"))) == 3


def test_several_runs_and_maskers(run, made, tmp_path, capsys):
    second = make_run(tmp_path / "second", "walker_walk", "none", 2)
    flags = ["--mode", "train", "--episodes", "1", "--device", "cpu", "--masker", "none", "groundtruth"]
    out = tmp_path / "out"
    locoeval.main(["--model_dir", str(run), str(second), *flags, "--random-baseline", "--out", str(out)])
    files = [
        out / name / f"train-procedural-{m}-s0.json"
        for name in ("run", "second")
        for m in ("none", "groundtruth")
    ]
    results = [load_result(file) for file in files]
    variants = [(r.conditions.masker["variant"], r.conditions.training_masker["variant"]) for r in results]
    assert variants == [
        ("none", "groundtruth"),
        ("groundtruth", "groundtruth"),
        ("none", "none"),
        ("groundtruth", "none"),
    ]
    assert len({tuple(r.random_returns) for r in results}) == 1
    printed = capsys.readouterr().out
    assert printed.count("masker") >= 2 and all(str(file) in printed for file in files)
    with pytest.raises(ConfigError, match="would be written twice"):
        locoeval.main(["--model_dir", str(run), str(run), *flags, "--overwrite"])


def test_how_well_points_are_found_again_is_measured_in_the_real_simulator(tmp_path):
    # 100 control steps per decision: real episodes of ten decisions.
    run = make_run(tmp_path / "run", "cartpole_swingup", "none", 1, action_repeat=100)
    assert evaluate(run, "--mode", "cam_pos_easy", "--episodes", "1", "--masker", "none", "tiny") == 0
    none, tiny = (
        load_result(run / "eval" / f"cam_pos_easy-procedural-{m}-s0.json") for m in ("none", "tiny")
    )
    # The references' own points: found within a few pixels by a masker that knows this domain.
    assert none.point_error is None and 0 < tiny.point_error < 10
    assert tiny.episode_point_error == [tiny.point_error]
    assert none.mask_recall == 1.0 and none.mask_iou < 0.2 < tiny.mask_iou


# The real command ------------------------------------------------------------------------------------------

EPISODES = 8


def start(run, out, *flags):
    words = [sys.executable, str(PROJECT_ROOT / "locoeval.py"), "--model_dir", str(run), "--device", "cpu"]
    words += ["--mode", "train", "color_easy", "--episodes", str(EPISODES), "--out", str(out), *flags]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def wait_for(path, episodes, process):
    """Wait until the file holds that many episodes (whole at any time)."""
    while process.poll() is None:
        if path.exists() and len(json.loads(path.read_text())["episodes"]) >= episodes:
            return
        time.sleep(0.01)
    raise AssertionError(process.communicate()[1])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_then_terminated_then_finished(tmp_path):
    # 100 control steps per decision: real episodes of ten decisions.
    run = make_run(tmp_path / "run", "cartpole_swingup", "groundtruth", 1, action_repeat=100)
    whole = start(run, tmp_path / "whole")
    assert whole.wait(600) == 0, whole.communicate()[1]

    out = tmp_path / "resumed"
    killed = start(run, out, "--num_envs", "2")
    wait_for(out / "train-procedural-groundtruth-s0.partial", 2, killed)
    killed.send_signal(signal.SIGKILL)
    killed.wait(60)
    (unfinished,) = out.glob("*.partial")
    first = json.loads(unfinished.read_text())["episodes"]
    assert 2 <= len(first) < EPISODES and not list(out.glob("*.json"))

    terminated = start(run, out)
    wait_for(out / "color_easy-procedural-groundtruth-s0.partial", 3, terminated)
    terminated.send_signal(signal.SIGTERM)
    _, said = terminated.communicate(timeout=120)
    assert terminated.returncode == 143 and "To continue: python" in said, said
    assert f"{len(first)} of {EPISODES} episodes are there already" in said
    assert "Traceback" not in said

    last = start(run, out, "--num_envs", "3")
    assert last.wait(600) == 0, last.communicate()[1]
    assert contents(out) == contents(tmp_path / "whole")
