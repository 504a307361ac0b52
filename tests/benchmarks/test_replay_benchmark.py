"""The benchmark of the replay buffer: a short run of the real thing."""

import json

import pytest

from benchmarks import replay
from common.errors import ConfigError


def test_a_short_run_writes_what_it_measured(tmp_path, capsys):
    out = tmp_path / "replay.json"
    replay.main(["--transitions", "1000", "--image-size", "12", "--batches", "2", "--batch", "8",
                 "--rounds", "2", "--out", str(out)])  # fmt: skip
    found = json.loads(out.read_text())
    assert found["transitions"] == 1000 and len(found["rounds"]) == 2
    assert found["samples_per_cpu_second"] > 0
    row = 12 * 12 * 3 + 4 * replay.ACTIONS + 8
    assert row < found["bytes_per_transition"] < 1.06 * row
    assert "bytes per transition" in capsys.readouterr().out


@pytest.mark.parametrize("flags", [["--batch", "0"], ["--transitions", "10"], ["--image-size", "0"]])
def test_impossible_numbers_are_refused(flags):
    with pytest.raises(ConfigError, match=flags[0]):
        replay.parse(flags)
