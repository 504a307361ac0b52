"""Figures that others have published, kept apart from ours in every table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.files import read_json
from evaluation.report.grouping import drawn_source
from evaluation.report.scores import Scores
from evaluation.report.tables import ABSENT, Table, Text, number, plain, span

DATA = Path(__file__).parent / "published.json"
FRAMES_TRAP = (
    "Budgets are counted differently. The benchmark's code calls 500,000 agent decisions '500k frames' (at "
    "action repeat 4, 8 on cartpole and 2 on finger: 1 to 4 million simulator frames); DrQ-v2 and SAM-G "
    "count simulator frames, so that their '500k frames' at action repeat 2 are 250,000 decisions. Compare "
    "decisions."
)


@dataclass(frozen=True)
class Source:
    """Where figures come from.

    Attributes:
        name: short key.
        citation: publication and table.
        seeds: training seeds; None where not found.
        stated_budget: the training budget in the publication's own words; None where not found.
        decisions: agent decisions, where the publication's code was checked.
        action_repeat: simulator steps per decision by domain, ``default`` for the others; None where unknown.
        note: what a reader must know.
    """

    name: str
    citation: str
    seeds: int | None
    stated_budget: str | None
    decisions: int | None
    action_repeat: Mapping[str, int] | None
    note: str

    def frames(self, task: str) -> int | None:
        """Return the simulator frames of a task; None where they are not known."""
        if self.decisions is None or self.action_repeat is None:
            return None
        return self.decisions * self.action_repeat.get(task.split("_")[0], self.action_repeat["default"])


@dataclass(frozen=True)
class Figures:
    """One method's returns on one level; task -> (mean, std or None)."""

    source: Source
    level: str
    method: str
    returns: Mapping[str, tuple[float, float | None]]


def load_published(path: Path = DATA) -> list[Figures]:
    """Read the figures of others.

    Raises:
        InputError: the file is missing or not of its form.
    """
    content = read_json(path, "file of published figures")
    try:
        sources = {name: Source(name, **facts) for name, facts in content["sources"].items()}
        return [_figures(row, sources) for row in content["rows"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} has a row or source that is not understood: {error}.", "Restore it."
        ) from error


def _figures(row: Mapping[str, Any], sources: Mapping[str, Source]) -> Figures:
    returns = {task: (float(v["mean"]), v.get("std")) for task, v in row["returns"].items()}
    return Figures(sources[row["source"]], row["level"], row["method"], returns)


def published_tables(scores: Scores, figures: Sequence[Figures]) -> list[Table]:
    """Return, for every level that someone has published figures on, theirs beneath ours.

    Only tasks that ours have on that level are shown, and nothing is averaged over both.
    """
    tables = []
    for level in scores.section.levels:
        here = [s.cell.task for s in scores.cells if s.cell.level == level]
        tasks = [task for task in scores.section.tasks if task in here]
        theirs = [f for f in figures if f.level == level and f.returns.keys() & set(tasks)]
        if theirs:
            tables.append(_table(scores, level, tasks, theirs))
    return tables


def _table(scores: Scores, level: str, tasks: Sequence[str], theirs: Sequence[Figures]) -> Table:
    order = {name: index + 1 for index, name in enumerate(dict.fromkeys(f.source.name for f in theirs))}
    ours = _our_rows(scores, level, tasks)
    rows = [*ours, *(_their_row(figures, tasks, order) for figures in theirs)]
    sources = {f.source.name: f.source for f in theirs}
    notes = [f"[{index}] {_source_note(sources[name])}" for name, index in order.items()]
    caption = (
        f"Level {level.replace('_', ' ')}: episode return, mean ± std. Figures beneath the second heading "
        "are others', copied from the sources named, and enter no other number of this report."
    )
    if differences := _differences(scores, level):
        caption += f" Ours are not of the published benchmark: {differences}."
    header = ["method", *tasks, "decisions", "frames", "seeds", "source"]
    groups = {0: "This report", len(ours): "Published by others"}
    return Table(
        level.replace("_", " "),
        caption,
        header,
        rows,
        1,
        groups,
        [FRAMES_TRAP, *notes],
    )


def _our_rows(scores: Scores, level: str, tasks: Sequence[str]) -> list[list[Text]]:
    rows = []
    for method in scores.methods:
        found = {task: score for task in tasks if (score := scores.find(task, level, method))}
        if not found:
            continue
        cells = [found[task].cell if task in found else None for task in tasks]
        known = [cell for cell in cells if cell]
        conditions = [entry.conditions for cell in known for entry in cell.entries]
        returns = [f"{number(cell.mean)} ± {number(cell.std)}" if cell else ABSENT for cell in cells]
        budget = [span([c.agent_steps for c in conditions]), span([c.frames for c in conditions])]
        rows.append(
            plain([method, *returns, *budget, span([len(cell.runs) for cell in known]), "this report"])
        )
    return rows


def _their_row(figures: Figures, tasks: Sequence[str], order: Mapping[str, int]) -> list[Text]:
    source = figures.source
    cells = [_return(figures.returns.get(task)) for task in tasks]
    frames = [f for task in tasks if task in figures.returns and (f := source.frames(task)) is not None]
    stated = f"“{source.stated_budget}”" if source.stated_budget else ABSENT
    decisions = stated if source.decisions is None else f"{source.decisions:,}"
    known = [decisions, span(frames) if frames else ABSENT, str(source.seeds or ABSENT)]
    return plain([figures.method, *cells, *known, f"[{order[source.name]}]"])


def _return(value: tuple[float, float | None] | None) -> str:
    if value is None:
        return ABSENT
    mean, std = value
    return f"{mean:.0f}" if std is None else f"{mean:.0f} ± {std:.0f}"


def _source_note(source: Source) -> str:
    seeds = f"{source.seeds} seeds" if source.seeds else "number of seeds not found"
    budget = f"budget stated: {source.stated_budget}" if source.stated_budget else "budget not found"
    return f"{source.citation}; {seeds}; {budget}. {source.note}".strip()


def _differences(scores: Scores, level: str) -> str:
    """Say in what our results on a level are not the published benchmark's; empty where nothing is known."""
    entries = [entry for s in scores.cells if s.cell.level == level for entry in s.cell.entries]
    found = {f"protocol {e.conditions.protocol}" for e in entries if e.conditions.protocol != "dmcgb"}
    found |= {f"source {source}" for e in entries if (source := drawn_source(e)) not in (None, "dmcgb")}
    if any(entry.conditions.level_facts.get("published") is False for entry in entries) and not found:
        found.add("other clips")
    return ", ".join(sorted(found))
