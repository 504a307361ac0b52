"""Learning curves, pictures and the drawing surface."""

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.errors import InputError
from evaluation.report.curves import BINS, learning_curves
from evaluation.report.loading import Picture, Run
from evaluation.report.pictures import HIGHEST, WIDEST, embed_pictures
from evaluation.report.plots import curve_plot, level_panel
from evaluation.report.scores import Estimate
from evaluation.report.svg import CHARACTER, Drawing, clipped, legend, stack, ticks


def run(seed=1, method="drqv2 + tiny", task="walker_walk", evaluations=(), training=()):
    return Run(Path("x"), task, method, seed, 2, {"eval": list(evaluations), "train": list(training)})


def test_mean_and_spread_over_seeds():
    runs = [run(1, evaluations=[(0, 0.0), (10, 100.0)]), run(2, evaluations=[(0, 20.0), (10, 300.0)])]
    (curve,) = learning_curves(runs)
    assert curve.kind == "eval" and curve.steps.tolist() == [0, 10] and curve.seeds == (1, 2)
    assert curve.mean == pytest.approx([10, 200]) and curve.std == pytest.approx([10, 100])


def test_only_steps_that_all_runs_have_reached():
    runs = [run(1, evaluations=[(0, 0.0), (10, 10.0), (20, 20.0), (30, 30.0)])]
    runs += [run(2, evaluations=[(0, 0.0), (20, 40.0)])]
    (curve,) = learning_curves(runs)
    assert curve.steps.tolist() == [0, 10, 20] and curve.mean == pytest.approx([0, 15, 30])


def test_a_resumed_run_counts_the_last_row_of_a_step():
    (curve,) = learning_curves([run(evaluations=[(0, 1.0), (10, 5.0), (10, 7.0)])])
    assert curve.mean == pytest.approx([1, 7])


def test_training_episodes_where_a_run_has_no_evaluations():
    steps = np.arange(500, 100_001, 500)
    training = [(int(step), float(step % 1000)) for step in steps]  # 500, 0, 500, 0, ...
    runs = [run(1, evaluations=[(0, 1.0), (9, 1.0)], training=training), run(2, training=training)]
    (curve,) = learning_curves(runs)
    assert curve.kind == "train" and curve.steps.size == BINS and curve.steps[-1] == 100_000
    first = [value for step, value in training if step <= 2500]
    assert curve.mean[0] == pytest.approx(np.mean(first)) and curve.std == pytest.approx(0)


def test_one_row_is_no_curve():
    assert learning_curves([run(evaluations=[(0, 1.0)], training=[(5, 1.0)])]) == []
    assert curve_plot([]) is None


def test_curve_plot_keeps_the_order_of_the_tables():
    runs = [run(method=name, task=task, evaluations=[(0, 0.0), (9, 5.0)]) for name in "ab" for task in "xy"]
    plot = curve_plot(learning_curves(runs), ["b", "c"])
    assert plot.series == ["b", "c", "a"] and len(plot.panels) == 2
    assert "1 training seed." in plot.caption and "2 simulator frames" in plot.caption


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (-0.3, 7), (0, 1000), (0.001, 0.0042), (5, 5), (0, 123_456)]
)
def test_ticks_are_round_and_cover(low, high):
    marks = ticks(low, high)
    assert marks[0] <= low + 1e-12 and marks[-1] >= high - 1e-12 and 2 <= len(marks) <= 8
    steps = np.diff(marks)
    assert steps == pytest.approx(steps[0])
    mantissa = steps[0] / 10 ** np.floor(np.log10(steps[0]) + 1e-9)
    assert min(abs(mantissa - m) for m in (1, 2, 2.5, 5, 10)) < 1e-6


def parse(text):
    return ET.fromstring(text)


def test_bars_are_as_long_as_their_numbers():
    rows = [
        ("train", [Estimate(500, 400, 600), None]),
        ("video hard", [Estimate(250, 200, 300), Estimate(0, 0, 0)]),
    ]
    panel = level_panel("task", "return", rows, ["a", "b"], ".1f", (0.0, 1000.0), bars=True, reference=100.0)
    root = parse(panel.file())
    bars = [float(r.get("width")) for r in root.iter("{http://www.w3.org/2000/svg}rect") if r.get("rx")]
    assert len(bars) == 3 and bars[0] == pytest.approx(2 * bars[1], abs=0.2) and bars[2] == 0
    titles = [t.text for t in root.iter("{http://www.w3.org/2000/svg}title")]
    assert titles[0] == "a, train: 500.0 [400.0, 600.0]"
    whiskers = [
        float(line.get("x2")) - float(line.get("x1"))
        for line in root.iter("{http://www.w3.org/2000/svg}line")
        if line.get("class") == "over"
    ]
    assert whiskers[0] == pytest.approx(0.4 * bars[0], abs=0.2)


def test_text_is_escaped_and_drawings_are_well_formed():
    drawing = Drawing(100, 50, 'a "label" & <more>')
    drawing.text(1, 2, "<b>&")
    drawing.marker(5, 5, 2, "tip <i>")
    whole = stack("t & u", [drawing, drawing, drawing], 2, legend(["x", "y" * 200], 300, "dashed"))
    root = parse(whole.file())
    assert [t.text for t in root.iter("{http://www.w3.org/2000/svg}text")].count("<b>&") == 3
    assert root.get("aria-label") == "t & u"
    parse(drawing.inline())


def test_undefined_estimates_are_left_out():
    rows = [("train", [Estimate(float("nan"), 0, 0), Estimate(1, float("nan"), float("nan"))])]
    text = level_panel("t", "x", rows, ["a", "b"], ".2f").file()
    assert "nan" not in text and text.count("<title>") == 1


def test_clipped():
    assert clipped("short", 100) == "short" and clipped("a" * 50, 10 * CHARACTER) == "a" * 9 + "…"


def test_pictures_are_embedded_and_large_ones_reduced(tmp_path):
    Image.new("RGB", (40, 30), "red").save(tmp_path / "small one.png")
    Image.new("RGBA", (4000, 300)).save(tmp_path / "wide.png")
    pictures = [Picture(tmp_path / name, "w", "caption") for name in ("small one.png", "wide.png")]
    small, wide = embed_pictures(pictures)
    assert small.png == (tmp_path / "small one.png").read_bytes() and small.name == "01-small_one.png"
    assert wide.size == (WIDEST, 120) and wide.size[1] <= HIGHEST
    assert small.data_uri.startswith("data:image/png;base64,iVBOR")


def test_unreadable_pictures_are_named_at_once(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"(?s)a\.png.*b\.png") as caught:
        embed_pictures([Picture(tmp_path / name, "w", "c") for name in ("a.png", "b.png")])
    assert "--pictures 0" in caught.value.hint
