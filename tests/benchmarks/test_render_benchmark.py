"""The rendering benchmark compares the rows it says it compares."""

import json

import pytest

from benchmarks import render
from common.errors import ConfigError


def test_ratios_are_taken_round_by_round_and_written(tmp_path, monkeypatch, capsys):
    asked = []

    def fake(task, row, frames, size):
        asked.append(row)
        slow = 1 + len(asked) // 5  # the second round is twice as slow as the first
        return (10.0 if row.startswith("stock") else 5.0) * slow, 8.0

    monkeypatch.setattr(render, "measure_row", fake)
    monkeypatch.setattr(render, "moved_share", lambda *_: 0.0004)
    render.main(["--tasks", "walker_walk", "--rounds", "2", "--out", str(tmp_path / "render.json")])
    assert asked == [*render.ROWS, *render.ROWS]
    walker = json.loads((tmp_path / "render.json").read_text())["tasks"]["walker_walk"]
    assert walker["fast_render"]["cpu_ratio"] == 0.5 and walker["stock"]["cpu_ratio"] == 1
    assert "0.040 %" in capsys.readouterr().out and (tmp_path / "render.md").exists()


@pytest.mark.slow
def test_fast_render_moves_few_pixels_of_a_real_picture():
    assert 0 < render.moved_share("walker_walk", 3) < 0.02


@pytest.mark.parametrize("flags", [["--frames", "1"], ["--tasks", "walker_wlk"]])
def test_impossible_flags_are_refused(flags):
    with pytest.raises(ConfigError):
        render.parse(flags)
