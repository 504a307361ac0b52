"""The plots of a report: intervals over tasks, bars per level, learning curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from evaluation.report.curves import Curve
from evaluation.report.scores import MAX_RETURN, Estimate, Scores
from evaluation.report.svg import CHARACTER, SERIES, Drawing, clipped, legend, stack, ticks
from evaluation.report.tables import conditions_sentence, interval, number

WIDTH = 400.0
LABEL_MOST = 118.0
RIGHT = 14.0
TOP = 26.0
AXIS = 40.0
BAND = 13.0  # height of one method's row
CURVE_HEIGHT = 230.0
KEY_WIDTH = 824.0


@dataclass(frozen=True)
class Plot:
    """Several panels with one key and one caption.

    Attributes:
        name: of its file.
        title: over it.
        caption: the conditions.
        panels: drawings without a key.
        series: names of the series, in the order of the colours.
        dashed: what the dashed line means; empty where there is none.
    """

    name: str
    title: str
    caption: str
    panels: list[Drawing]
    series: list[str]
    dashed: str = ""

    def key(self, width: float = KEY_WIDTH) -> Drawing:
        """Return the key."""
        return legend(self.series, width, self.dashed)

    def whole(self) -> Drawing:
        """Return panels and key as one drawing."""
        return stack(self.title, self.panels, 2, self.key())


def level_panel(
    title: str,
    axis: str,
    rows: Sequence[tuple[str, Sequence[Estimate | None]]],
    series: Sequence[str],
    form: str,
    extent: tuple[float, float] | None = None,
    bars: bool = False,
    reference: float | None = None,
) -> Drawing:
    """Draw one group of horizontal bars, or of points, with intervals per level.

    Args:
        title: over the panel.
        axis: beneath the axis.
        rows: level and one estimate per series; None where there is none.
        series: names for the tooltips.
        form: format of the numbers in tooltips.
        extent: of the axis; None: 0 and what the estimates need.
        bars: bars from 0 instead of points.
        reference: where a dashed line stands.
    """
    known = [e for _, row in rows for e in row if e is not None and math.isfinite(e.value)]
    low, high = extent or _extent(known)
    marks = [mark for mark in ticks(low, high, 5) if low <= mark <= high]
    parts = [part for name, _ in rows for part in _label_lines(name)]
    left = min(LABEL_MOST, max([CHARACTER * len(part) for part in parts], default=0)) + 12
    tallest = max(len(_label_lines(name)) for name, _ in rows)
    group = max(BAND * max(len(series), 1), 14.0 * tallest) + 10
    height = TOP + group * len(rows) + AXIS
    drawing = Drawing(WIDTH, height, f"{title}: {axis}")
    x = _scale(low, high, left, WIDTH - RIGHT)
    bottom = TOP + group * len(rows)
    drawing.text(0, 13, title, "title")
    for mark in marks:
        drawing.line(x(mark), TOP - 4, x(mark), bottom, "axis" if mark == 0 and bars else "grid")
        drawing.text(x(mark), bottom + 15, _tick(mark, marks, form), "small", "middle")
    drawing.text((left + WIDTH - RIGHT) / 2, bottom + 33, axis, "small", "middle")
    for index, (name, row) in enumerate(rows):
        top = TOP + group * index + 5
        _draw_label(drawing, left - 8, top + (group - 10) / 2 + 4, name)
        for k, estimate in enumerate(row):
            if estimate is not None and math.isfinite(estimate.value):
                tip = f"{series[k]}, {name}: {interval(estimate, form)}"
                _draw_estimate(drawing, x, top + BAND * (k + 0.5), estimate, k, bars, tip)
    if reference is not None:
        drawing.line(x(reference), TOP - 4, x(reference), bottom, "reference")
    return drawing


def _label_lines(name: str) -> list[str]:
    """Return a combination of levels as one line per level."""
    first, *others = name.split("+")
    return [first, *(f"+ {other}" for other in others)]


def _draw_label(drawing: Drawing, x: float, y: float, name: str) -> None:
    lines = _label_lines(name)
    for index, line in enumerate(lines):
        drawing.text(x, y + 14 * (index - (len(lines) - 1) / 2), clipped(line, LABEL_MOST), "", "end")


def _draw_estimate(
    drawing: Drawing, x: Callable[[float], float], y: float, e: Estimate, series: int, bars: bool, tip: str
) -> None:
    colour = f"c{series % SERIES}"
    if bars:
        start, end = sorted((x(0.0), x(e.value)))
        drawing.bar(start, y - BAND / 2 + 1, end - start, BAND - 2, f"fill {colour}", tip)
    if math.isfinite(e.low) and math.isfinite(e.high):
        if bars:
            drawing.line(x(e.low), y, x(e.high), y, "halo")
        drawing.line(x(e.low), y, x(e.high), y, "over" if bars else f"whisker {colour}")
    if not bars:
        drawing.marker(x(e.value), y, series, tip)


def _extent(estimates: Sequence[Estimate]) -> tuple[float, float]:
    """Return what an axis must show: all estimates and 0, with a little room beyond them."""
    ends = [end for e in estimates for end in (e.value, e.low, e.high) if math.isfinite(end)]
    low, high = min([*ends, 0.0]), max([*ends, 0.0])
    if low == high:
        return -1.0, 1.0
    room = 0.04 * (high - low)
    return low - room * (low < 0), high + room * (high > 0)


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _tick(value: float, marks: Sequence[float], form: str = "") -> str:
    if form.endswith("%"):
        return number(value + 0.0, "+.0%" if value else ".0%")
    step = marks[1] - marks[0]
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    digits += round(step * 10**digits, 6) % 1 > 0  # such as steps of 0.25
    return number(value + 0.0, f",.{digits}f")


def _spaced(level: str) -> str:
    return level.replace("_", " ")


def aggregate_plot(scores: Scores) -> Plot | None:
    """Return IQM, mean and optimality gap over tasks per level, and the change against the baseline."""
    if not scores.aggregates:
        return None
    panels = []
    levels = [level for level in scores.section.levels if any(a.level == level for a in scores.aggregates)]
    for title, axis, attribute, form in (
        ("Interquartile mean", "normalised return (higher is better)", "iqm", ".3f"),
        ("Mean", "normalised return (higher is better)", "mean", ".3f"),
        ("Optimality gap", "distance below 1 (lower is better)", "gap", ".3f"),
        ("Change of the mean", f"relative to {scores.baseline}", "change", "+.1%"),
    ):
        rows = []
        for level in levels:
            found = [scores.aggregate(level, method) for method in scores.methods]
            rows.append((_spaced(level), [getattr(a, attribute) if a else None for a in found]))
        if any(e is not None and math.isfinite(e.value) for _, row in rows for e in row):
            zero = 0.0 if attribute == "change" else None
            panels.append(level_panel(title, axis, rows, scores.methods, form, None, False, zero))
    caption = (
        f"Over {len(scores.section.tasks)} tasks, returns divided by 1,000; lines are 95 % stratified "
        f"bootstrap intervals. {conditions_sentence(scores)}"
    )
    return Plot("aggregates", "Aggregates", caption, panels, scores.methods)


def level_plot(scores: Scores) -> Plot:
    """Return one panel of bars per task: mean return per level and method."""
    panels, any_random = [], False
    for task in scores.section.tasks:
        levels = [
            level
            for level in scores.section.levels
            if any(scores.find(task, level, m) for m in scores.methods)
        ]
        rows = []
        for level in levels:
            found = [scores.find(task, level, method) for method in scores.methods]
            rows.append((_spaced(level), [score.mean if score else None for score in found]))
        random = _random_mean(scores, task)
        any_random |= random is not None
        extent = (min(0.0, *(e.low for _, row in rows for e in row if e)), MAX_RETURN)
        panels.append(
            level_panel(
                task, "episode return", rows, scores.methods, ".1f", extent, bars=True, reference=random
            )
        )
    caption = (
        "Mean episode return; lines are 95 % bootstrap intervals, over training seeds, or over episodes "
        f"where there is one seed. {conditions_sentence(scores)}"
    )
    dashed = "uniform random actions" if any_random else ""
    return Plot("levels", "Return per level", caption, panels, scores.methods, dashed)


def _random_mean(scores: Scores, task: str) -> float | None:
    found = [s.cell.average("random_return") for s in scores.cells if s.cell.task == task]
    known = [value for value in found if value is not None]
    return sum(known) / len(known) if known else None


def curve_plot(curves: Sequence[Curve], order: Sequence[str] = ()) -> Plot | None:
    """Return one panel of learning curves per task; methods of ``order`` come first and in that order."""
    if not curves:
        return None
    series = list(dict.fromkeys([*order, *sorted(curve.method for curve in curves)]))
    panels = []
    for task in dict.fromkeys(curve.task for curve in curves):
        panels.append(_curve_panel(task, [curve for curve in curves if curve.task == task], series))
    return Plot("curves", "Learning curves", _curve_caption(curves), panels, series)


def _curve_caption(curves: Sequence[Curve]) -> str:
    kinds = {curve.kind for curve in curves}
    seeds = [len(curve.seeds) for curve in curves]
    repeats = sorted({curve.action_repeat for curve in curves})
    texts = {
        "eval": "evaluations during training with the mean action",
        "train": "training episodes, explored in, averaged over a fortieth of the steps each",
    }
    spread = "; bands are one standard deviation over seeds" if max(seeds) > 1 else ""
    return (
        f"Episode return of {' or '.join(texts[kind] for kind in sorted(kinds))}, mean over "
        f"{min(seeds)}{'' if min(seeds) == max(seeds) else f' to {max(seeds)}'} training "
        f"seed{'' if max(seeds) == 1 else 's'}{spread}. One decision is {' or '.join(map(str, repeats))} "
        f"simulator frame{'' if repeats == [1] else 's'}."
    )


def _curve_panel(task: str, curves: Sequence[Curve], series: Sequence[str]) -> Drawing:
    left, bottom = 46.0, TOP + CURVE_HEIGHT
    drawing = Drawing(WIDTH, bottom + AXIS, f"learning curves of {task}")
    top_value = max(float((c.mean + c.std).max()) for c in curves)
    low_value = min(0.0, *(float(c.mean.min()) for c in curves))
    low_value = (
        low_value if low_value < -0.05 * top_value else 0.0
    )  # an evaluation's few episodes, not a drop
    last = max(int(c.steps[-1]) for c in curves)
    across = [mark for mark in ticks(0, last, 4) if mark <= last]
    up = ticks(low_value, max(top_value, low_value + 1), 5)
    x, y = _scale(0, last, left, WIDTH - RIGHT - 8), _scale(up[0], up[-1], bottom, TOP)
    drawing.text(0, 13, task, "title")
    for mark in up:
        drawing.line(left, y(mark), WIDTH - RIGHT - 8, y(mark), "grid")
        drawing.text(left - 6, y(mark) + 4, _tick(mark, up), "small", "end")
    for mark in across:
        drawing.text(x(mark), bottom + 15, _steps(mark), "small", "middle")
    drawing.text((left + WIDTH - RIGHT) / 2, bottom + 33, "decisions", "small", "middle")
    for curve in curves:
        index = series.index(curve.method)
        colour = f"c{index % SERIES}"
        points = list(zip(curve.steps, curve.mean, curve.std, strict=True))
        if len(curve.seeds) > 1:
            above = [(x(step), y(mean + std)) for step, mean, std in points]
            below = [(x(step), y(mean - std)) for step, mean, std in reversed(points)]
            drawing.path([*above, *below], f"faint {colour}", closed=True)
        drawing.path([(x(step), y(mean)) for step, mean, _ in points], f"line {colour}")
        last_step, last_mean, _ = points[-1]
        drawing.marker(x(last_step), y(last_mean), index, f"{curve.method}: {last_mean:.1f}")
    return drawing


def _steps(value: float) -> str:
    if value >= 1e6:
        return f"{value / 1e6:g} M"
    return f"{value / 1e3:g} k" if value >= 1e3 else f"{value:g}"
