"""Time one picture of every domain: stock against ``fast_render``, with and without Mesa's threads.

    python -m benchmarks.render                                    # all domains of the eight tasks
    python -m benchmarks.render --tasks walker_walk --frames 40 --out render.json

Every row is a process of its own (Mesa reads ``LP_NUM_THREADS`` once); rounds go through the rows in turn, so
that other programs disturb all alike. Random actions move the scene; pictures only are timed, in milliseconds
of CPU time of the process, Mesa's threads included, and of wall time. ``moved`` is the share of pixels that
``fast_render`` changes by more than 8 of 255 in any channel.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import numpy as np
import torch

import envs
from benchmarks import flags as flags_of
from benchmarks import machine, output
from common.errors import run_script
from common.paths import PROJECT_ROOT

TASKS = ("walker_walk", "cheetah_run", "cartpole_swingup", "cup_catch", "finger_spin", "quadruped_walk")
MOVED = 8  # of 255
ROWS = {  # (fast_render, LP_NUM_THREADS)
    "stock": (False, None),
    "stock, no threads": (False, "0"),
    "fast_render": (True, None),
    "fast_render, no threads": (True, "0"),
}
BASELINE = "stock"


def draw(task: str, frames: int, fast: bool, size: int = 84) -> tuple[np.ndarray, list[float], list[float]]:
    """Return uint8 (frames, H, W, 3), and CPU and wall milliseconds of each; the first is not counted."""
    rng = np.random.default_rng(0)
    with closing(envs.make_env(task, image_size=size, fast_render=fast)) as env:
        env.reset(seed=0)
        pictures, cpu, wall = [], [], []
        for _ in range(frames):
            env.step(rng.uniform(-1, 1, env.action_space.shape).astype(np.float32))
            start, clock = time.process_time(), time.perf_counter()
            pictures.append(env.renderer.render(env.data))
            cpu.append(1000 * (time.process_time() - start))
            wall.append(1000 * (time.perf_counter() - clock))
    return np.stack(pictures), cpu, wall


def moved_share(task: str, frames: int, size: int = 84) -> float:
    """Return the share of pixels that ``fast_render`` changes visibly."""
    stock, fast = (draw(task, frames, chosen, size)[0].astype(int) for chosen in (False, True))
    return float((np.abs(stock - fast).max(axis=-1) > MOVED).mean())


def measure_row(task: str, row: str, frames: int, size: int) -> tuple[float, float]:
    """Return median CPU and wall milliseconds of a picture, drawn in a fresh process."""
    fast, threads = ROWS[row]
    environment = {key: value for key, value in os.environ.items() if key != "LP_NUM_THREADS"}
    environment |= {} if threads is None else {"LP_NUM_THREADS": threads}
    code = (
        "import statistics\nfrom benchmarks.render import draw\n"
        f"_, cpu, wall = draw({task!r}, {frames}, {fast}, {size})\n"
        "print(statistics.mean(cpu[1:]), statistics.mean(wall[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=PROJECT_ROOT, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"a row failed:\n{done.stderr}")
    cpu, wall = map(float, done.stdout.split())
    return cpu, wall


def measure(flags: argparse.Namespace) -> dict[str, Any]:
    """Return task -> ``moved`` and row -> milliseconds and their ratio to stock, round by round."""
    found: dict[str, Any] = {}
    for task in flags.tasks:
        rounds = [
            {row: measure_row(task, row, flags.frames, flags.image_size) for row in ROWS}
            for _ in range(flags.rounds)
        ]
        found[task] = {"moved": moved_share(task, flags.frames, flags.image_size)}
        for row in ROWS:
            found[task][row] = {
                name: statistics.median(one[row][place] for one in rounds)
                for place, name in enumerate(("cpu_ms", "wall_ms"))
            } | {
                f"{name}_ratio": statistics.median(one[row][place] / one[BASELINE][place] for one in rounds)
                for place, name in enumerate(("cpu", "wall"))
            }
    return found


def markdown(found: dict[str, Any], setting: dict[str, Any]) -> str:
    """Return the result as a Markdown table: CPU ms, wall ms, each with its ratio to stock."""
    lines = []
    for task, rows in found.items():
        cells = [task]
        for row in ROWS:
            one = rows[row]
            clocks = [f"{one[f'{name}_ms']:.1f} ({one[f'{name}_ratio']:.2f})" for name in ("cpu", "wall")]
            cells.append(", ".join(clocks))
        lines.append([*cells, f"{100 * rows['moved']:.3f} %"])
    return f"{output.setting_line(setting)}\n\n{output.table(['task', *ROWS, 'moved pixels'], lines)}"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = flags_of.parser(__doc__)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), metavar="TASK")
    parser.add_argument("--frames", type=int, default=60, help="per row and round; the first is not counted")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--image-size", type=int, default=84)
    parser.add_argument("--out", help="write the figures as JSON, and the table beside it")
    flags = parser.parse_args(arguments)
    flags_of.check_counts(flags, "frames", least=2)
    flags_of.check_counts(flags, "rounds", "image_size")
    for task in flags.tasks:
        envs.find_task(task)
    return flags


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    os.environ.setdefault("MUJOCO_GL", "egl")
    flags = parse(arguments)
    found = measure(flags)
    setting = {"frames": flags.frames, "rounds": flags.rounds, "image_size": flags.image_size}
    setting |= machine.facts(torch.device("cpu")) | {"clock": "CPU ms, wall ms"}
    output.finish(flags.out, {"setting": setting, "tasks": found}, markdown(found, setting))


if __name__ == "__main__":
    run_script(main)
