"""Measure whole training steps: act, simulate, mask, store, update; with a masker over without one.

    python -m benchmarks.training_step                                     # tiny against none, batch 256
    python -m benchmarks.training_step --maskers tiny paper --envs 1 8 --device cuda --update compile=true \\
        cuda_graph=true precision=bfloat16 --masker-options compile=true precision=bfloat16

The loop is the one of ``train.py`` with real environments in their processes, real masks, a replay buffer
on disk and updates of the given agent at its usual period. Every setting first collects one episode and makes
a few updates, which also compiles what is to be compiled. Then rounds go through all settings in turn; a
ratio is the median over the rounds of two rates of one round, by the wall clock, waiting for the device.
Full-size networks get drawn weights: senseless masks in real time. ``--update`` are keys of
``agent.numerics``, ``--masker-options`` keys of ``masker``; both apply to every row that has them.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("MUJOCO_GL", "egl")

import torch

import envs
from algos.recorded_update import UPDATES_BEFORE_REPLAY
from benchmarks import flags as flags_of
from benchmarks import machine, output
from benchmarks.maskers import fitted_masker, parsed_options
from common.devices import resolve_device
from common.errors import run_script
from samg.build import VARIANTS
from training.config import compose_config
from training.factory import make_agent
from training.workspace import Workspace
from wrappers import MaskObservation

UNMASKED = "none"


@dataclass(frozen=True)
class Setting:
    """A row of the table."""

    masker: str
    envs: int

    def __str__(self) -> str:
        return f"{self.masker}, {self.envs} environment{'s' * (self.envs > 1)}"


def build(
    setting: Setting, flags: argparse.Namespace, folder: Path, stack: contextlib.ExitStack
) -> Workspace:
    """Return a training run that has begun, as ``train.py`` would make it."""
    overrides = [
        f"task={flags.task}",
        f"masker={setting.masker}",
        f"agent={flags.agent}",
        f"num_envs={setting.envs}",
        f"batch_size={flags.batch}",
        "num_train_frames=20000",
        "replay_buffer_size=10000",
        "num_seed_frames=0",
        "num_eval_episodes=0",
        "use_tb=false",
        f"device={flags.device}",
        *(f"agent.numerics.{choice}" for choice in flags.update),
    ]
    cfg = compose_config(overrides)
    device = resolve_device(flags.device, flags.threads)
    rules = {"level": "train", "source": "procedural", "action_repeat": cfg.action_repeat}
    venv = envs.make_vector_env(
        cfg.task_name, setting.envs, foreground=setting.masker == "groundtruth", **rules
    )
    stack.callback(venv.close)
    masker = fitted_masker(setting.masker, flags.task, device, parsed_options(flags.masker_options))
    workspace = Workspace(
        cfg,
        MaskObservation(venv, masker, device=device),
        make_agent(cfg, venv, device),
        masker.info,
        folder,
        evaluate=lambda agent, step: {},
        reset_episodes=envs.reset_episodes,
    )
    workspace.begin(stack)
    return workspace


def warm_up(workspace: Workspace) -> None:
    """Collect until updates are possible, and make a few."""
    while workspace.updates < UPDATES_BEFORE_REPLAY:
        workspace.step()


def rate(workspace: Workspace, decisions: int, device: torch.device) -> float:
    """Return decisions per second over at least so many decisions."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start, before = time.perf_counter(), workspace.agent_steps
    while workspace.agent_steps < before + decisions:
        workspace.step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (workspace.agent_steps - before) / (time.perf_counter() - start)


def measure(flags: argparse.Namespace, device: torch.device) -> dict[Setting, list[float]]:
    """Return decisions per second of every setting in every round."""
    maskers = list(dict.fromkeys([UNMASKED, *flags.maskers]))
    settings = [Setting(masker, count) for count in flags.envs for masker in maskers]
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        runs = {}
        for number, setting in enumerate(settings):
            print(f"{setting}: collecting the first episode", flush=True)
            runs[setting] = build(setting, flags, folder / str(number), stack)
            warm_up(runs[setting])
        rates: dict[Setting, list[float]] = {setting: [] for setting in settings}
        for number in range(flags.rounds):
            for setting in settings if number % 2 == 0 else settings[::-1]:
                rates[setting].append(rate(runs[setting], flags.decisions, device))
                found = f"{rates[setting][-1]:.2f} decisions/s"
                print(f"round {number + 1} of {flags.rounds}, {setting}: {found}", flush=True)
    return rates


def summarise(rates: dict[Setting, list[float]]) -> list[dict[str, Any]]:
    """Return one row per setting: median rate, all rounds, and the ratio over unmasked ones."""
    return [
        {
            "masker": setting.masker,
            "envs": setting.envs,
            "decisions_per_second": statistics.median(found),
            "over_unmasked": output.ratio(found, rates[Setting(UNMASKED, setting.envs)]),
            "rounds": found,
        }
        for setting, found in rates.items()
    ]


def markdown(rows: Sequence[dict[str, Any]], setting: dict[str, Any]) -> str:
    """Return the rows as a table under a line that states how they were measured."""
    heads = ["masker", "environments", "decisions/s", "x unmasked (range)"]
    cells = [
        [
            row["masker"],
            str(row["envs"]),
            f"{row['decisions_per_second']:.2f}",
            output.shown(row["over_unmasked"]),
        ]
        for row in rows
    ]
    return f"{output.setting_line(setting)}\n\n{output.table(heads, cells)}"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = flags_of.parser(__doc__)
    parser.add_argument("--task", default="walker_walk")
    parser.add_argument("--agent", default="drqv2")
    parser.add_argument("--maskers", nargs="+", default=["tiny"], help="compared with none")
    parser.add_argument("--envs", nargs="+", type=int, default=[1], help="numbers of environments")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--update", nargs="*", default=[], metavar="KEY=VALUE", help="of agent.numerics")
    parser.add_argument("--masker-options", nargs="*", default=[], metavar="KEY=VALUE", help="of masker")
    parser.add_argument("--decisions", type=int, default=20, help="per round and setting")
    parser.add_argument("--rounds", type=int, default=5)
    flags_of.add_machine(parser)
    flags = parser.parse_args(arguments)
    flags_of.check_known("masker", flags.maskers, VARIANTS)
    flags_of.check_counts(flags, "envs", "batch", "decisions", "rounds")
    return flags


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    flags = parse(arguments)
    os.environ["LP_NUM_THREADS"] = "0"  # before any process is started
    device = resolve_device(flags.device, flags.threads)
    setting = {
        "task": flags.task,
        "agent": flags.agent,
        "batch": flags.batch,
        "update": flags.update or ["default"],
        "masker_options": flags.masker_options or ["default"],
        "decisions_per_round": flags.decisions,
        "rounds": flags.rounds,
        "LP_NUM_THREADS": os.environ["LP_NUM_THREADS"],
        **machine.facts(device),
        "clock": "wall",
    }
    rows = summarise(measure(flags, device))
    output.finish(flags.out, {"setting": setting, "rows": rows}, markdown(rows, setting))


if __name__ == "__main__":
    run_script(main)
