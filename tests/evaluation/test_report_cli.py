"""report.py as a user runs it: its files, and its answers to bad input."""

import csv
import json
import subprocess
import sys

import pytest

import report
from common.errors import ConfigError, InputError
from common.paths import PROJECT_ROOT
from evaluation.results import load_result, save_result
from tests.support.reports import result, write_everything, write_results, write_run

FILES = ["report.md", "report.csv", "scores.csv", "report.json", "report.html"]
QUICK = ["--replicates", "20"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A report of three maskers, two seeds, curves and pictures, made by the real command."""
    folder = tmp_path_factory.mktemp("report")
    write_everything(folder / "in", seeds=(1, 2))
    command = [
        sys.executable,
        "report.py",
        "in",
        "--baseline",
        "drqv2 + none",
        "--out",
        "out",
        "--title",
        "A & B",
    ]
    command[1] = str(PROJECT_ROOT / "report.py")
    done = subprocess.run([*command, *QUICK, "--pictures", "4"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "72 results, 9 learning curves"
    return folder


def rows(path):
    with path.open() as handle:
        return list(csv.DictReader(handle))


def test_everything_is_written(made):
    out = made / "out"
    assert sorted(path.name for path in out.iterdir()) == sorted([*FILES, "plots", "pictures"])
    assert sorted(path.name for path in (out / "plots").iterdir()) == [
        "aggregates.svg",
        "curves.svg",
        "levels.svg",
    ]
    assert len(list((out / "pictures").iterdir())) == 4


def test_csv_has_one_row_per_result_with_its_numbers(made):
    found = rows(made / "out" / "report.csv")
    assert len(found) == 72
    for row in found[::7]:
        source = load_result(made / "in" / row["file"].split("/in/")[1])
        assert float(row["mean"]) == source.mean and float(row["mask_iou"]) == source.mask_iou
        assert (
            row["task"] == source.conditions.task
            and row["fingerprint"] == source.conditions.masker["fingerprint"]
        )
        assert int(row["agent_steps"]) == 500_000 and row["protocol"] == "dmcgb"


def test_scores_agree_with_the_results(made):
    results, scores = rows(made / "out" / "report.csv"), rows(made / "out" / "scores.csv")
    assert len(scores) == 3 * 4 * 3 + 4 * 3
    for score in scores:
        where = {name: score[name] for name in ("task", "level", "method") if score[name] != "(all)"}
        means = [float(r["mean"]) for r in results if all(r[name] == value for name, value in where.items())]
        scale = 1 if score["scale"] == "return" else 1000
        assert float(score["mean"]) * scale == pytest.approx(sum(means) / len(means))
        assert float(score["mean_low"]) <= float(score["mean"]) <= float(score["mean_high"])
        assert (score["change"] == "") == (score["method"] == "drqv2 + none")


def test_json_and_markdown_hold_the_same_numbers(made):
    content = json.loads((made / "out" / "report.json").read_text())
    text = (made / "out" / "report.md").read_text()
    assert len(content["results"]) == 72 and len(content["curves"]) == 9
    (section,) = content["sections"]
    for table in section["tables"]:
        for row in table["rows"]:
            assert all(cell in text for cell in row), row
    assert section["caveats"] and all(sentence in text for sentence in section["caveats"])
    assert text.startswith("# A & B\n") and "![Learning curves](plots/curves.svg)" in text
    assert "32 more pictures" not in text and "14 more pictures" in text
    linked = [line.split("](")[1].rstrip(")") for line in text.splitlines() if line.startswith("![")]
    assert len(linked) == 3 + 4 and all((made / "out" / name).is_file() for name in linked)


def test_markdown_tables_are_rectangular(made):
    widths = None
    for line in (made / "out" / "report.md").read_text().splitlines():
        if not line.startswith("| "):
            widths = None
            continue
        widths = widths or line.count("|")
        assert line.count("|") == widths, line


def test_the_same_input_gives_the_same_files(made):
    report.main(
        [
            str(made / "in"),
            "--baseline",
            "drqv2 + none",
            "--out",
            str(made / "again"),
            "--title",
            "A & B",
            *QUICK,
            "--pictures",
            "4",
        ]
    )
    for name in ("report.md", "report.html", "scores.csv"):
        assert (made / "again" / name).read_bytes() == (made / "out" / name).read_bytes()


def test_an_earlier_report_is_kept(made):
    before = {name: (made / "out" / name).stat().st_mtime_ns for name in FILES}
    with pytest.raises(ConfigError, match=r"report\.md exists already") as caught:
        report.main([str(made / "in"), "--out", str(made / "out")])
    assert "--overwrite" in caught.value.hint
    assert {name: (made / "out" / name).stat().st_mtime_ns for name in FILES} == before


def test_mixed_results_write_nothing(tmp_path, capsys):
    write_results(tmp_path / "a", ["walker_walk"], ["train"], ["tiny"], [1])
    write_results(tmp_path / "b", ["walker_walk"], ["train"], ["tiny"], [2], protocol="samg")
    paths = [str(tmp_path / "a"), str(tmp_path / "b")]
    with pytest.raises(ConfigError, match="another protocol in one table"):
        report.main([*paths, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
    report.main([*paths, "--out", str(tmp_path / "out"), "--split", "protocol", *QUICK])
    text = (tmp_path / "out" / "report.md").read_text()
    assert "## Returns (protocol dmcgb)" in text and "## Returns (protocol samg)" in text
    names = sorted(path.name for path in (tmp_path / "out" / "plots").iterdir())
    assert names == ["aggregates-2.svg", "aggregates.svg", "levels-2.svg", "levels.svg"]
    assert capsys.readouterr().out.startswith("2 results, 0 learning curves")


def test_bad_files_are_reported_in_two_lines_by_the_command(tmp_path):
    save_result(tmp_path / "good.json", result((1.0,)))
    (tmp_path / "bad.json").write_text("{")
    script = str(PROJECT_ROOT / "report.py")
    done = subprocess.run(
        [sys.executable, script, str(tmp_path), "--out", str(tmp_path / "o")], capture_output=True, text=True
    )
    assert done.returncode == InputError.exit_code and "Traceback" not in done.stderr
    assert (
        "error: 1 of 2 inputs cannot be used:" in done.stderr and "bad.json is not valid JSON" in done.stderr
    )
    assert "cure: " in done.stderr and not (tmp_path / "o").exists()


def test_learning_curves_alone_make_a_report(tmp_path):
    write_run(tmp_path / "run", "walker_walk", "tiny", 1)
    report.main([str(tmp_path / "run"), "--out", str(tmp_path / "out")])
    text = (tmp_path / "out" / "report.md").read_text()
    assert "## Learning curves" in text and "## Returns" not in text
    assert (tmp_path / "out" / "report.html").read_text().count("<svg") == 2  # a panel and its key


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "No results are named"),
        (["x"], "--out is missing"),
        (["x", "--out", "o", "--basline", "y"], "Unknown argument '--basline'"),
        (["x", "--out", "o", "--split", "colour"], "Unknown value of --split 'colour'"),
        (["x", "--out", "o", "--replicates", "0"], "Argument --replicates"),
        (["x", "--out", "o", "--label", "y"], "--label 'y' is not NAME=PATH"),
    ],
)
def test_impossible_flags(tmp_path, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        report.main(flags)


def test_an_unknown_baseline_is_refused_before_any_bootstrap(tmp_path):
    save_result(tmp_path / "a.json", result((1.0,)))
    with pytest.raises(ConfigError, match="Unknown baseline 'none'"):
        report.main([str(tmp_path), "--out", str(tmp_path / "o"), "--baseline", "none"])
