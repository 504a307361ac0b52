"""The real commands with every agent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.test_agent_configs import every_agent, offline
from tests.test_train_cli import run

REAL = ("task=walker_walk", "masker=tiny", "action_repeat=8", "batch_size=8", "agent.hidden_dim=64")
SHORT = ("num_seed_frames=200", "num_train_frames=1400", "agent.num_expl_steps=100", "num_threads=1")


def test_the_run_directory_carries_the_agents_name() -> None:
    done = run("train.py", "--config-name", "pieg_config", "masker=tiny", "--cfg", "hydra")
    assert done.returncode == 0, done.stderr
    assert "agent: pieg" in done.stdout.split("choices:")[1]
    assert "runs/${task_name}/${hydra:runtime.choices.agent}-" in done.stdout


def test_bad_overlays_stop_the_real_command_before_training(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for name in ("a.jpg", "b.png"):
        (tmp_path / "photos" / name).write_bytes(b"no image")
    done = run("train.py", "agent=svea", "masker=none", f"data.overlay_dir={tmp_path / 'photos'}",
               f"hydra.run.dir={tmp_path / 'run'}")  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "a.jpg" in done.stderr and "b.png" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "snapshots").exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@every_agent
def test_training_and_evaluation_of_every_agent(agent: str, tmp_path: Path) -> None:
    command = ["--config-name", f"{agent}_config", *REAL, *SHORT, *offline(agent)]
    command += ["data.overlay_images=64", f"hydra.run.dir={tmp_path}"]
    done = run("train.py", *command, timeout=900)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "snapshots" / "step_0000000175" / "manifest.json").read_text())
    assert manifest["updates"] == 25

    flags = ("--mode", "color_hard", "video_hard", "--background-source", "procedural", "--episodes", "1")
    done = run("locoeval.py", "--model_dir", str(tmp_path), *flags, timeout=900)
    assert done.returncode == 0, done.stderr
    for level in ("color_hard", "video_hard"):
        result = json.loads((tmp_path / "eval" / f"{level}-procedural-tiny-s0.json").read_text())
        assert result["algorithm"] == agent and 0 <= result["mean"] <= 1000
        record = result["conditions"]["agent"]
        assert record == manifest["agent"]
        assert ("encoder_weights" in record) == (agent == "pieg")
        if agent in ("pieg", "svea", "srm", "sgqn"):
            assert record["overlay_source"]["name"] == "generated textures"

    other = "svea" if agent != "svea" else "srm"
    done = run("train.py", f"agent={other}", *command[2:])
    assert done.returncode == 2 and "was trained with" in done.stderr, done.stderr
