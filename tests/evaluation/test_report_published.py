"""Figures of others: where they come from, and that they stay apart from ours."""

import json

import pytest

from common.errors import InputError
from evaluation.report.grouping import make_sections
from evaluation.report.loading import Entry
from evaluation.report.published import DATA, load_published, published_tables
from evaluation.report.scores import compute_scores
from tests.support.reports import result


@pytest.fixture(scope="module")
def figures():
    return load_published()


def scores(*conditions):
    entries = [Entry("x", result((700.0, 720.0), **c), "ours", c["level"]) for c in conditions]
    return compute_scores(make_sections(entries)[0], replicates=5)


def find(figures, source, level, method):
    return next(f for f in figures if (f.source.name, f.level, f.method) == (source, level, method))


def test_every_figure_has_a_source_and_is_a_return(figures):
    assert len(figures) > 30
    for f in figures:
        assert f.source.citation and f.level in ("color_hard", "video_easy", "video_hard")
        for mean, std in f.returns.values():
            assert 0 <= mean <= 1000 and (std is None or 0 < std < 300)
    keys = [(f.source.name, f.level, f.method) for f in figures]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("source", "level", "method", "task", "expected"),
    [
        ("simgrl", "video_hard", "SGQN", "walker_walk", (739, 21)),
        ("simgrl", "video_hard", "SimGRL", "cheetah_run", (301, 7)),
        ("tstm", "video_hard", "TSTM", "finger_spin", (906, 10)),
        ("svea", "color_hard", "SVEA (convolution)", "walker_walk", (760, None)),
        ("svea", "video_easy", "SVEA (overlay)", "cartpole_swingup", (782, None)),
        ("sada", "video_hard", "SADA", "cup_catch", (662, None)),
    ],
)
def test_figures_spot_checked(figures, source, level, method, task, expected):
    assert find(figures, source, level, method).returns[task] == expected


def test_decisions_and_frames(figures):
    source = find(figures, "svea", "color_hard", "RAD").source
    assert source.decisions == 500_000
    frames = [source.frames(task) for task in ("walker_walk", "cartpole_swingup", "finger_spin")]
    assert frames == [2_000_000, 4_000_000, 1_000_000]
    assert find(figures, "simgrl", "video_hard", "SAC").source.frames("walker_walk") is None


def test_table_holds_only_what_ours_has_and_keeps_both_apart(figures):
    ours = scores({"level": "video_hard"}, {"level": "train"}, {"level": "cam_pos_easy"})
    (table,) = published_tables(ours, figures)
    assert table.title == "video hard" and table.header[1] == "walker_walk" and len(table.header) == 6
    assert table.groups == {0: "This report", 1: "Published by others"}
    row = [cell.text for cell in table.rows[0]]
    assert row == ["ours", "710.0 ± 10.0", "500,000", "1,000,000", "1", "this report"]
    simgrl = next([c.text for c in row] for row in table.rows if row[0].text == "SimGRL")
    assert simgrl == ["SimGRL", "773 ± 31", "“500k frames”", "–", "5", "[1]"]
    assert all(row[-1].text.startswith("[") for row in table.rows[1:])
    assert "500,000 agent decisions" in table.notes[0] and table.notes[1].startswith(
        "[1] SimGRL, NeurIPS 2024"
    )
    assert "not of the published benchmark" not in table.caption


def test_frames_of_checked_code_are_shown(figures):
    (table,) = published_tables(scores({"level": "color_hard", "task": "cartpole_swingup"}), figures)
    rad = next([c.text for c in row] for row in table.rows if row[0].text == "RAD")
    assert rad == ["RAD", "590", "500,000", "4,000,000", "5", "[1]"]


def test_other_conditions_than_the_benchmark_are_said(figures):
    (table,) = published_tables(scores({"level": "video_hard", "source": "procedural"}), figures)
    assert "Ours are not of the published benchmark: source procedural." in table.caption
    (table,) = published_tables(scores({"level": "video_hard", "protocol": "samg"}), figures)
    assert "protocol samg" in table.caption


def test_nothing_to_compare_with(figures):
    assert published_tables(scores({"level": "video_hard", "task": "hopper_hop"}), figures) == []
    assert published_tables(scores({"level": "train"}), figures) == []


def test_a_spoilt_file_is_named(tmp_path):
    content = json.loads(DATA.read_text())
    content["rows"][0]["source"] = "nobody"
    path = tmp_path / "published.json"
    path.write_text(json.dumps(content))
    with pytest.raises(
        InputError, match=r"published\.json has a row or source that is not understood: 'nobody'"
    ):
        load_published(path)
