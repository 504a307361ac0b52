"""The benchmark of evaluation: its sums on given rates, and the real thing with tiny numbers."""

import json
import subprocess
import sys

import pytest

from benchmarks import evaluation
from common.errors import ConfigError
from common.paths import PROJECT_ROOT

SMALL = ["--task", "cartpole_swingup", "--action-repeat", "250"]


def test_ratios_compare_rates_of_the_same_round():
    rates = {"none": {"1": [10.0, 20.0, 40.0], "2": [19.0, 30.0, 80.0]}, "tiny": {"1": [5.0, 5.0, 20.0]}}
    rows = evaluation.summarise(rates)
    assert [(row["masker"], row["processes"], row["steps_per_second"]) for row in rows] == [
        ("none", 1, 20.0),
        ("none", 2, 30.0),
        ("tiny", 1, 5.0),
    ]
    assert rows[1]["over_fewest_processes"] == {"median": 1.9, "least": 1.5, "most": 2.0}
    assert rows[2]["over_unmasked"] == {"median": 0.5, "least": 0.25, "most": 0.5}
    text = evaluation.markdown(rows, {"task": "t"})
    assert "| none | 2 | 30.0 | 1.90 (1.50 to 2.00) | 1.00 (1.00 to 1.00) |" in text


def test_defaults_depend_on_what_is_asked():
    timed, checked = evaluation.parse([]), evaluation.parse(["--check"])
    assert (timed.processes, timed.episodes, timed.masker, timed.rounds) == ([1, 2], 4, "tiny", 3)
    assert (checked.processes, checked.episodes, checked.masker) == ([1, 2, 4], 20, "none")
    with pytest.raises(ConfigError, match="--processes 0"):
        evaluation.parse(["--processes", "0", "1"])


@pytest.mark.slow
def test_the_real_simulator_is_measured_and_compared(tmp_path, capsys):
    out = tmp_path / "figures.json"
    small = [*SMALL, "--masker", "none", "--episodes", "2"]
    assert evaluation.main([*small, "--check", "--processes", "1", "2", "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert found["identical"] and len(found["episode_returns"]) == 2
    assert found["setting"]["LP_NUM_THREADS"] == "0" and "identical" in capsys.readouterr().out
    assert evaluation.main([*small, "--processes", "1", "--rounds", "2", "--out", str(out)]) == 0
    (row,) = json.loads(out.read_text())["rows"]
    assert len(row["rounds"]) == 2 and row["steps_per_second"] > 0
    assert "| none | 1 |" in out.with_suffix(".md").read_text()


def test_the_script_finds_the_package_of_the_same_name():
    script = str(PROJECT_ROOT / "benchmarks" / "evaluation.py")
    done = subprocess.run(
        [sys.executable, script, "--help"], capture_output=True, text=True, timeout=120, cwd="/"
    )
    assert done.returncode == 0 and "LP_NUM_THREADS=0" in done.stdout, done.stderr
