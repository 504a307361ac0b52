"""The level benchmark: its regions and shares against loops, and a real run of two levels."""

import json

import numpy as np
import pytest

from benchmarks import levels
from common.errors import InputError


def test_the_interior_has_all_eight_neighbours():
    region = np.random.default_rng(0).random((9, 11)) < 0.8
    expected = np.zeros_like(region)
    for y in range(9):
        for x in range(11):
            around = region[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
            expected[y, x] = around.all()
    np.testing.assert_array_equal(levels.interior(region), expected)
    assert expected.any()


def test_shares_count_changed_pixels_of_common_interiors():
    agent = np.zeros((20, 20), bool)
    agent[5:12, 5:12] = True
    plain = {
        "pixels": np.full((20, 20, 3), 100, np.uint8),
        "agent": agent,
        "sky": ~agent,
        "floor": agent & False,
    }
    here = plain | {"pixels": plain["pixels"].copy(), "agent": np.roll(agent, 1, axis=1)}
    here["pixels"][6:11, 7, 1] += 9  # one column of the common interior, visibly
    here["pixels"][6:11, 8, 2] += 8  # another one, not visibly
    found = levels.compare(here, plain)
    assert found["agent"] == pytest.approx(5 / 20) and found["agent_at_all"] == pytest.approx(10 / 20)
    assert found["floor"] is None and found["sky"] == 0.0
    assert found["overlap"] == pytest.approx(42 / 56)
    assert levels.mean([found, {**found, "agent": 0.75, "floor": 1.0}])["agent"] == pytest.approx(0.5)
    assert levels.mean([found, {**found, "floor": 1.0}])["floor"] == 1.0


def test_a_table_is_put_between_its_marks(tmp_path):
    path = tmp_path / "page.md"
    path.write_text("before\n<!-- levels -->\nold\n<!-- end -->\nafter\n")
    levels.put_into(path, "new\n")
    assert path.read_text() == "before\n<!-- levels -->\n\nnew\n\n<!-- end -->\nafter\n"
    path.write_text("no marks")
    with pytest.raises(InputError, match="no marks"):
        levels.put_into(path, "new")


def test_a_real_run_tells_the_regions_apart(tmp_path, monkeypatch, capsys):
    argv = (
        "levels --domains cartpole --levels objects_color_hard light_color_hard --episodes 1 --steps 2 --out"
    )
    monkeypatch.setattr("sys.argv", [*argv.split(), str(tmp_path)])
    levels.main()
    found = json.loads((tmp_path / "levels.json").read_text())["domains"]["cartpole"]
    assert found["training_scene_unchanged"]
    assert all(figures["same_physics"] for figures in found["levels"].values())
    colour, light = found["levels"]["objects_color_hard"], found["levels"]["light_color_hard"]
    assert colour["agent"] == 1.0 and colour["sky_at_all"] == 0.0
    assert light["sky_at_all"] == 0.0 and light["floor"] > 0.5
    assert "| `objects_color_hard` | 100 / 0 / " in capsys.readouterr().out
    assert (tmp_path / "levels.png").stat().st_size > 1000
