"""Measure evaluation: steps per second with several environment processes, and what masking costs.

    python benchmarks/evaluation.py --out evaluation.json           # 1 and 2 processes, with tiny and without
    python benchmarks/evaluation.py --processes 1 2 4 --masker none # throughput of the simulator alone
    python benchmarks/evaluation.py --check                         # the same returns for every number

All processes are started first and stay; rounds go through all settings in turn, so that a machine that slows
down slows all of them. A ratio is the median over the rounds of two rates of the same round. The agent is an
untrained DrQ-v2, which computes as much as a trained one. Mesa's renderer has no threads of its own
(LP_NUM_THREADS=0), in every process and on both sides. ``--out FILE.json`` also writes the table, as
``FILE.md``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import time
from collections.abc import Sequence
from typing import Any

from common.modules import run_as_module

# Python looks for modules beside a script first and would take this file for the package `evaluation`.
run_as_module(__spec__, "benchmarks.evaluation")

import torch

import envs
from benchmarks import flags as flags_of
from benchmarks import machine, output
from benchmarks.maskers import fitted_masker
from common.devices import resolve_device
from common.errors import run_script
from evaluation.evaluate import EpisodeResult, evaluate, fixed_batch
from training.config import compose_config
from training.factory import make_agent

UNMASKED = "none"


class Player:
    """Everything that plays episodes of one task.

    Args:
        flags: of the command line.
        device: where the networks are.
        counts: numbers of environment processes.
        maskers: names of the maskers.
        stack: closes the environments at the end.
    """

    def __init__(
        self,
        flags: argparse.Namespace,
        device: torch.device,
        counts: Sequence[int],
        maskers: Sequence[str],
        stack: contextlib.ExitStack,
    ) -> None:
        self._batch = fixed_batch(device.type == "cuda")
        cfg = compose_config([f"task={flags.task}", f"image_size={flags.image_size}"])
        options = {"level": flags.level, "source": "procedural", "image_size": flags.image_size}
        self._venvs = {}
        for count in counts:
            venv = envs.make_vector_env(
                flags.task, count, action_repeat=flags.action_repeat, foreground=True, **options
            )
            self._venvs[count] = stack.enter_context(contextlib.closing(venv))
        torch.manual_seed(0)
        self._agent = make_agent(cfg, self._venvs[counts[0]], device)
        self._maskers = {name: fitted_masker(name, flags.task, device) for name in maskers}

    def play(self, count: int, masker: str, episodes: int, seed: int) -> list[EpisodeResult]:
        """Play episodes with so many processes; without a masker, frames go to the agent as they are."""
        return evaluate(
            self._agent,
            self._venvs[count],
            episodes=episodes,
            seed=seed,
            agent_step=0,
            masker=None if masker == UNMASKED else self._maskers[masker],
            padded_batch=self._batch,
        )


def measure(flags: argparse.Namespace, device: torch.device) -> dict[str, dict[str, list[float]]]:
    """Return masker -> number of processes -> decisions per second of each round."""
    maskers = list(dict.fromkeys([UNMASKED, flags.masker]))
    settings = [(masker, count) for masker in maskers for count in flags.processes]
    rates: dict[str, dict[str, list[float]]] = {masker: {} for masker in maskers}
    with contextlib.ExitStack() as stack:
        player = Player(flags, device, flags.processes, maskers, stack)
        for masker, count in settings:  # the first episode of a process compiles and loads
            player.play(count, masker, count, seed=0)
        for number in range(flags.rounds):
            for masker, count in settings if number % 2 == 0 else settings[::-1]:
                start = time.perf_counter()
                played = player.play(count, masker, flags.episodes, seed=1 + number)
                rate = sum(result.length for result in played) / (time.perf_counter() - start)
                rates[masker].setdefault(str(count), []).append(rate)
                where = f"round {number + 1} of {flags.rounds}, masker {masker}, processes {count}"
                print(f"{where}: {rate:.1f} decisions/s", flush=True)
    return rates


def summarise(rates: dict[str, dict[str, list[float]]]) -> list[dict[str, Any]]:
    """Return one row per masker and number of processes: median rate and ratios, all rounds beside them."""
    rows = []
    for masker, by_count in rates.items():
        for count, found in by_count.items():
            row: dict[str, Any] = {"masker": masker, "processes": int(count), "rounds": found}
            row["steps_per_second"] = statistics.median(found)
            base = next(iter(by_count.values()))
            row["over_fewest_processes"] = output.ratio(found, base)
            row["over_unmasked"] = output.ratio(found, rates[UNMASKED][count])
            rows.append(row)
    return rows


def check(flags: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Play the same episodes with every number of processes and compare everything that was measured."""
    found: dict[int, list[EpisodeResult]] = {}
    with contextlib.ExitStack() as stack:
        player = Player(flags, device, flags.processes, [flags.masker], stack)
        for count in flags.processes:
            found[count] = player.play(count, flags.masker, flags.episodes, seed=0)
            print(
                f"{count} process{'es' * (count > 1)}: mean return {mean_return(found[count])!r}", flush=True
            )
    first = found[flags.processes[0]]
    return {
        "masker": flags.masker,
        "processes": flags.processes,
        "episode_returns": [result.episode_return for result in first],
        "identical": all(results == first for results in found.values()),
    }


def mean_return(results: Sequence[EpisodeResult]) -> float:
    """Return the mean of the returns."""
    return sum(result.episode_return for result in results) / len(results)


def markdown(rows: Sequence[dict[str, Any]], setting: dict[str, Any]) -> str:
    """Return the result as a Markdown table under a line that states how it was measured."""
    fewest = min(row["processes"] for row in rows)
    names = [f"x {fewest} process{'es' * (fewest > 1)} (range)", "x unmasked (range)"]
    cells = [
        [row["masker"], str(row["processes"]), f"{row['steps_per_second']:.1f}"]
        + [output.shown(row[name]) for name in ("over_fewest_processes", "over_unmasked")]
        for row in rows
    ]
    heads = ["masker", "processes", "decisions/s", *names]
    return f"{output.setting_line(setting)}\n\n{output.table(heads, cells)}"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = flags_of.parser(__doc__)
    parser.add_argument("--task", default="cartpole_swingup")
    parser.add_argument("--level", default="train")
    parser.add_argument("--masker", help="default tiny; with --check none")
    parser.add_argument("--processes", nargs="+", type=int, help="default 1 2; with --check 1 2 4")
    parser.add_argument("--episodes", type=int, help="per round, default 4; with --check 20")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--action-repeat", type=int, default=2, help="control steps per decision")
    parser.add_argument("--image-size", type=int, default=84)
    parser.add_argument("--check", action="store_true", help="compare the episodes instead of timing them")
    flags_of.add_machine(parser)
    flags = parser.parse_args(arguments)
    flags.masker = flags.masker or (UNMASKED if flags.check else "tiny")
    flags.processes = sorted(set(flags.processes or ([1, 2, 4] if flags.check else [1, 2])))
    flags.episodes = (20 if flags.check else 4) if flags.episodes is None else flags.episodes
    flags_of.check_counts(flags, "episodes", "rounds", "processes")
    return flags


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure or compare, print and write."""
    flags = parse(arguments)
    os.environ["LP_NUM_THREADS"] = "0"  # before any process is started
    device = resolve_device(flags.device, flags.threads)
    setting = {
        "task": flags.task,
        "level": flags.level,
        "episodes": flags.episodes,
        "rounds": flags.rounds,
        "action_repeat": flags.action_repeat,
        "LP_NUM_THREADS": os.environ["LP_NUM_THREADS"],
        **machine.facts(device),
        "clock": "wall",
    }
    if flags.check:
        found = check(flags, device)
        text = f"{flags.episodes} episodes with {flags.processes} processes, masker {flags.masker}: "
        text += "identical\n" if found["identical"] else "DIFFERENT\n"
    else:
        rows = summarise(measure(flags, device))
        found, text = {"rows": rows}, markdown(rows, setting)
    output.finish(flags.out, {"setting": setting, **found}, text)
    return 0 if found.get("identical", True) else 1


if __name__ == "__main__":
    run_script(main)
