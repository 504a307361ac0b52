"""Interquartile mean and bootstrap against their definitions and rliable."""

import numpy as np
import pytest
from rliable import metrics

from evaluation.statistics import bootstrap_iqm_interval, iqm, summarize


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 10, 100])
def test_iqm_is_the_mean_of_the_middle_half(n):
    values = np.random.default_rng(n).normal(size=n) * 100
    cut = n // 4
    middle = sorted(values)[cut : n - cut]
    assert iqm(values) == pytest.approx(sum(middle) / len(middle))
    assert iqm(values) == pytest.approx(metrics.aggregate_iqm(values[:, None]))


def test_bootstrap_against_a_loop():
    values = np.random.default_rng(0).normal(size=9)
    from common.seeding import counter_rng

    rows = counter_rng(4, "bootstrap").integers(0, 9, size=(300, 9))
    resampled = sorted(iqm([values[i] for i in row]) for row in rows)
    low, high = bootstrap_iqm_interval(values, seed=4, replicates=300)
    assert low == pytest.approx(np.percentile(resampled, 2.5))
    assert high == pytest.approx(np.percentile(resampled, 97.5))


def test_interval_covers_the_true_value():
    # Of 200 samples from a known distribution about 95 % of the intervals hold the true IQM, 0.
    generator = np.random.default_rng(1)
    hits = 0
    for k in range(200):
        low, high = bootstrap_iqm_interval(generator.normal(size=40), seed=k, replicates=300)
        hits += low <= 0 <= high
    assert 175 <= hits <= 199


def test_summary_is_deterministic_and_ordered():
    values = [3.0, 1.0, 4.0, 1.0, 5.0]
    summary = summarize(values, seed=1)
    assert summary == summarize(values, seed=1)
    assert summary.mean == pytest.approx(2.8) and summary.std == pytest.approx(1.6)
    assert summary.iqm_low <= summary.iqm <= summary.iqm_high


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [[1.0]]])
def test_impossible_values_are_refused(values):
    with pytest.raises(ValueError, match="values: expected"):
        summarize(values)
