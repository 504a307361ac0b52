"""Runs that are short enough to sweep in a test, and the scripts that sweep them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from common.files import sha256_file
from common.paths import PROJECT_ROOT

# An episode is 100 decisions long; updates begin with the second.
SMALL = (
    "masker=none",
    "batch_size=8",
    "num_train_frames=1200",
    "num_seed_frames=200",
    "agent.num_expl_steps=40",
    "agent.hidden_dim=64",
    "image_size=48",
    "action_repeat=10",
    "snapshot_every_frames=300",
    "num_eval_episodes=0",
    "num_threads=1",
    "use_tb=false",
    "device=cpu",
)
DECISIONS = 120


def start(
    script: str, *arguments: str, python: str = sys.executable, **environment: str
) -> subprocess.Popen[str]:
    """Start a script in a process group of its own."""
    return subprocess.Popen(
        [python, str(PROJECT_ROOT / script), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        start_new_session=True,
    )


def run(script: str, *arguments: str, python: str = sys.executable, **environment: str) -> tuple[int, str]:
    """Run a script; return its exit code and all it said."""
    process = start(script, *arguments, python=python, **environment)
    said, _ = process.communicate()
    return process.returncode, said


def wait_for(what: str, condition: Callable[[], object], seconds: float = 900) -> None:
    """Wait until a condition holds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"no {what} within {seconds} s"
        time.sleep(0.3)


def snapshots(run_dir: Path) -> list[Path]:
    """Return the snapshots of a run."""
    return sorted((run_dir / "snapshots").glob("step_??????????"))


def digests(run_dir: Path, decisions: int = DECISIONS) -> dict[str, str]:
    """Return the digests of a run's networks and optimisers after so many decisions."""
    last = run_dir / "snapshots" / f"step_{decisions:010d}"
    return {name: sha256_file(last / f"{name}.safetensors") for name in ("agent", "optimizers")}
