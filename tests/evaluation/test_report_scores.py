"""The numbers of the tables, computed again from the episodes by hand."""

import numpy as np
import pytest

from common.errors import ConfigError
from evaluation.report.caveats import misleading
from evaluation.report.grouping import make_sections
from evaluation.report.loading import Entry, method_name
from evaluation.report.scores import check_baseline, compute_scores, work
from evaluation.report.tables import (
    aggregate_table,
    methods_table,
    quality_table,
    returns_tables,
    statistics_table,
)
from tests.support.reports import LEVELS, SKILL, TASKS, drawn_returns, level_facts, result


def entry(returns, variant="tiny", path="x", **changes):
    made = result(returns, variant, (10.0, 30.0), **changes)
    return Entry(path, made, method_name(made.conditions), made.conditions.level)


def section(*entries):
    (made,) = make_sections(entries)
    return made


@pytest.fixture(scope="module")
def scores():
    entries = [
        entry(drawn_returns(task, level, variant, seed), variant, task=task, level=level, train_seed=seed)
        for task in TASKS[:2]
        for level in LEVELS
        for variant in SKILL
        for seed in (1, 2, 3, 4)
    ]
    return compute_scores(section(*entries), "drqv2 + none", replicates=100)


def run_means(task, level, variant):
    return np.array([drawn_returns(task, level, variant, seed).mean() for seed in (1, 2, 3, 4)])


def test_cells(scores):
    assert len(scores.cells) == 2 * 4 * 3
    for score in scores.cells:
        cell = score.cell
        variant = cell.method.removeprefix("drqv2 + ")
        means = run_means(cell.task, cell.level, variant)
        assert score.mean.value == pytest.approx(means.mean()) and cell.std == pytest.approx(means.std())
        assert score.iqm.value == pytest.approx(sorted(means)[1:3][0] / 2 + sorted(means)[1:3][1] / 2)
        assert score.gap.value == pytest.approx(np.mean([1 - min(m / 1000, 1) for m in means]))
        assert means.min() <= score.mean.low <= score.mean.value <= score.mean.high <= means.max()
        if variant == "none":
            assert score.change is None
        else:
            base = run_means(cell.task, cell.level, "none").mean()
            assert score.change.value == pytest.approx((means.mean() - base) / base)
            assert score.change.low < score.change.value < score.change.high
        clean = run_means(cell.task, "train", variant).mean()
        expected = None if cell.level == "train" else pytest.approx(means.mean() / clean - 1)
        assert score.drop == expected


def test_aggregates(scores):
    assert [a.method for a in scores.aggregates[:3]] == [
        f"drqv2 + {v}" for v in ("none", "tiny", "groundtruth")
    ]
    for a in scores.aggregates:
        variant = a.method.removeprefix("drqv2 + ")
        matrix = np.array([run_means(task, a.level, variant) for task in sorted(TASKS[:2])]) / 1000
        pooled = sorted(matrix.ravel())
        assert a.mean.value == pytest.approx(matrix.mean()) and a.iqm.value == pytest.approx(
            np.mean(pooled[2:6])
        )
        assert a.gap.value == pytest.approx((1 - np.minimum(matrix, 1)).mean())
        assert (a.runs, a.over_runs, a.tasks) == ((4, 4), True, ("cartpole_swingup", "walker_walk"))
        ranks = []
        for task in TASKS[:2]:
            means = {name: run_means(task, a.level, name).mean() for name in SKILL}
            ranks.append(1 + sum(value > means[variant] for value in means.values()))
        assert a.rank == pytest.approx(np.mean(ranks))
    hard = scores.aggregate("video_hard", "drqv2 + tiny")
    assert hard.chance.value == 1.0 and hard.change.value > 2


def test_intervals_do_not_depend_on_what_else_is_in_the_table(scores):
    returns = [drawn_returns(TASKS[0], "video_hard", "tiny", seed) for seed in (1, 2, 3, 4)]
    alone = [entry(r, level="video_hard", train_seed=seed + 1) for seed, r in enumerate(returns)]
    (score,) = compute_scores(section(*alone), None, replicates=100).cells
    assert score.iqm == scores.find(TASKS[0], "video_hard", "drqv2 + tiny").iqm


def test_evaluation_seeds_of_a_run_are_one_run():
    entries = [entry([100.0, 200.0]), entry([600.0], seed=1), entry([700.0], train_seed=2)]
    (score,) = compute_scores(section(*entries), replicates=20).cells
    assert score.cell.run_means == pytest.approx([300.0, 700.0]) and score.mean.value == pytest.approx(500.0)
    assert score.cell.episodes == 4 and score.cell.average("mask_iou") == pytest.approx(0.93)


def test_one_seed_is_over_episodes_and_says_so():
    entries = [
        entry([100.0, 200.0, 300.0, 800.0]),
        entry([400.0], "none"),
        entry([500.0], "none", train_seed=2),
    ]
    scores = compute_scores(section(*entries), "drqv2 + none", replicates=50)
    one = scores.find("walker_walk", "train", "drqv2 + tiny")
    assert not one.cell.over_runs and one.iqm.value == pytest.approx(250.0)
    assert one.cell.std == pytest.approx(np.std([100, 200, 300, 800])) and one.mean.low < one.mean.high
    assert scores.find("walker_walk", "train", "drqv2 + none").cell.over_runs
    (table,) = returns_tables(scores)
    assert table.rows[1][1].text.endswith(" †") and "†" not in table.rows[0][1].text
    assert any("One training seed only" in note for note in table.notes)
    assert any("one training seed" in note for note in aggregate_table(scores).notes)
    assert any("one seed cannot tell" in sentence for sentence in misleading(scores))


def test_a_baseline_of_nothing_has_no_ratio():
    entries = [entry([0.0, 0.0], "none"), entry([5.0, 6.0])]
    scores = compute_scores(section(*entries), "drqv2 + none", replicates=20)
    assert np.isnan(scores.find("walker_walk", "train", "drqv2 + tiny").change.value)
    assert statistics_table(scores, "walker_walk").rows[1][5].text == "–"


def test_the_drop_is_over_runs_that_were_evaluated_on_both():
    entries = [
        entry([800.0]),
        entry([400.0], level="video_hard"),
        entry([40.0], level="video_hard", train_seed=2),
    ]
    scores = compute_scores(section(*entries), replicates=20)
    assert scores.find("walker_walk", "video_hard", "drqv2 + tiny").drop == pytest.approx(-0.5)


def test_aggregates_leave_out_tasks_that_not_all_methods_have():
    entries = [
        entry([500.0], task=TASKS[0]),
        entry([900.0], task=TASKS[1]),
        entry([100.0], "none", task=TASKS[0]),
    ]
    scores = compute_scores(section(*entries), replicates=20)
    assert {a.method: a.mean.value for a in scores.aggregates} == {"drqv2 + none": 0.1, "drqv2 + tiny": 0.5}
    assert "On train without cartpole_swingup" in aggregate_table(scores).notes[0]
    alone = [entry([500.0], task=TASKS[0]), entry([100.0], "none", task=TASKS[1])]
    assert compute_scores(section(*alone), replicates=20).aggregates == []


def test_progress_counts_all_work(scores):
    calls = []
    made = section(entry([1.0]), entry([2.0], "none"), entry([2.0], "none", level="video_hard"))
    compute_scores(made, replicates=5, tick=lambda: calls.append(1))
    assert len(calls) == work(made) == 5


def test_unknown_baseline(scores):
    with pytest.raises(ConfigError, match="Unknown baseline 'drqv2 \\+ nine'") as caught:
        check_baseline([scores.section], "drqv2 + nine")
    assert "Did you mean drqv2 + none?" in caught.value.hint


def test_returns_table(scores):
    table = returns_tables(scores)[1]
    assert table.title == "walker_walk" and table.header[1:] == [
        "train",
        "color hard",
        "video easy",
        "video hard",
    ]
    means = run_means("walker_walk", "video_hard", "tiny")
    assert table.rows[1][4].text == f"{means.mean():.1f} ± {means.std():.1f}"
    bold = [
        max(SKILL, key=lambda v, level=level: run_means("walker_walk", level, v).mean()) for level in LEVELS
    ]
    shown = [
        next(row[0].text for row in table.rows if row[column].strong).removeprefix("drqv2 + ")
        for column in range(1, 5)
    ]
    assert shown == bold
    assert [cell.text for cell in table.rows[3]] == ["random actions", *["20.0"] * 4]
    for words in (
        "Protocol dmcgb",
        "drawn from dmcgb",
        "4 training seeds",
        "10 episodes",
        "500,000 decisions",
    ):
        assert words in table.caption


def test_equal_means_are_all_bold_unless_all_are_equal():
    pairs = [([5.0], "none"), ([7.0], "tiny"), ([7.0], "groundtruth")]
    entries = [entry(r, variant) for r, variant in pairs]
    entries += [entry([5.0], variant, level="video_hard") for variant in ("none", "tiny")]
    (table,) = returns_tables(compute_scores(section(*entries), replicates=5))
    assert [row[1].strong for row in table.rows] == [False, True, True, False]
    assert not any(row[2].strong for row in table.rows)


def test_quality_table(scores):
    table = quality_table(scores)
    assert all("none" not in row[0].text for row in table.rows) and len(table.rows) == 2 * 4 * 2
    assert [c.text for c in table.rows[0]] == ["drqv2 + tiny", "0.930", "0.950", "0.920", "1.00%", "3.5"]
    assert [c.text for c in table.rows[1]][-1] == "–"
    assert table.groups[0] == "cartpole_swingup, train"
    only_none = compute_scores(section(entry([1.0], "none")), replicates=5)
    assert quality_table(only_none) is None


def test_methods_table(scores):
    row = [cell.text for cell in methods_table(scores).rows[0]]
    assert row == ["drqv2 + none", "500,000", "1,000,000", "2", "249,000", "1, 2, 3, 4", "0", "6e6f6e656361"]


def test_what_misleads_is_said(scores):
    text = " ".join(misleading(scores))
    assert "With 4 training seeds" in text and "groundtruth" in text and "tiny" in text
    assert "different numbers of decisions" not in text and "published clips" not in text
    facts = {**level_facts("video_hard"), "published": False}
    uneven = [entry([1.0], "none", agent_steps=10, level="video_hard", level_facts=facts)]
    uneven += [entry([1.0], level="video_hard", level_facts=facts)]
    text = " ".join(misleading(compute_scores(section(*uneven), replicates=5)))
    assert "different numbers of decisions on walker_walk" in text and "not the published clips" in text
    assert "no results on the training scene" in text
