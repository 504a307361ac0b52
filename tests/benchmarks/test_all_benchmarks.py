"""All benchmarks in one call, options of the masker, whole training steps: what they count and refuse."""

import importlib.util
import json
import subprocess
from types import SimpleNamespace

import pytest
import torch

from benchmarks import all as everything
from benchmarks import masker_options, training_step
from common.errors import ConfigError


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_part_is_a_script_and_its_flags_are_ones_it_knows(device, tmp_path):
    for part in everything.parts(torch.device(device)):
        assert importlib.util.find_spec(part.script) is not None
        for quick in (False, True):
            flags = part.command(device, quick)[2:]
            module = importlib.import_module(part.script)
            module.parse([*flags, "--out", str(tmp_path / "out.json")])


def test_what_is_there_is_kept_and_what_fails_is_named(tmp_path, monkeypatch, capsys):
    ran = []

    def run(command, env, check):
        ran.append(command[2])
        fine = command[2] != "benchmarks.update"
        out = command[command.index("--out") + 1]
        if fine:
            for suffix, text in ((".json", "{}"), (".md", "| a |\n")):
                (tmp_path / out).with_suffix(suffix).write_text(text)
        return SimpleNamespace(returncode=0 if fine else 3)

    monkeypatch.setattr(subprocess, "run", run)
    flags = ["--out", str(tmp_path), "--only", "replay", "update"]
    assert everything.main(flags) == 1 and ran == ["benchmarks.update", "benchmarks.replay"]
    assert "Failed: update" in capsys.readouterr().out
    page = (tmp_path / "benchmarks.md").read_text()
    assert "## Replay" in page and "`python -m benchmarks.replay`" in page and "| a |" in page
    everything.main(flags)
    assert ran[2:] == ["benchmarks.update"], "the result that is there is not measured again"


def test_a_row_that_fails_at_its_first_call_is_left_out(monkeypatch, capsys):
    def fails(row, frames, batch):
        if row.label != "exact":
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")

    monkeypatch.setattr(masker_options.Row, "warm_up", fails)
    row = masker_options.Row("tiny", "one pass", "walker_walk", torch.device("cpu"))
    frames = masker_options.episode("walker_walk", "train", 1)
    assert not masker_options.first_calls("tiny", row, frames, [1])
    assert "Left out: tiny, one pass (CUDA out of memory. Tried to allocate)" in capsys.readouterr().out
    row.label = "exact"
    assert masker_options.first_calls("tiny", row, frames, [1])


def test_unknown_names_are_refused():
    with pytest.raises(ConfigError, match="replya") as caught:
        everything.parse(["--out", "x", "--only", "replya"])
    assert "Did you mean replay?" in caught.value.hint
    with pytest.raises(ConfigError, match="replay-gpu"):  # which this call's device does not have
        everything.parse(["--out", "x", "--only", "replay-gpu"])
    with pytest.raises(ConfigError, match="compield"):
        masker_options.parse(["--rows", "compield"])
    with pytest.raises(ConfigError, match="--frames 0"):
        masker_options.parse(["--frames", "0"])
    with pytest.raises(ConfigError, match="--envs 0"):
        training_step.parse(["--envs", "0"])
    with pytest.raises(ConfigError, match="tyni"):
        training_step.parse(["--maskers", "tyni"])


def test_the_exact_row_is_always_measured():
    assert masker_options.parse(["--rows", "one pass"]).rows == ["exact", "one pass"]


@pytest.mark.parametrize(("variant", "apart"), [("tiny", False), ("paper", True)])
def test_options_that_a_variant_has_anyway_are_not_measured_twice(variant, apart, monkeypatch):
    numerics = SimpleNamespace(numerics={"compile": True})
    made = SimpleNamespace(masker=SimpleNamespace(info=numerics))
    monkeypatch.setattr(masker_options, "Row", lambda *_: made)
    rows = masker_options.build_rows(variant, masker_options.parse([]), torch.device("cpu"))
    assert {"exact", "compiled", "one pass"} <= set(rows)
    assert ("channels last" in rows) == ("compiled, channels last" in rows) == apart


def test_training_steps_are_compared_round_by_round_with_as_many_environments():
    setting = training_step.Setting
    rates = {
        setting("none", 1): [10.0, 5.0],
        setting("tiny", 1): [9.0, 4.0],
        setting("none", 8): [40.0, 40.0],
        setting("tiny", 8): [20.0, 30.0],
    }
    rows = training_step.summarise(rates)
    assert [row["over_unmasked"]["median"] for row in rows] == [1.0, pytest.approx(0.85), 1.0, 0.625]
    text = training_step.markdown(rows, {"device": "cpu"})
    assert "| tiny | 8 | 25.00 | 0.62 (0.50 to 0.75) |" in text


@pytest.mark.slow
def test_options_and_training_steps_are_really_measured(tmp_path, one_thread):
    out = tmp_path / "options.json"
    rows = ["one pass", "every 2nd frame", "bfloat16", "CUDA graph"]
    masker_options.main(["--quick", "--rows", *rows, "--task", "cartpole_balance", "--out", str(out)])
    found = {row["row"]: row for row in json.loads(out.read_text())["variants"]["tiny"]}
    assert set(found) == {"exact", "one pass", "every 2nd frame", "bfloat16"}
    assert found["exact"]["iou"]["mean"] == 1.0 and found["one pass"]["changes_method"]
    assert found["every 2nd frame"]["gflop"] == pytest.approx(found["exact"]["gflop"] / 2)
    out = tmp_path / "steps.json"
    small = ["--task", "cartpole_balance", "--batch", "4", "--rounds", "1", "--decisions", "2"]
    training_step.main([*small, "--out", str(out)])
    assert {row["masker"] for row in json.loads(out.read_text())["rows"]} == {"none", "tiny"}
