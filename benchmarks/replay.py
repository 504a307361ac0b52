"""Measure the replay buffer: samples per second and bytes per transition.

    python -m benchmarks.replay                            # 84 px, three frames, batch 256, one core's worth
    python -m benchmarks.replay --batch 512 --transitions 100000 --out replay.json
    python -m benchmarks.replay --cache memmap                     # or gpu, with --device cuda

Episodes of 500 decisions are written to a temporary folder and sampled at random, stacks and n-step returns
rebuilt. The figure is samples per second of CPU time of the whole process, prefetching off, so that neither
other programs nor a second core flatter it; the wall-clock figure stands beside it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import flags as flags_of
from benchmarks import output
from common.devices import resolve_device
from common.errors import ConfigError, run_script
from training.replay_buffer import ReplayBuffer
from training.replay_cache import CACHES, choose_frames

ACTIONS = 6
EPISODE = 500


def fill(folder: Path, flags: argparse.Namespace) -> ReplayBuffer:
    """Return a buffer full of episodes with random frames."""
    rng = np.random.default_rng(0)
    shape = (flags.image_size, flags.image_size, 3)
    frames = rng.integers(0, 256, (64, *shape), dtype=np.uint8)
    device = resolve_device(flags.device)
    pinned = device.type == "cuda"
    frames_at = choose_frames(flags.cache, flags.transitions, device, folder, pin_memory=pinned)
    buffer = ReplayBuffer(folder, shape, ACTIONS, flags.transitions, nstep=flags.nstep, open_frames=frames_at)
    for index in range(flags.transitions // EPISODE):
        buffer.begin_episode(0, index, frames[index % 64])
        for step in range(EPISODE):
            action = rng.uniform(-1, 1, ACTIONS).astype(np.float32)
            buffer.add(0, action, 1.0, 1.0, frames[(index + step) % 64], step == EPISODE - 1)
    return buffer


def measure(buffer: ReplayBuffer, flags: argparse.Namespace) -> dict[str, Any]:
    """Return the rates of every round, their medians, and the memory."""
    cpu, wall, device = [], [], resolve_device(flags.device)
    for number in range(flags.rounds + 1):
        start, clock = time.process_time(), time.perf_counter()
        for index in range(flags.batches):
            buffer.sample(flags.batch, number * flags.batches + index).to(device)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        samples = flags.batches * flags.batch
        cpu.append(samples / (time.process_time() - start))
        wall.append(samples / (time.perf_counter() - clock))
    return {
        "samples_per_cpu_second": statistics.median(cpu[1:]),
        "samples_per_second": statistics.median(wall[1:]),
        "rounds": cpu[1:],
        "bytes_per_transition": buffer.nbytes / buffer.capacity,
        "transitions": buffer.num_transitions,
    }


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = flags_of.parser(__doc__)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--batches", type=int, default=40, help="per round")
    parser.add_argument("--rounds", type=int, default=7, help="one more is made first and not counted")
    parser.add_argument("--transitions", type=int, default=20_000)
    parser.add_argument("--cache", default="ram", metavar="|".join(CACHES), help="see replay.cache")
    parser.add_argument("--device", default="cpu", help="where batches go")
    parser.add_argument("--nstep", type=int, default=3)
    parser.add_argument("--image-size", type=int, default=84)
    parser.add_argument("--out", help="write the figures as JSON, and the table beside it")
    flags = parser.parse_args(arguments)
    flags_of.check_counts(flags, "batch", "batches", "rounds", "nstep", "image_size")
    if flags.transitions < EPISODE:
        raise ConfigError(f"--transitions {flags.transitions} holds no episode.", f"Use {EPISODE} or more.")
    return flags


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    flags = parse(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        buffer = fill(Path(folder), flags)
        found = measure(buffer, flags)
        buffer.close()
    setting = {
        "device": flags.device,
        "cache": flags.cache,
        "threads": 1,
        "batch": flags.batch,
        "nstep": flags.nstep,
    }
    setting |= {"image_size": flags.image_size, "prefetch": False, "numpy": np.__version__}
    rows = [
        ["samples per second of CPU time", f"{found['samples_per_cpu_second']:,.0f}"],
        ["samples per second by the wall clock", f"{found['samples_per_second']:,.0f}"],
        ["bytes per transition", f"{found['bytes_per_transition']:,.0f}"],
    ]
    text = f"{output.setting_line(setting)}\n\n{output.table(['what', 'figure'], rows)}"
    output.finish(flags.out, {"setting": setting, **found}, text)


if __name__ == "__main__":
    run_script(main)
