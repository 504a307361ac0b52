"""Train, kill, resume, evaluate, over and over: does anything grow, and is anything lost?

    python -m benchmarks.soak --minutes 30 --out runs/soak

Every cycle forks a process that trains (or goes on training) on the real simulator with short episodes, ends
it at a random moment by SIGKILL or SIGTERM in turn, checks snapshots and replay files against their digests,
and forks another process that evaluates the newest snapshot. ``soak.json`` and ``soak.md`` hold what each
cycle took: memory, file descriptors, files, decisions repeated, seconds to save.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import io
import json
import mmap
import os
import random
import resource
import signal
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("LP_NUM_THREADS", "0")  # forked processes would miss Mesa's threads

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from rich.console import Console

import envs
from algos import DrQV2Agent
from common.files import STAGE_PREFIX, sha256_file, write_bytes, write_json
from evaluation.evaluate import evaluate
from samg import build_masker
from training.preflight import rehearse_update
from training.snapshot import SnapshotStore, load_agent, read_manifest
from training.workspace import Workspace
from wrappers import MaskObservation

TASK, SIZE, REPEAT, STACK = "cartpole_balance", 48, 50, 3  # 20 decisions an episode
SNAPSHOT_EVERY, EVALUATE_EVERY = 50, 150  # decisions
SETTINGS = {
    "num_train_frames": 10**9,
    "num_seed_frames": 40 * REPEAT,
    "action_repeat": REPEAT,
    "frame_stack": STACK,
    "batch_size": 8,
    "replay_buffer_size": 1000,
    "snapshot_every_frames": SNAPSHOT_EVERY * REPEAT,
    "eval_every_frames": EVALUATE_EVERY * REPEAT,
    "num_eval_episodes": 1,
    "update_every_steps": 2,
}
SECONDS_TO_SAVE = 15


class DirectVectorEnv(SyncVectorEnv):
    """The real simulator in this process, with the two halves of a step that the training loop asks for."""

    def __init__(self) -> None:
        maker = functools.partial(envs.make_env, TASK, image_size=SIZE, action_repeat=REPEAT)
        super().__init__([maker], autoreset_mode=AutoresetMode.DISABLED)

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions."""
        self._sent = actions

    def step_wait(self) -> Any:
        """Step with them."""
        return self.step(self._sent)


class Progress:
    """Decisions made by a forked process, where its parent can read them."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 8)

    def write(self, steps: int) -> None:
        """Note how far the run is; -1: it has not begun."""
        self._shared[:8] = struct.pack("q", steps)

    def read(self) -> int:
        """Return what was noted last."""
        return int(struct.unpack("q", self._shared[:8])[0])


def make_agent(action_shape: tuple[int, ...] = (1,)) -> DrQV2Agent:
    """Return a small agent."""
    options = {"feature_dim": 16, "hidden_dim": 32, "num_expl_steps": 60}
    return DrQV2Agent((3 * STACK, SIZE, SIZE), action_shape, **options)  # type: ignore[arg-type]


def warm_up() -> None:
    """Import once what every forked process would import anew: seconds of each cycle."""
    importlib.import_module("dm_control.suite")
    rehearse_update(make_agent(), 2)


def play(agent: DrQV2Agent, agent_step: int) -> dict[str, float]:
    """Evaluate one episode."""
    venv = DirectVectorEnv()
    try:
        (result,) = evaluate(
            agent, venv, episodes=1, seed=1, agent_step=agent_step, padded_batch=1, frame_stack=STACK
        )
    finally:
        venv.close()
    return {"episode_return": result.episode_return}


def train(run_dir: Path, progress: Progress) -> None:
    """Train until a signal comes; runs in a forked process."""
    venv, masker = DirectVectorEnv(), build_masker("none").fit(None)
    run = Workspace(
        SimpleNamespace(**SETTINGS), MaskObservation(venv, masker), make_agent(), masker.info, run_dir,
        play, envs.reset_episodes, resume_command="the soak goes on", console=Console(file=io.StringIO()),
    )  # fmt: skip
    send = run.venv.step_async

    def step_async(actions: np.ndarray) -> None:
        progress.write(run.agent_steps)
        send(actions)

    run.venv.step_async = step_async
    run.train()


def evaluate_newest(run_dir: Path) -> None:
    """Evaluate the newest snapshot as an evaluation would; runs in a forked process."""
    networks, manifest = load_agent(run_dir)
    agent = make_agent()
    agent.load_networks(networks)
    print(json.dumps(play(agent, manifest["agent_steps"])), flush=True)


def fork(work: Callable[[], None], output: Path) -> int:
    """Run ``work`` in a forked process whose output goes to a file; return its number."""
    number = os.fork()
    if number:
        return number
    code = 1
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        work()
        code = 0
    except SystemExit as error:
        code = int(error.code or 0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def verify(run_dir: Path) -> int:
    """Check every snapshot and every replay file that one names; return the newest snapshot's decisions.

    Raises:
        RuntimeError: something is damaged or missing.
    """
    store = SnapshotStore(run_dir / "snapshots")
    newest = store.latest_valid(set_aside=False)
    for path in store.paths():
        if store.problem(path):
            raise RuntimeError(f"{path}: {store.problem(path)}")
        for name, facts in read_manifest(path)["replay"].items():
            if sha256_file(run_dir / "replay" / name) != facts["sha256"]:
                raise RuntimeError(f"{name} is damaged")
    return 0 if newest is None else int(read_manifest(newest)["agent_steps"])


def descriptors(process: int) -> int:
    """Return how many files a process has open."""
    return len(os.listdir(f"/proc/{process}/fd"))


def resident(process: int) -> float:
    """Return the resident memory of a process in MB."""
    with open(f"/proc/{process}/statm") as handle:
        return int(handle.read().split()[1]) * resource.getpagesize() / 1e6


def run_cycle(run_dir: Path, number: signal.Signals, rng: random.Random, longest: float) -> dict[str, Any]:
    """Train for a random time, end it by ``number``, check, evaluate; return what was seen."""
    begun, progress = time.monotonic(), Progress()
    before = verify(run_dir)
    progress.write(-1)
    child = fork(lambda: train(run_dir, progress), run_dir.parent / "train.log")
    while progress.read() < 0 and time.monotonic() - begun < 300:
        time.sleep(0.02)
        if os.waitpid(child, os.WNOHANG)[0]:
            raise RuntimeError((run_dir.parent / "train.log").read_text())
    started = progress.read()
    time.sleep(rng.uniform(0.0, longest))
    row: dict[str, Any] = {"fds": descriptors(child), "rss_mb": resident(child)}
    reached, sent = progress.read(), time.monotonic()
    os.kill(child, number)
    _, status, _ = os.wait4(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code != (143 if number == signal.SIGTERM else -number):
        raise RuntimeError(f"{number.name}: exit code {code}\n{(run_dir.parent / 'train.log').read_text()}")
    row |= {"signal": number.name, "resumed_at": started, "reached": reached, "started_from": before}
    row["seconds_to_end"] = time.monotonic() - sent
    row["saved"] = verify(run_dir)
    row["repeated"] = max(reached - row["saved"], 0)
    files = [path for path in run_dir.rglob("*") if path.is_file()]
    row["files"], row["mb"] = len(files), sum(path.stat().st_size for path in files) / 1e6
    row["unfinished"] = len([path for path in files if STAGE_PREFIX in str(path)])
    if row["saved"]:
        output = run_dir.parent / "evaluate.log"
        code = os.waitstatus_to_exitcode(os.waitpid(fork(lambda: evaluate_newest(run_dir), output), 0)[1])
        if code:
            raise RuntimeError(output.read_text())
        row |= json.loads(output.read_text().splitlines()[-1])
    row |= {"own_fds": descriptors(os.getpid()), "own_rss_mb": resident(os.getpid())}
    row["seconds"] = time.monotonic() - begun
    if number == signal.SIGTERM and (row["repeated"] or row["seconds_to_end"] > SECONDS_TO_SAVE):
        raise RuntimeError(f"SIGTERM: {row}")
    if row["repeated"] > SNAPSHOT_EVERY or started != before:
        raise RuntimeError(f"more than a snapshot interval was lost: {row}")
    return row


COLUMNS = tuple(
    "signal resumed_at reached saved repeated seconds_to_end rss_mb fds own_rss_mb own_fds files mb "
    "unfinished episode_return".split()
)


def table(rows: list[dict[str, Any]]) -> str:
    """Return the cycles as a Markdown table."""
    lines = ["| cycle | " + " | ".join(COLUMNS) + " |", "| --- " * (len(COLUMNS) + 1) + "|"]
    for index, row in enumerate(rows):
        values = [row.get(name, "") for name in COLUMNS]
        texts = [f"{value:.1f}" if isinstance(value, float) else str(value) for value in values]
        lines.append(f"| {index + 1} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the cycles."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--minutes", type=float, default=30.0, help="at least")
    parser.add_argument("--cycles", type=int, default=40, help="at least")
    parser.add_argument("--longest", type=float, default=20.0, help="seconds that a process trains at most")
    parser.add_argument("--out", type=Path, default=Path("runs/soak"))
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    torch.set_num_threads(1)
    warm_up()
    run_dir, rng = flags.out / "run", random.Random(flags.seed)
    rows: list[dict[str, Any]] = []
    if run_dir.exists():
        parser.error(f"{run_dir} exists already: choose another --out")
    run_dir.mkdir(parents=True)
    end = time.monotonic() + 60 * flags.minutes
    while time.monotonic() < end or len(rows) < flags.cycles:
        number = signal.SIGKILL if len(rows) % 2 == 0 else signal.SIGTERM
        rows.append(run_cycle(run_dir, number, rng, flags.longest))
        print({name: rows[-1].get(name) for name in COLUMNS}, flush=True)
        settings = {
            "minutes": flags.minutes,
            "cycles": flags.cycles,
            "longest": flags.longest,
            "seed": flags.seed,
            **SETTINGS,
        }
        write_json(flags.out / "soak.json", {"settings": settings, "cycles": rows})
        write_bytes(flags.out / "soak.md", table(rows).encode())


if __name__ == "__main__":
    main()
