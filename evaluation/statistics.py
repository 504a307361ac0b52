"""Aggregates of episode returns: mean, spread, and the interquartile mean with a bootstrap interval.

The interquartile mean (IQM) is the mean of the middle half of the scores, less sensitive to outliers than the
mean and less wasteful than the median (Agarwal et al., "Deep Reinforcement Learning at the Edge of the
Statistical Precipice", NeurIPS 2021, section 4.3). It equals rliable's ``aggregate_iqm`` on one column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from common.seeding import counter_rng

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
    return float(stats.trim_mean(_checked(values), proportiontocut=0.25))


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
    resampled = stats.trim_mean(array[draws], proportiontocut=0.25, axis=1)
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
