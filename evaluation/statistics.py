"""Aggregates of episode returns, of runs and of tasks, with bootstrap intervals.

The interquartile mean (IQM) is the mean of the middle half of the scores, less sensitive to outliers than the
mean and less wasteful than the median (Agarwal et al., "Deep Reinforcement Learning at the Edge of the
Statistical Precipice", NeurIPS 2021, section 4.3). It equals rliable's ``aggregate_iqm`` on one column.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from common.seeding import counter_rng, derive_seed

BOOTSTRAP_REPLICATES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Summary:
    """Aggregates of a set of returns.

    Attributes:
        mean: arithmetic mean.
        std: population standard deviation (over episodes, not over training seeds).
        iqm: interquartile mean.
        iqm_low: lower end of its 95 % percentile bootstrap interval.
        iqm_high: upper end of that interval.
    """

    mean: float
    std: float
    iqm: float
    iqm_low: float
    iqm_high: float


def iqm(values: Sequence[float] | np.ndarray) -> float:
    """Return the mean of ``values`` without the lowest and the highest ``floor(n / 4)`` of them."""
    return float(_middle_mean(_checked(values)))


def bootstrap_iqm_interval(
    values: Sequence[float] | np.ndarray,
    seed: int = 0,
    replicates: int = BOOTSTRAP_REPLICATES,
    confidence: float = CONFIDENCE,
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the IQM.

    Args:
        values: float (n,), n >= 1.
        seed: seeds the resampling; equal arguments give equal intervals.
        replicates: number of resamples, each of n values drawn with replacement.
        confidence: share of the resampled IQMs that lies inside.
    """
    array = _checked(values)
    draws = counter_rng(seed, "bootstrap").integers(0, array.size, size=(replicates, array.size))
    resampled = _middle_mean(array[draws])
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(resampled, [tail, 100 - tail])
    return float(low), float(high)


def summarize(values: Sequence[float] | np.ndarray, seed: int = 0) -> Summary:
    """Return all aggregates of ``values``, float (n,), n >= 1."""
    array = _checked(values)
    low, high = bootstrap_iqm_interval(array, seed)
    return Summary(float(array.mean()), float(array.std()), iqm(array), low, high)


def _checked(values: Sequence[float] | np.ndarray) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0 or not np.isfinite(array).all():
        raise ValueError(f"values: expected one or more finite numbers, got an array of shape {array.shape}")
    return array


def aggregates(samples: Sequence[np.ndarray], threshold: float = 1.0) -> np.ndarray:
    """Return mean, IQM and optimality gap of normalised scores over tasks and runs, float (3,).

    The mean is that of the tasks' means, so every task counts the same; the IQM is over all scores of all
    tasks together; the optimality gap is the mean distance below ``threshold``, scores above it counted as
    ``threshold``, again every task alike (Agarwal et al. 2021, section 4.3). With as many scores for
    every task these are rliable's ``aggregate_mean``, ``aggregate_iqm`` and ``aggregate_optimality_gap``.

    Args:
        samples: one float (n,) per task, n >= 1; 1 is the score of a perfect agent.
        threshold: the score that is good enough.
    """
    means = [sample.mean() for sample in samples]
    gaps = [threshold - np.minimum(sample, threshold).mean() for sample in samples]
    return np.array([np.mean(means), _middle_mean(np.concatenate(samples)), np.mean(gaps)])


def relative_change(value: float, baseline: float) -> float:
    """Return ``value / baseline - 1``; NaN where the baseline is not positive and a ratio would mislead."""
    return value / baseline - 1 if baseline > 0 else float("nan")


def improvement(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> np.ndarray:
    """Return how ``ours`` compares with ``theirs``, float (2,): relative change and probability.

    The first is the relative change of the mean of task means. The second is the chance that a random run of
    ours is better than a random run of theirs on the same task, ties counted half, averaged over tasks
    (rliable's ``probability_of_improvement``; Agarwal et al. 2021, section 4.3).

    Args:
        ours: one float (n,) per task.
        theirs: one float (m,) per task, the same tasks in the same order.
    """
    chances = [
        np.mean((x[:, None] > y[None, :]) + 0.5 * (x[:, None] == y[None, :]))
        for x, y in zip(ours, theirs, strict=True)
    ]
    means = [float(np.mean([sample.mean() for sample in side])) for side in (ours, theirs)]
    return np.array([relative_change(*means), np.mean(chances)])


def stratified_intervals(
    samples: Sequence[np.ndarray],
    statistic: Callable[[list[np.ndarray]], np.ndarray],
    seed: int = 0,
    replicates: int = BOOTSTRAP_REPLICATES,
    confidence: float = CONFIDENCE,
) -> np.ndarray:
    """Return statistics with percentile intervals of the stratified bootstrap, float (3, k).

    Every sample is a stratum: it is resampled by itself, with replacement and to its own size, by rliable's
    ``StratifiedIndependentBootstrap``, so tasks may have different numbers of runs. Equal arguments give
    equal intervals, and numpy's global generator, which rliable draws from, is left as it was.

    Args:
        samples: one float (n,) per stratum, n >= 1 and finite.
        statistic: from such a list to float (k,).
        seed: seeds the resampling.
        replicates: number of resamples.
        confidence: share of the resampled statistics that lies inside.

    Returns:
        Rows: the statistic of ``samples`` themselves, lower end, upper end.
    """
    from rliable import library  # seconds: it brings pandas and seaborn

    strata = [_checked(sample) for sample in samples]

    def flat(*columns: np.ndarray) -> np.ndarray:
        return statistic([column[:, 0] for column in columns])

    with _global_seed(seed):
        points, intervals = library.get_interval_estimates(
            {"": [stratum[:, None] for stratum in strata]},
            flat,
            reps=replicates,
            confidence_interval_size=confidence,
        )
    return np.vstack([points[""], intervals[""]])


@contextlib.contextmanager
def _global_seed(seed: int) -> Iterator[None]:
    # rliable 1.2 draws from numpy's global generator whatever `random_state` it is given.
    state = np.random.get_state()
    np.random.seed(derive_seed(seed, "stratified bootstrap"))
    try:
        yield
    finally:
        np.random.set_state(state)


def _middle_mean(values: np.ndarray) -> np.ndarray:
    """Return the IQM along the last axis without checks: a bootstrap calls it thousands of times."""
    cut = values.shape[-1] // 4
    middle = np.sort(values, axis=-1)[..., cut : values.shape[-1] - cut]
    return np.asarray(middle.mean(axis=-1))
