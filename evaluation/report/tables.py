"""Tables of a report, as plain cells that Markdown, HTML and tests read alike."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from evaluation.report.grouping import drawn_source
from evaluation.report.scores import QUALITIES, Cell, Estimate, Score, Scores

ABSENT = "–"
ONE_RUN = "†"
BUDGET = ("agent_steps", "frames", "action_repeat")


@dataclass(frozen=True)
class Text:
    """Content of a cell: ``text``, whether it stands out, and what belongs to it in smaller print."""

    text: str
    strong: bool = False
    detail: str = ""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        title: short.
        caption: the conditions under which the numbers hold, in sentences.
        header: names of the columns.
        rows: cells as wide as the header.
        labels: how many columns, from the left, are words; the others are numbers.
        groups: index of a row -> title of the group that begins with it.
        notes: footnotes.
    """

    title: str
    caption: str
    header: list[str]
    rows: list[list[Text]]
    labels: int = 1
    groups: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def number(value: float | None, form: str = ".1f") -> str:
    """Return a number, or a dash where it is not known or not defined."""
    return ABSENT if value is None or not math.isfinite(value) else format(value, form).replace("-", "−")


def interval(estimate: Estimate | None, form: str = ".1f") -> str:
    """Return such as ``612.3 [598.0, 630.1]``."""
    if estimate is None or not math.isfinite(estimate.value):
        return ABSENT
    return f"{number(estimate.value, form)} [{number(estimate.low, form)}, {number(estimate.high, form)}]"


def estimate_cell(estimate: Estimate | None, form: str = ".1f") -> Text:
    """Return a number with its interval in smaller print."""
    whole = interval(estimate, form)
    value, _, ends = whole.partition(" ")
    return Text(value, detail=ends)


def plain(cells: Sequence[str | Text]) -> list[Text]:
    """Return cells of which none stands out, unless it is a ``Text`` that does."""
    return [cell if isinstance(cell, Text) else Text(cell) for cell in cells]


def span(values: Sequence[int], unit: str = "") -> str:
    """Return such as ``3`` or ``1–3``, with a unit in the plural unless it is one."""
    low, high = min(values), max(values)
    text = f"{low:,}" if low == high else f"{low:,}–{high:,}"
    return f"{text} {unit}{'' if high == 1 else 's'}" if unit else text


def conditions_sentence(scores: Scores, tasks: Sequence[str] | None = None) -> str:
    """Say under which conditions the results of a section (or of some of its tasks) were made."""
    chosen = [s.cell for s in scores.cells if tasks is None or s.cell.task in tasks]
    entries = [entry for cell in chosen for entry in cell.entries]
    sources = sorted({source for entry in entries if (source := drawn_source(entry))})
    protocols = sorted({entry.conditions.protocol for entry in entries})
    drawn = f", levels drawn from {' and '.join(sources)}" if sources else ""
    budgets = sorted({(e.conditions.agent_steps, e.conditions.frames) for e in entries})
    trained = "; ".join(f"{steps:,} decisions = {frames:,} frames" for steps, frames in budgets[:4])
    more = f" and {len(budgets) - 4} other budgets" if len(budgets) > 4 else ""
    return (
        f"Protocol {' and '.join(protocols)}{drawn}; "
        f"{span([len(cell.runs) for cell in chosen], 'training seed')}, "
        f"{span([entry.result.episodes for entry in entries], 'episode')} per seed and level; trained for "
        f"{trained}{more}."
    )


def returns_tables(scores: Scores) -> list[Table]:
    """Return one compact table per task: methods by levels, mean ± std, the highest mean in bold."""
    tables = []
    for task in scores.section.tasks:
        levels = [level for level in scores.section.levels if _any(scores, task, level)]
        methods = [m for m in scores.methods if any(scores.find(task, level, m) for level in levels)]
        best = {level: _best(scores, task, level) for level in levels}
        rows = []
        for method in methods:
            found = [scores.find(task, level, method) for level in levels]
            cells = [
                Text(_mean_std(score), strong=_is_best(score, best[level]))
                for level, score in zip(levels, found, strict=True)
            ]
            rows.append([Text(method), *cells])
        random = _random_row(scores, task, levels)
        rows += [random] if random else []
        caption = (
            "Episode return, mean ± standard deviation over training seeds (episodes of a seed averaged "
            f"first). {conditions_sentence(scores, [task])}"
        )
        notes = _one_run_note(scores, [task])
        if len(methods) > 1:
            notes.append("Bold: the highest mean of a level, which says nothing about significance.")
        tables.append(Table(task, caption, ["method", *map(_spaced, levels)], rows, notes=notes))
    return tables


def _spaced(level: str) -> str:
    return level.replace("_", " ").replace("+", " + ")


def _any(scores: Scores, task: str, level: str) -> bool:
    return any(scores.find(task, level, method) for method in scores.methods)


def _best(scores: Scores, task: str, level: str) -> float | None:
    """Return the highest mean of a level, None where there is nothing to compare."""
    found = [score.mean.value for method in scores.methods if (score := scores.find(task, level, method))]
    return max(found) if len(set(found)) > 1 else None


def _is_best(score: Score | None, best: float | None) -> bool:
    return score is not None and score.mean.value == best


def _mark(score: Score) -> str:
    return "" if score.cell.over_runs else f" {ONE_RUN}"


def _mean_std(score: Score | None) -> str:
    return ABSENT if score is None else f"{number(score.mean.value)} ± {number(score.cell.std)}{_mark(score)}"


def _random_row(scores: Scores, task: str, levels: Sequence[str]) -> list[Text] | None:
    """Return the row of uniform random actions, where they were measured."""
    means = []
    for level in levels:
        found = [
            s.cell.average("random_return") for m in scores.methods if (s := scores.find(task, level, m))
        ]
        known = [value for value in found if value is not None]
        means.append(sum(known) / len(known) if known else None)
    return plain(["random actions", *(number(mean) for mean in means)]) if any(means) else None


def _one_run_note(scores: Scores, tasks: Sequence[str]) -> list[str]:
    if all(s.cell.over_runs for s in scores.cells if s.cell.task in tasks):
        return []
    return [
        f"{ONE_RUN} One training seed only: spread and interval are over its episodes and say nothing about "
        "what another training seed would give."
    ]


def statistics_table(scores: Scores, task: str) -> Table:
    """Return the long table of a task: everything that is computed per level and method."""
    header = ["method", "mean ± std", "mean", "IQM", "optimality gap"]
    header += ["vs baseline"] if scores.baseline else []
    header += ["vs train", "seeds", "episodes"]
    rows, levels = [], []
    for score in (s for s in scores.cells if s.cell.task == task):
        cell = score.cell
        cells: list[str | Text] = [cell.method, _mean_std(score), estimate_cell(score.mean)]
        cells += [estimate_cell(score.iqm), estimate_cell(score.gap, ".3f")]
        cells += [estimate_cell(score.change, "+.1%")] if scores.baseline else []
        rows.append(plain([*cells, number(score.drop, "+.1%"), str(len(cell.runs)), str(cell.episodes)]))
        levels.append(_spaced(cell.level))
    few = any(cell.over_runs and len(cell.runs) < 4 for cell in _cells(scores, task))
    caption = (
        "In brackets 95 % intervals of the bootstrap. IQM: mean of the middle "
        f"half{', which of fewer than four runs is the mean' if few else ''}. Optimality gap: mean distance "
        f"below a return of 1,000, as a share of it.{_baseline_sentence(scores)} vs train: change of the "
        f"mean from the training scene. {conditions_sentence(scores, [task])}"
    )
    return Table(task, caption, header, rows, 1, _groups(levels), _one_run_note(scores, [task]))


def _cells(scores: Scores, task: str) -> list[Cell]:
    return [score.cell for score in scores.cells if score.cell.task == task]


def _baseline_sentence(scores: Scores) -> str:
    return f" vs baseline: change of the mean against {scores.baseline}." if scores.baseline else ""


def _groups(names: Sequence[str]) -> dict[int, str]:
    """Return where a new name begins."""
    return {i: name for i, name in enumerate(names) if i == 0 or name != names[i - 1]}


def aggregate_table(scores: Scores) -> Table:
    """Return the table over tasks: level and method."""
    header = ["method", "IQM", "mean", "optimality gap", "mean rank"]
    header += ["vs baseline", "P(better)"] if scores.baseline else []
    header += ["tasks", "seeds"]
    rows = []
    for a in scores.aggregates:
        cells: list[str | Text] = [a.method + ("" if a.over_runs else f" {ONE_RUN}")]
        cells += [estimate_cell(e, ".3f") for e in (a.iqm, a.mean, a.gap)]
        cells += [number(a.rank, ".2f")]
        cells += [estimate_cell(a.change, "+.1%"), estimate_cell(a.chance, ".2f")] if scores.baseline else []
        rows.append(plain([*cells, str(len(a.tasks)), span(a.runs)]))
    better = (
        " P(better): chance that a run is better than a run of it on the same task."
        if scores.baseline
        else ""
    )
    caption = (
        f"Returns divided by 1,000, over {_task_list(scores)}; in brackets 95 % intervals of the bootstrap "
        f"over training seeds, stratified by task.{_baseline_sentence(scores)}{better} "
        f"{conditions_sentence(scores)}"
    )
    notes = [
        f"On {_spaced(level)} without {', '.join(tasks)}, which not every method was evaluated on."
        for level, tasks in scores.left_out.items()
    ]
    if any(not a.over_runs for a in scores.aggregates):
        notes.append(
            f"{ONE_RUN} A task has one training seed: scores are single episodes, and the interval says "
            "nothing about other training seeds."
        )
    levels = [_spaced(a.level) for a in scores.aggregates]
    return Table("Aggregates", caption, header, rows, 1, _groups(levels), notes)


def _task_list(scores: Scores) -> str:
    tasks = scores.section.tasks
    return f"{len(tasks)} tasks ({', '.join(tasks)})" if len(tasks) > 1 else f"one task ({tasks[0]})"


def quality_table(scores: Scores) -> Table | None:
    """Return how good the masks were, or None where no method masks."""
    header = ["method", "IoU", "recall", "precision", "empty masks", "point error (px)"]
    forms = dict(zip(QUALITIES, (".3f", ".3f", ".3f", ".2%", ".1f"), strict=True))
    rows, groups = [], []
    for score in scores.cells:
        cell = score.cell
        if all(entry.conditions.masker.get("variant") == "none" for entry in cell.entries):
            continue
        values = [number(cell.average(name), form) for name, form in forms.items()]
        rows.append(plain([cell.method, *values]))
        groups.append(f"{cell.task}, {_spaced(cell.level)}")
    if not rows:
        return None
    caption = (
        "Means over frames, then episodes, then training seeds, against the simulator's own segmentation. "
        "Recall: share of the foreground that is kept; precision: share of the mask that is foreground; "
        "empty: frames in which the masker found nothing; point error: distance of the positive points from "
        f"the body points that the reference's points lie on. {conditions_sentence(scores)}"
    )
    return Table("Mask quality", caption, header, rows, 1, _groups(groups))


def methods_table(scores: Scores) -> Table:
    """Return what each method was: budget, seeds, masker and where it came from."""
    header = ["method", "decisions", "frames", "repeat", "updates", "seeds", "evaluation seeds", "masker"]
    rows, groups = [], []
    for task in scores.section.tasks:
        for method in scores.methods:
            cells = [s.cell for s in scores.cells if (s.cell.task, s.cell.method) == (task, method)]
            conditions = [entry.conditions for cell in cells for entry in cell.entries]
            if not conditions:
                continue
            updates = [c.updates for c in conditions if c.updates is not None]
            numbers = [span([getattr(c, name) for c in conditions]) for name in BUDGET]
            seeds = [_listed({getattr(c, name) for c in conditions}) for name in ("train_seed", "seed")]
            used = _listed({str(c.masker.get("fingerprint"))[:12] for c in conditions})
            rows.append(plain([method, *numbers, span(updates) if updates else ABSENT, *seeds, used]))
            groups.append(task)
    caption = (
        "What was evaluated. Decisions are actions of the agent, frames are simulator steps (decisions "
        "times action repeat); masker: the first digits of its fingerprint, which covers weights, reference "
        "and method."
    )
    return Table("Methods", caption, header, rows, 1, _groups(groups))


def _listed(values: Iterable[int | str]) -> str:
    return ", ".join(map(str, sorted(values)))  # type: ignore[type-var]
