"""What would mislead a reader of a report's tables, said from the results themselves."""

from __future__ import annotations

from evaluation.report.grouping import drawn_source
from evaluation.report.scores import TRAIN, Scores
from evaluation.report.tables import span


def misleading(scores: Scores) -> list[str]:
    """Say what would mislead a reader of these tables; every sentence follows from the results."""
    entries = scores.section.entries
    masker = {str(entry.conditions.masker.get("variant")) for entry in entries}
    seeds = [len(score.cell.runs) for score in scores.cells]
    budgets = {task: _budgets(scores, task) for task in scores.section.tasks}
    uneven = [task for task, found in budgets.items() if len(set(found.values())) > 1]
    sentences = []
    if min(seeds) == 1:
        sentences.append(
            "Some methods have one training seed. Trainings that differ in nothing but the seed often "
            "differ by as much as methods do; one seed cannot tell them apart."
        )
    if 1 < max(seeds) < 5:
        sentences.append(
            f"With {span([s for s in seeds if s > 1], 'training seed')} a bootstrap interval is too narrow: "
            "it resamples the few runs that there are."
        )
    if uneven:
        sentences.append(f"Methods were trained for different numbers of decisions on {', '.join(uneven)}.")
    if any(_is_generated(entry.conditions.level_facts, drawn_source(entry)) for entry in entries):
        sentences.append(
            "Some backgrounds are not the published clips or colours: such returns are not those of the "
            "benchmark and can only be compared with each other."
        )
    if "groundtruth" in masker:
        sentences.append(
            "The masker groundtruth is the simulator's own segmentation: what perfect masks would buy."
        )
    if "tiny" in masker:
        sentences.append(
            "The masker tiny was trained on the simulator's labels of these bodies: no foundation model."
        )
    if TRAIN not in scores.section.levels:
        sentences.append("There are no results on the training scene, so no drop from it can be seen.")
    return sentences


def _budgets(scores: Scores, task: str) -> dict[str, int]:
    return {
        s.cell.method: max(entry.conditions.agent_steps for entry in s.cell.entries)
        for s in scores.cells
        if s.cell.task == task
    }


def _is_generated(facts: dict[str, object], source: str | None) -> bool:
    return source == "procedural" or (source is not None and facts.get("published") is False)
