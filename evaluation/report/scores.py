"""From results to the numbers of the tables: per task, level and method, and over tasks."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from common.errors import unknown_choice
from evaluation.report.grouping import Section
from evaluation.report.loading import Entry
from evaluation.statistics import (
    BOOTSTRAP_REPLICATES,
    aggregates,
    improvement,
    relative_change,
    stratified_intervals,
)

MAX_RETURN = 1000.0  # of a DeepMind Control episode: 1,000 simulator steps with rewards in [0, 1]
TRAIN = "train"
MASKER_ORDER = {"none": 0, "groundtruth": 2}  # all others between
QUALITIES = ("mask_iou", "mask_recall", "mask_precision", "empty_share", "point_error")
Samples = list[np.ndarray]


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; NaN where it is not defined."""

    value: float
    low: float
    high: float

    def scaled(self, factor: float) -> Estimate:
        """Return everything times ``factor``."""
        return Estimate(self.value * factor, self.low * factor, self.high * factor)


@dataclass(frozen=True)
class Cell:
    """All results of one method on one level of one task.

    Attributes:
        task, level, method: which.
        entries: the result files.
        runs: training seed -> float (n,), returns of its episodes, of all evaluation seeds together.
    """

    task: str
    level: str
    method: str
    entries: list[Entry]
    runs: dict[int, np.ndarray]

    @property
    def over_runs(self) -> bool:
        """Whether statistics are over runs; with one training seed there are only its episodes."""
        return len(self.runs) > 1

    def sample(self, over_runs: bool) -> np.ndarray:
        """Return normalised scores, float (n,): one mean per run, or all episodes."""
        returns = list(self.runs.values())
        scores = np.array([r.mean() for r in returns]) if over_runs else np.concatenate(returns)
        return scores / MAX_RETURN

    @property
    def run_means(self) -> np.ndarray:
        """Mean return of each run, float (runs,)."""
        return np.array([returns.mean() for returns in self.runs.values()])

    @property
    def mean(self) -> float:
        """Mean return of a run, averaged over runs."""
        return float(self.run_means.mean())

    @property
    def std(self) -> float:
        """Population standard deviation over runs; over episodes where there is one run."""
        return float(self.sample(self.over_runs).std() * MAX_RETURN)

    @property
    def episodes(self) -> int:
        """Episodes in all."""
        return sum(returns.size for returns in self.runs.values())

    def average(self, name: str) -> float | None:
        """Return the mean over runs of a field of the results, such as ``mask_iou``; None where unknown."""
        values: dict[int, list[float]] = defaultdict(list)
        for entry in self.entries:
            value = getattr(entry.result, name)
            if value is not None:
                values[entry.conditions.train_seed].append(float(value))
        return float(np.mean([np.mean(run) for run in values.values()])) if values else None


@dataclass(frozen=True)
class Score:
    """Statistics of one cell; returns in [0, 1000], the gap normalised.

    Attributes:
        cell: what they are of.
        mean, iqm, gap: with intervals over runs, or over episodes where there is one run.
        change: of the mean relative to the baseline; None without one.
        drop: mean relative to that of the same runs on the training scene, minus 1; None where unknown.
    """

    cell: Cell
    mean: Estimate
    iqm: Estimate
    gap: Estimate
    change: Estimate | None
    drop: float | None


@dataclass(frozen=True)
class Aggregate:
    """Statistics of one method on one level over tasks; everything normalised to [0, 1].

    Attributes:
        level, method: which.
        tasks: over which tasks: those that every method has on this level.
        over_runs: whether the scores are means of runs; otherwise episodes, because a task has one run only.
        runs: least and greatest number of runs of a task.
        mean, iqm, gap: see ``evaluation.statistics.aggregates``.
        change, chance: see ``evaluation.statistics.improvement``; None without a baseline.
        rank: mean over tasks of the method's rank by mean return, 1 the best.
    """

    level: str
    method: str
    tasks: tuple[str, ...]
    over_runs: bool
    runs: tuple[int, int]
    mean: Estimate
    iqm: Estimate
    gap: Estimate
    change: Estimate | None
    chance: Estimate | None
    rank: float


@dataclass
class Scores:
    """All numbers of a section.

    Attributes:
        section: what they are of.
        methods: in the order of the tables, the baseline first.
        baseline: method that the others are compared with, or None.
        cells: per task, level, method, in this order.
        aggregates: per level and method.
        left_out: level -> tasks that not every method has, left out of its aggregates.
    """

    section: Section
    methods: list[str]
    baseline: str | None
    cells: list[Score] = field(default_factory=list)
    aggregates: list[Aggregate] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def find(self, task: str, level: str, method: str) -> Score | None:
        """Return the score of a cell, None where there is no result."""
        return self._index.get((task, level, method))

    @functools.cached_property
    def _index(self) -> dict[tuple[str, str, str], Score]:
        return {(s.cell.task, s.cell.level, s.cell.method): s for s in self.cells}

    def aggregate(self, level: str, method: str) -> Aggregate | None:
        """Return the aggregate of a method on a level, None where there is none."""
        return next((a for a in self.aggregates if (a.level, a.method) == (level, method)), None)


def group_cells(section: Section) -> dict[tuple[str, str, str], Cell]:
    """Return (task, level, method) -> its results."""
    entries: dict[tuple[str, str, str], list[Entry]] = defaultdict(list)
    for entry in section.entries:
        entries[entry.conditions.task, entry.level, entry.method].append(entry)
    cells = {}
    for key, group in entries.items():
        runs: dict[int, list[float]] = defaultdict(list)
        for entry in sorted(group, key=lambda e: (e.conditions.train_seed, e.conditions.seed)):
            runs[entry.conditions.train_seed] += entry.result.episode_returns
        cells[key] = Cell(*key, group, {seed: np.array(returns) for seed, returns in runs.items()})
    return cells


def order_methods(section: Section, baseline: str | None) -> list[str]:
    """Return the section's methods: the baseline first, then by algorithm, true masks last."""

    def key(entry: Entry) -> tuple[Any, ...]:
        c = entry.conditions
        variant = str(c.masker.get("variant"))
        return entry.method != baseline, c.algorithm, MASKER_ORDER.get(variant, 1), entry.method

    return list(dict.fromkeys(entry.method for entry in sorted(section.entries, key=key)))


def check_baseline(sections: Sequence[Section], baseline: str | None) -> None:
    """Raise ``ConfigError`` when no section has the method ``baseline``."""
    methods = {entry.method for section in sections for entry in section.entries}
    if baseline is not None and baseline not in methods:
        raise unknown_choice("baseline", baseline, methods)


def compute_scores(
    section: Section,
    baseline: str | None = None,
    replicates: int = BOOTSTRAP_REPLICATES,
    seed: int = 0,
    tick: Callable[[], None] = lambda: None,
) -> Scores:
    """Compute every number of a section.

    Args:
        section: the results.
        baseline: method to compare with; one that the section lacks counts as None.
        replicates: resamples of each bootstrap.
        seed: seeds every bootstrap, so that equal scores have equal intervals.
        tick: called ``work(section)`` times.
    """
    cells = group_cells(section)
    methods = order_methods(section, baseline)
    scores = Scores(section, methods, baseline if baseline in methods else None)
    bootstrap = functools.partial(stratified_intervals, seed=seed, replicates=replicates)
    for task in section.tasks:
        for level in section.levels:
            for method in methods:
                if (task, level, method) in cells:
                    scores.cells.append(_score(cells, (task, level, method), scores.baseline, bootstrap))
                    tick()
    for level in section.levels:
        scores.aggregates += _aggregate_level(cells, level, scores, bootstrap)
        tick()
    return scores


def work(section: Section) -> int:
    """Return how often ``compute_scores`` calls ``tick``."""
    return len(group_cells(section)) + len(section.levels)


def _estimates(columns: np.ndarray) -> list[Estimate]:
    return [Estimate(*(float(value) for value in column)) for column in columns.T]


def _score(
    cells: dict[tuple[str, str, str], Cell],
    key: tuple[str, str, str],
    baseline: str | None,
    bootstrap: Callable[..., np.ndarray],
) -> Score:
    cell, base = cells[key], cells.get((*key[:2], baseline or ""))
    sample = [cell.sample(cell.over_runs)]
    mean, iqm, gap = _estimates(bootstrap(sample, aggregates))
    change = None
    if base is not None and base is not cell:
        change = _compare(sample, [base.sample(base.over_runs)], bootstrap)[0]
    return Score(cell, mean.scaled(MAX_RETURN), iqm.scaled(MAX_RETURN), gap, change, _drop(cells, cell))


def _drop(cells: dict[tuple[str, str, str], Cell], cell: Cell) -> float | None:
    """Return the change from the training scene, over the runs that were evaluated on both."""
    clean = cells.get((cell.task, TRAIN, cell.method))
    if clean is None or cell.level == TRAIN:
        return None
    both = sorted(clean.runs.keys() & cell.runs.keys())
    if not both:
        return None
    there, here = (float(np.mean([c.runs[seed].mean() for seed in both])) for c in (clean, cell))
    return relative_change(here, there)


def _compare(ours: Samples, theirs: Samples, bootstrap: Callable[..., np.ndarray]) -> list[Estimate]:
    """Return relative change and probability of improvement with intervals; both sides are resampled."""

    def statistic(samples: Samples) -> np.ndarray:
        return improvement(samples[: len(ours)], samples[len(ours) :])

    return _estimates(bootstrap([*ours, *theirs], statistic))


def _aggregate_level(
    cells: dict[tuple[str, str, str], Cell],
    level: str,
    scores: Scores,
    bootstrap: Callable[..., np.ndarray],
) -> list[Aggregate]:
    here = [method for method in scores.methods if any(key[1:] == (level, method) for key in cells)]
    everywhere = [task for task in scores.section.tasks if any(key[:2] == (task, level) for key in cells)]
    tasks = [task for task in everywhere if all((task, level, method) in cells for method in here)]
    if len(tasks) < len(everywhere):
        scores.left_out[level] = [task for task in everywhere if task not in tasks]
    if not tasks:
        return []
    rows = {method: [cells[task, level, method] for task in tasks] for method in here}
    # A task with one run would be one number among many others' runs: then all tasks count by episodes.
    by_runs = {method: all(cell.over_runs for cell in row) for method, row in rows.items()}
    samples = {method: [cell.sample(by_runs[method]) for cell in row] for method, row in rows.items()}
    ranks = _mean_ranks(rows)
    found = []
    for method, row in rows.items():
        mean, iqm, gap = _estimates(bootstrap(samples[method], aggregates))
        change = chance = None
        if scores.baseline in samples and method != scores.baseline:
            change, chance = _compare(samples[method], samples[scores.baseline], bootstrap)
        counts = [len(cell.runs) for cell in row]
        runs = min(counts), max(counts)
        found.append(
            Aggregate(
                level,
                method,
                tuple(tasks),
                by_runs[method],
                runs,
                mean,
                iqm,
                gap,
                change,
                chance,
                ranks[method],
            )
        )
    return found


def _mean_ranks(rows: dict[str, list[Cell]]) -> dict[str, float]:
    """Return the mean over tasks of each method's rank by mean return; equal means share a rank."""
    from scipy.stats import rankdata

    means = np.array([[cell.mean for cell in row] for row in rows.values()])  # (methods, tasks)
    ranks = rankdata(-means, axis=0).mean(axis=1)
    return {method: float(rank) for method, rank in zip(rows, ranks, strict=True)}
