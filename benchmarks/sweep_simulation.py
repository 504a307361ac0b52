"""How long many runs take on so many GPUs: a simulation with recorded run times, packing and preemption.

    python -m benchmarks.sweep_simulation
    python -m benchmarks.sweep_simulation --folder runs/suite/samg8 --runs 320 --gpus 8 64

The runs are those of a folder whose runs are done (``seconds`` of their ``status.json``), else the recorded
ones in ``benchmarks/data/sweep_times.json``; they are drawn in turn until there are enough. Everything is
told in multiples of the mean run alone on its GPU, so that it holds for any machine. ``--pack K`` runs share
a GPU and are each ``--slowdown`` times as slow; a preempted job loses what it made since its last snapshot
(nothing when it is warned), waits, and starts again at the end of the queue.
"""

from __future__ import annotations

import argparse
import heapq
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.errors import InputError, run_script
from common.files import read_json
from common.paths import PROJECT_ROOT, output_path
from training.status import DONE, read_status
from training.sweeps.plan import planned_runs

RECORDED = PROJECT_ROOT / "benchmarks" / "data" / "sweep_times.json"


@dataclass(frozen=True)
class Cluster:
    """Where the runs go; times are in mean runs.

    Attributes:
        gpus: how many jobs run at once.
        pack: runs per job.
        slowdown: how much longer a run takes beside ``pack - 1`` others.
        preempted_every: mean time between two preemptions of one job; 0 means never.
        lost: work that a preemption costs.
        requeue: pause before a preempted job waits again.
        startup: what every turn costs before it trains.
    """

    gpus: int
    pack: int = 1
    slowdown: float = 1.0
    preempted_every: float = 0.0
    lost: float = 0.0
    requeue: float = 0.0
    startup: float = 0.0


def makespan(times: Sequence[float], cluster: Cluster, seed: int = 0) -> float:
    """Return when the last run is finished, jobs being started in order as GPUs become free."""
    rng = np.random.default_rng(seed)
    packs = [times[first : first + cluster.pack] for first in range(0, len(times), cluster.pack)]
    slowdown = cluster.slowdown if cluster.pack > 1 else 1.0
    waiting = [
        (0.0, index, max(pack) * slowdown) for index, pack in enumerate(packs)
    ]  # ready, order, work left
    heapq.heapify(waiting)
    free = [0.0] * cluster.gpus
    heapq.heapify(free)
    order, last = len(packs), 0.0
    while waiting:
        ready, _, work = heapq.heappop(waiting)
        begin = max(ready, heapq.heappop(free))
        turn = rng.exponential(cluster.preempted_every) if cluster.preempted_every else np.inf
        needed = cluster.startup + work
        if turn >= needed:
            end = begin + needed
        else:
            end = begin + turn
            left = work - max(turn - cluster.startup - cluster.lost, 0.0)
            heapq.heappush(waiting, (end + cluster.requeue, order, left))
            order += 1
        heapq.heappush(free, end)
        last = max(last, end)
    return last


def run_times(folder: str | None) -> list[float]:
    """Return the wall-clock seconds of finished runs.

    Raises:
        InputError: the folder has none.
    """
    if folder is None:
        return [float(value) for value in read_json(RECORDED, "recorded run times")["seconds"]]
    directory = output_path(folder)
    found = [read_status(Path(directory, name)) for name in planned_runs(directory)]
    times = [status.seconds for status in found if status is not None and status.state == DONE]
    if not times:
        raise InputError(f"{directory} holds no finished run.", "Name a folder of train.py --multirun.")
    return times


def table(times: Sequence[float], gpus: Sequence[int], pack: int, slowdown: float) -> str:
    """Return the makespans as a Markdown table, in mean runs."""
    warned: dict[str, float] = {"preempted_every": 0.5, "requeue": 0.01, "startup": 0.005}
    unwarned = {**warned, "lost": 0.05}
    rows = ["| GPUs | alone | packed | preempted, warned | preempted, killed | packed and warned |"]
    rows.append("| --- | --- | --- | --- | --- | --- |")
    for count in gpus:
        packed: dict[str, float] = {"pack": pack, "slowdown": slowdown}
        settings: tuple[dict[str, float], ...] = ({}, packed, warned, unwarned, {**packed, **warned})
        spans = [makespan(times, Cluster(count, **chosen)) for chosen in settings]  # type: ignore[arg-type]
        rows.append(f"| {count} | " + " | ".join(f"{span:.1f}" for span in spans) + " |")
    return "\n".join(rows)


def main(argv: Sequence[str]) -> int:
    """Print the table."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--folder", help="a sweep whose finished runs are used")
    parser.add_argument("--runs", type=int, default=320)
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 4, 8, 16, 32, 64])
    parser.add_argument("--pack", type=int, default=4)
    parser.add_argument("--slowdown", type=float, default=2.0, help="of a run beside the others of its pack")
    chosen = parser.parse_args(argv)
    recorded = np.asarray(run_times(chosen.folder))
    times = np.resize(recorded / recorded.mean(), chosen.runs)
    sys.stdout.write(f"{chosen.runs} runs, spread of their times {recorded.std() / recorded.mean():.2f}\n\n")
    sys.stdout.write(table(times.tolist(), chosen.gpus, chosen.pack, chosen.slowdown) + "\n")
    return 0


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
