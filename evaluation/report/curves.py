"""Learning curves: mean and spread over training seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.report.loading import Run

BINS = 40  # of a curve of training episodes
FEWEST_POINTS = 2


@dataclass(frozen=True)
class Curve:
    """How the return of one method on one task grew.

    Attributes:
        task, method: which.
        kind: ``eval``: evaluations during training with the mean action; ``train``: the training episodes
            themselves, explored in and averaged over equal spans of steps.
        steps: int (n,), decisions.
        mean, std: float (n,), over training seeds; population standard deviation.
        seeds: the training seeds.
        action_repeat: simulator steps per decision.
    """

    task: str
    method: str
    kind: str
    steps: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    seeds: tuple[int, ...]
    action_repeat: int


def learning_curves(runs: Sequence[Run]) -> list[Curve]:
    """Return one curve for every task and method, sorted by both.

    All curves of a task are of one kind: evaluations where every run of the task has some, else training
    episodes. Runs of a method are averaged over the steps that all of them have reached, on the steps of
    the run with most points; between its points a run is a straight line.
    """
    tasks: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        tasks[run.task].append(run)
    curves = []
    for task, group in sorted(tasks.items()):
        evaluated = all(len(run.points["eval"]) >= FEWEST_POINTS for run in group)
        kind = "eval" if evaluated else "train"
        methods: dict[str, list[Run]] = defaultdict(list)
        for run in group:
            if len(run.points[kind]) >= FEWEST_POINTS:
                methods[run.method].append(run)
        curves += [_curve(task, name, kind, members) for name, members in sorted(methods.items())]
    return [curve for curve in curves if curve.steps.size >= FEWEST_POINTS]


def _curve(task: str, method: str, kind: str, runs: Sequence[Run]) -> Curve:
    lines = [_line(run.points[kind]) for run in runs]
    if kind == "train":
        last = max(steps[-1] for steps, _ in lines)
        lines = [_binned(steps, values, last) for steps, values in lines]
    begin, end = max(steps[0] for steps, _ in lines), min(steps[-1] for steps, _ in lines)
    grid = max((steps for steps, _ in lines), key=len)
    grid = grid[(grid >= begin) & (grid <= end)]
    values = np.array([np.interp(grid, *line) for line in lines])
    seeds = tuple(sorted(run.seed for run in runs))
    repeat = runs[0].action_repeat
    return Curve(task, method, kind, grid, values.mean(axis=0), values.std(axis=0), seeds, repeat)


def _line(points: Sequence[tuple[int, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Return steps, ascending and each once (the last row of a step counts), and values."""
    line = dict(points)
    steps = np.array(sorted(line))
    return steps, np.array([line[step] for step in steps])


def _binned(steps: np.ndarray, values: np.ndarray, last: int) -> tuple[np.ndarray, np.ndarray]:
    """Average over ``BINS`` equal spans of [0, last]; empty spans are left out."""
    index = np.minimum((steps - 1) * BINS // max(int(last), 1), BINS - 1)
    kept = np.unique(index)
    ends = (kept + 1) * last / BINS
    return ends.astype(int), np.array([values[index == k].mean() for k in kept])
