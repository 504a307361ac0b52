"""A report as CSV tables and as JSON."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from evaluation.report.scores import QUALITIES, Aggregate, Estimate, Score
from evaluation.results import HEADLINE

if TYPE_CHECKING:
    from evaluation.report.build import Report

REPORT_VERSION = 1
MEASURES = (
    "episodes",
    "mean",
    "std",
    "iqm",
    "iqm_low",
    "iqm_high",
    "success_rate",
    *QUALITIES,
    "random_return",
)
ALL_TASKS = "(all)"
Row = dict[str, Any]


def result_rows(report: Report) -> list[Row]:
    """Return one row per result file: section, method, what the file says of itself, its means, its path."""
    rows = []
    for chapter in report.chapters:
        for entry in chapter.section.entries:
            headline = entry.conditions.headline()
            facts = {name: headline[name] for name in HEADLINE if name not in ("level", "masker")}
            row = {"section": chapter.section.title, "method": entry.method, "level": entry.level, **facts}
            row["masker"] = entry.conditions.masker.get("variant")
            row |= {name: headline[name] for name in ("key", "fingerprint", "training_fingerprint")}
            row |= {name: getattr(entry.result, name) for name in MEASURES}
            rows.append({**row, "date": entry.result.date, "file": str(entry.path)})
    return rows


def score_rows(report: Report) -> list[Row]:
    """Return one row per task, level and method, and one per level and method over all tasks."""
    rows = []
    for chapter in report.chapters:
        title, versus = chapter.section.title, chapter.scores.baseline
        rows += [{"section": title, **_score_row(score, versus)} for score in chapter.scores.cells]
        rows += [{"section": title, **_aggregate_row(a, versus)} for a in chapter.scores.aggregates]
    return rows


def _score_row(score: Score, baseline: str | None) -> Row:
    cell = score.cell
    return {
        "task": cell.task,
        "level": cell.level,
        "method": cell.method,
        "tasks": 1,
        "seeds": len(cell.runs),
        "episodes": cell.episodes,
        "over": "runs" if cell.over_runs else "episodes",
        "scale": "return",
        "std": cell.std,
        **_spread("mean", score.mean),
        **_spread("iqm", score.iqm),
        **_spread("optimality_gap", score.gap),
        "baseline": baseline,
        **_spread("change", score.change),
        **_spread("probability_of_improvement", None),
        "change_from_train": score.drop,
        "mean_rank": None,
        **{name: cell.average(name) for name in QUALITIES},
        "random_return": cell.average("random_return"),
    }


def _aggregate_row(a: Aggregate, baseline: str | None) -> Row:
    return {
        "task": ALL_TASKS,
        "level": a.level,
        "method": a.method,
        "tasks": len(a.tasks),
        "seeds": a.runs[0],
        "over": "runs" if a.over_runs else "episodes",
        "scale": "normalised",
        **_spread("mean", a.mean),
        **_spread("iqm", a.iqm),
        **_spread("optimality_gap", a.gap),
        "baseline": baseline,
        **_spread("change", a.change),
        **_spread("probability_of_improvement", a.chance),
        "mean_rank": a.rank,
    }


def _spread(name: str, estimate: Estimate | None) -> Row:
    values = (estimate.value, estimate.low, estimate.high) if estimate else (None, None, None)
    return dict(zip((name, f"{name}_low", f"{name}_high"), map(_finite, values), strict=True))


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def to_csv(rows: Sequence[Row]) -> str:
    """Return rows as CSV with the columns of all of them; unknown values are empty."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows([{k: "" if v is None else v for k, v in row.items()} for row in rows])
    return buffer.getvalue()


def record(report: Report) -> Row:
    """Return everything as JSON values: options, results, scores, tables and curves."""
    options = dataclasses.asdict(report.options)
    options["paths"] = [str(path) for path in report.options.paths]
    return {
        "report_version": REPORT_VERSION,
        "options": {key: list(v) if isinstance(v, tuple) else v for key, v in options.items()},
        "results": result_rows(report),
        "scores": score_rows(report),
        "sections": [
            {
                "title": chapter.section.title,
                "tables": [_table(table) for table in chapter.tables],
                "caveats": chapter.caveats,
            }
            for chapter in report.chapters
        ],
        "curves": [
            {
                "task": curve.task,
                "method": curve.method,
                "kind": curve.kind,
                "seeds": list(curve.seeds),
                "action_repeat": curve.action_repeat,
                "agent_steps": curve.steps.tolist(),
                "mean": curve.mean.tolist(),
                "std": curve.std.tolist(),
            }
            for curve in report.curves
        ],
    }


def _table(table: Any) -> Row:
    rows = [[f"{cell.text} {cell.detail}".rstrip() for cell in row] for row in table.rows]
    groups = {str(index): title for index, title in table.groups.items() if title}
    return {
        "title": table.title,
        "caption": table.caption,
        "header": table.header,
        "rows": rows,
        "groups": groups,
        "notes": table.notes,
    }
