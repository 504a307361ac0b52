"""Aggregates over tasks and runs, improvement, and the stratified bootstrap, against their definitions."""

import itertools

import numpy as np
import pytest
from rliable import metrics

from evaluation.statistics import aggregates, improvement, relative_change, stratified_intervals


def samples(*sizes, seed=0):
    generator = np.random.default_rng(seed)
    return [generator.uniform(0, 1.2, size) for size in sizes]


@pytest.mark.parametrize("sizes", [(1,), (3,), (5, 5), (4, 4, 4, 4)])
def test_aggregates_are_those_of_rliable(sizes):
    drawn = samples(*sizes)
    matrix = np.stack(drawn, axis=1)  # (runs, tasks)
    expected = [
        metrics.aggregate_mean(matrix),
        metrics.aggregate_iqm(matrix),
        metrics.aggregate_optimality_gap(matrix),
    ]
    assert aggregates(drawn) == pytest.approx(expected)


def test_aggregates_by_hand_with_uneven_tasks():
    mean, iqm, gap = aggregates([np.array([0.2, 0.4]), np.array([0.6, 1.0, 1.4, 1.0])])
    assert mean == pytest.approx((0.3 + 1.0) / 2)
    assert iqm == pytest.approx((0.4 + 0.6 + 1.0 + 1.0) / 4)  # six scores without the least and the greatest
    assert gap == pytest.approx((0.7 + (0.4 + 0 + 0 + 0) / 4) / 2)
    assert aggregates([np.array([0.2])], threshold=0.5)[2] == pytest.approx(0.3)


def test_relative_change():
    assert relative_change(30.0, 20.0) == pytest.approx(0.5)
    assert relative_change(0.0, 20.0) == -1.0
    assert np.isnan(relative_change(5.0, 0.0)) and np.isnan(relative_change(5.0, -1.0))


def test_improvement_against_pairs_and_rliable():
    ours, theirs = samples(4, 3, seed=1), samples(5, 2, seed=2)
    theirs[1][0] = ours[1][0]  # a tie
    chances = []
    for x, y in zip(ours, theirs, strict=True):
        wins = [1.0 if a > b else 0.5 if a == b else 0.0 for a, b in itertools.product(x, y)]
        chances.append(sum(wins) / len(wins))
    change, chance = improvement(ours, theirs)
    assert chance == pytest.approx(np.mean(chances))
    ours_mean, theirs_mean = (np.mean([s.mean() for s in side]) for side in (ours, theirs))
    assert change == pytest.approx(ours_mean / theirs_mean - 1)
    x, y = np.random.default_rng(3).random((4, 2)), np.random.default_rng(4).random((5, 2))
    known = metrics.probability_of_improvement(x, y)
    assert improvement(list(x.T), list(y.T))[1] == pytest.approx(known)


def own_bootstrap(strata, statistic, replicates, seed):
    """Resample every stratum by itself, with nothing of rliable."""
    generator = np.random.default_rng(seed)
    found = [statistic([s[generator.integers(0, s.size, s.size)] for s in strata]) for _ in range(replicates)]
    return np.percentile(found, [2.5, 97.5], axis=0)


@pytest.mark.parametrize("sizes", [(3,), (5, 5, 5), (3, 10), (1, 20)])
def test_intervals_against_an_independent_bootstrap(sizes):
    drawn = samples(*sizes, seed=sum(sizes))
    points, low, high = stratified_intervals(drawn, aggregates, replicates=1500)
    expected_low, expected_high = own_bootstrap(drawn, aggregates, 1500, seed=9)
    width = expected_high - expected_low
    assert points == pytest.approx(aggregates(drawn))
    assert np.all(np.abs(low - expected_low) <= 0.12 * width + 1e-12)
    assert np.all(np.abs(high - expected_high) <= 0.12 * width + 1e-12)


def test_strata_are_not_mixed():
    # All runs of a task are equal, so resampling within tasks changes nothing; across tasks it would.
    points, low, high = stratified_intervals([np.full(4, 0.1), np.full(4, 0.9)], aggregates, replicates=100)
    assert low == pytest.approx(points) and high == pytest.approx(points)
    assert points[0] == pytest.approx(0.5)


def test_more_runs_give_narrower_intervals():
    generator = np.random.default_rng(5)
    widths = []
    for size in (5, 20, 80):
        _, low, high = stratified_intervals(
            [generator.normal(0.5, 0.1, size)] * 2, aggregates, replicates=400
        )
        widths.append(high[0] - low[0])
    assert widths[0] > 1.4 * widths[1] > 1.4 * 1.4 * widths[2]


def test_intervals_cover_the_true_mean():
    # 40 samples of 2 tasks x 12 runs: about 95 % of the intervals of the mean hold the true one, 0.6.
    generator = np.random.default_rng(6)
    hits = 0
    for k in range(40):
        drawn = [generator.normal(0.5, 0.1, 12), generator.normal(0.7, 0.1, 12)]
        _, low, high = stratified_intervals(drawn, aggregates, seed=k, replicates=150)
        hits += low[0] <= 0.6 <= high[0]
    assert 33 <= hits <= 40


def test_intervals_are_repeatable_and_leave_the_global_generator_alone():
    drawn = samples(4, 5)
    np.random.seed(3)
    expected = np.random.random(2)
    np.random.seed(3)
    first = stratified_intervals(drawn, aggregates, seed=1, replicates=50)
    assert np.array_equal(np.random.random(2), expected)
    assert np.array_equal(first, stratified_intervals(drawn, aggregates, seed=1, replicates=50))
    assert not np.array_equal(first, stratified_intervals(drawn, aggregates, seed=2, replicates=50))


def test_impossible_samples_are_refused():
    with pytest.raises(ValueError, match="values: expected"):
        stratified_intervals([np.array([])], aggregates)
