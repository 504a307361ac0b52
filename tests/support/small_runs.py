"""Small runs of the real loop on the fake environment, and what tests ask of them."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from rich.console import Console

import algos
from common import faults
from common.files import sha256_file
from common.views import stacked_shape, view_count
from tests.support.fake_env import FAKE_MASKER_INFO, FakeVectorEnv, reset_fake_episodes
from training.factory import state_size
from training.snapshot import SnapshotStore, read_manifest
from training.workspace import Workspace
from wrappers import MaskObservation

SMALL = {
    "num_train_frames": 240,
    "num_seed_frames": 40,
    "action_repeat": 2,
    "frame_stack": 2,
    "batch_size": 4,
    "eval_every_frames": 100,
    "num_eval_episodes": 1,
    "snapshot_every_frames": 60,
    "update_every_steps": 2,
}


def evaluate(agent: Any, step: int) -> dict[str, float]:
    """Stand for an evaluation of five steps."""
    for _ in range(5):
        faults.point("evaluate.step")
    return {"episode_return": float(step)}


def make_run(
    run_dir: Path,
    agent: dict[str, Any] | None = None,
    env: dict[str, Any] | None = None,
    kind: str = "DrQV2Agent",
    masker: Any = None,
    config: dict[str, Any] | None = None,
    demonstrations: Any = list,
    **cfg: Any,
) -> Workspace:
    """Return a run of 120 decisions and 50 updates, unless ``cfg`` says otherwise."""
    cfg = SMALL | cfg
    venv = FakeVectorEnv(cfg.get("num_envs", 1), **({"length": 10} | (env or {})))
    shape = venv.single_observation_space["pixels"].shape
    channels, size, _ = stacked_shape(shape)
    options = {"feature_dim": 8, "hidden_dim": 16, "num_expl_steps": 30, "stddev_schedule": 0.3} | (
        agent or {}
    )
    learner = getattr(algos, kind)(
        (channels * cfg["frame_stack"], size, size), (1,), seed=cfg.get("seed", 0), views=view_count(shape),
        state_dim=state_size(venv.single_observation_space), **options,
    )  # fmt: skip
    console = Console(file=io.StringIO())
    info = FAKE_MASKER_INFO if masker is None else masker.info
    return Workspace(
        SimpleNamespace(**cfg), venv if masker is None else MaskObservation(venv, masker), learner, info,
        run_dir, evaluate, reset_fake_episodes,
        resume_command="train again", config=config, console=console, demonstrations=demonstrations,
    )  # fmt: skip


def output(run: Workspace) -> str:
    return run._log_options["console"].file.getvalue()  # type: ignore[union-attr]


def rows(run: Workspace, table: str = "train") -> list[dict[str, str]]:
    with (run.run_dir / f"{table}.csv").open() as handle:
        found = list(csv.DictReader(handle))
    return [{k: v for k, v in row.items() if k != "decisions_per_second"} for row in found]


def weights(run: Workspace) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for n in run.agent.networks().values() for p in n.parameters()])


def record_actions(run: Workspace) -> list[np.ndarray]:
    actions: list[np.ndarray] = []
    send = run.venv.step_async
    run.venv.step_async = lambda sent: (actions.append(sent.copy()), send(sent))
    return actions


def stop_at(run: Workspace, agent_steps: int, number: int = signal.SIGTERM) -> None:
    """Send this process a signal once the run has made that many decisions."""
    send = run.venv.step_async

    def step_async(actions: np.ndarray) -> None:
        if run.agent_steps == agent_steps:
            os.kill(os.getpid(), number)
        send(actions)

    run.venv.step_async = step_async


def fingerprint(agent: Any) -> str:
    """Return a SHA-256 over networks, optimisers and generators."""
    digest = hashlib.sha256()

    def feed(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            digest.update(value.detach().contiguous().view(torch.uint8).numpy().tobytes())
        elif isinstance(value, dict):
            for key in sorted(value, key=str):
                digest.update(str(key).encode())
                feed(value[key])
        else:
            digest.update(repr(value).encode())

    feed(_flat(agent.state_dict()))
    return digest.hexdigest()


def _flat(value: Any) -> Any:
    """Return nested state with every tensor as one row."""
    if isinstance(value, torch.Tensor):
        return value.reshape(-1)
    if isinstance(value, dict):
        return {key: _flat(part) for key, part in value.items()}
    return [_flat(part) for part in value] if isinstance(value, list | tuple) else value


def intact(run_dir: Path) -> int:
    """Check every snapshot and every replay file it names; return the newest snapshot's decisions, or 0."""
    store = SnapshotStore(run_dir / "snapshots")
    newest = 0
    for path in store.paths():
        assert store.problem(path) is None
        manifest = read_manifest(path)
        for name, facts in manifest["replay"].items():
            assert sha256_file(run_dir / "replay" / name) == facts["sha256"], name
        newest = manifest["agent_steps"]
    return newest
