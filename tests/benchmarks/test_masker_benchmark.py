"""The benchmark of the masker: what its ledger books, and a short run of the real thing."""

import json
import mmap

import numpy as np
import pytest
import torch

from benchmarks import machine, masker, output
from benchmarks.ledger import Ledger
from common.errors import ConfigError


class Clock:
    """Time passes only when somebody works."""

    def __init__(self):
        self.now = 0.0

    def work(self, seconds):
        self.now += seconds

    def whole(self):
        self.work(1.0)
        self.part()
        self.part()

    def part(self):
        self.work(0.25)


def test_nested_work_is_booked_once_under_the_innermost_label():
    worker = Clock()
    ledger = Ledger(lambda: worker.now)
    ledger.wrap(worker, "part", "part")
    ledger.measure("whole", worker.whole)
    assert ledger.take() == {"whole": 1.0, "part": 0.5}
    assert ledger.take() == {}


def test_operations_are_counted_by_label_and_the_clock_comes_back():
    layer = torch.nn.Conv2d(3, 5, 3, bias=False)
    ledger = Ledger(lambda: 7.0)
    ledger.wrap(layer, "forward", "convolution")
    a, b = torch.randn(4, 6), torch.randn(6, 8)
    images = torch.randn(2, 3, 10, 10)
    found = ledger.count_flops(lambda: (a @ b, layer(images)))
    assert found["rest"] == 2 * 4 * 6 * 8
    assert found["convolution"] == 2 * (2 * 5 * 8 * 8) * 3 * 9
    assert ledger.read() == 7.0


def test_the_matmul_rate_is_what_the_clock_says(monkeypatch):
    ticks = iter(range(100))
    monkeypatch.setattr(machine, "_SIDE", {"cpu": 10})
    monkeypatch.setattr(machine, "clock", lambda device: lambda: float(next(ticks)))
    assert machine.matmul_rate(torch.device("cpu"), torch.float32, repeats=3) == pytest.approx(2e-6)


def test_peak_memory_notices_an_allocation_and_forgets_it():
    cpu = torch.device("cpu")
    machine.reset_peak_memory(cpu)
    before = machine.peak_memory(cpu)
    with mmap.mmap(-1, 160_000_000) as block:  # not from the allocator, which may hold as much already
        np.frombuffer(block, np.uint8)[:] = 1
        assert machine.peak_memory(cpu) - before > 100e6


def test_ratios_are_taken_round_by_round():
    found = output.ratio([10.0, 40.0, 30.0], [5.0, 10.0, 30.0])
    assert (
        found == {"median": 2.0, "least": 1.0, "most": 4.0} and output.shown(found) == "2.00 (1.00 to 4.00)"
    )


@pytest.mark.slow
def test_a_short_run_writes_every_stage_of_tiny(tmp_path, capsys, one_thread):
    out = tmp_path / "masker.json"
    masker.main(["--variants", "tiny", "--batches", "1", "2", "--repeats", "2", "--out", str(out)])
    found = json.loads(out.read_text())
    assert found["setting"]["threads"] == 1 and found["setting"]["matmul_gflop_per_s"]["float32"] > 0
    (tiny,) = found["variants"]
    assert set(tiny["frames"]) == {"1", "2"}
    for frames in tiny["frames"].values():
        stages = {label: value for label, value in frames["ms"].items() if label != "total"}
        assert {"tiny encoder", "tiny decoder", "similarity maps"} <= stages.keys()
        assert frames["ms"]["total"] == pytest.approx(sum(stages.values()))
        assert frames["outside_networks_ms"] < frames["ms"]["total"]
        assert 1.0 < frames["gflop"]["total"] < 2.0  # the size of the networks, whatever the machine
    printed = capsys.readouterr().out
    assert "| tiny encoder |" in printed and out.with_suffix(".md").read_text() in printed


@pytest.mark.parametrize(
    ("flags", "named"),
    [(["--variants", "tyni"], "tyni"), (["--batches", "0"], "--batches 0"), (["--precision", "fp8"], "fp8")],
)
def test_impossible_flags_are_refused(flags, named):
    with pytest.raises(ConfigError, match=named):
        masker.parse(flags)
