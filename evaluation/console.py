"""What an evaluation shows on the console: progress, and a table over levels and maskers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from evaluation.results import Conditions, EvaluationResult

TABLE_WIDTH = 160
INTERVAL = 30.0  # seconds between two lines in a log


class EpisodeProgress:
    """Counts episodes of one thing after the other: bars on a terminal, a line now and then in a log.

    Args:
        console: where it goes; None for standard error.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or make_console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("episodes"),
        )
        hidden = not self.console.is_terminal
        self._bars = Progress(
            *columns, TimeElapsedColumn(), console=self.console, transient=True, disable=hidden
        )
        self._bar: TaskID | None = None
        self._what, self._total, self._finished, self._frames = "", 0, 0, 0
        self._line = time.monotonic()

    def __enter__(self) -> EpisodeProgress:
        """Show the bars."""
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the bars."""
        self._bars.stop()

    def begin(self, what: str, total: int, kept: int = 0) -> None:
        """Count for ``what`` from now on: ``total`` episodes, of which ``kept`` are there already."""
        self._what, self._total, self._finished, self._frames = what, total, kept, 0
        self._line = time.monotonic()
        self._bar = self._bars.add_task(what, total=total, completed=kept)
        if kept:
            self.console.print(f"{what}: {kept} of {total} episodes are there already")

    def see(self) -> None:
        """Count one frame; cheap enough for each of them."""
        self._frames += 1
        seconds = time.monotonic() - self._line
        if self._bars.disable and seconds >= INTERVAL:
            done, rate = f"{self._finished} of {self._total} episodes", self._frames / seconds
            self.console.print(f"{self._what}: {done}, {rate:.1f} frames per second")
            self._line, self._frames = time.monotonic(), 0

    def finish(self) -> None:
        """Count one episode that has ended."""
        self._finished += 1
        if self._bar is not None:
            self._bars.advance(self._bar)


def make_console(stderr: bool = False) -> Console:
    """Return a console that does not break lines of a log file at 80 characters."""
    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console.width = TABLE_WIDTH
    return console


def title(results: Sequence[EvaluationResult]) -> str:
    """Say what was evaluated: task, algorithm, masker (where it is one), source of the levels."""
    first = results[0].conditions
    maskers = _maskers(results)
    text = f"{first.task} · {first.algorithm}"
    text += f" · masker {maskers[0]}" if len(maskers) == 1 else ""
    # The level `train` draws nothing from any source.
    drawn = any(_draws_from(result.conditions) for result in results)
    return f"{text} · {first.source} levels" if drawn else text


def _maskers(results: Sequence[EvaluationResult]) -> list[str]:
    return list(dict.fromkeys(str(result.conditions.masker["variant"]) for result in results))


def results_table(results: Sequence[EvaluationResult]) -> Table:
    """Return the table over the levels and maskers of one agent."""
    several = len(_maskers(results)) > 1
    with_points = any(result.point_error is not None for result in results)
    with_random = any(result.random_return is not None for result in results)
    with_success = any(result.success_rate is not None for result in results)
    table = Table(title=title(results), caption=_caption(results), caption_justify="left")
    for name in ["level"] + ["masker"] * several:  # the longest level is worth more than narrow headings
        table.add_column(name, no_wrap=True, overflow="fold")
    names = ["return (mean ± std)", "IQM [95 % interval]"]
    names += (
        ["random"] * with_random
        + ["success"] * with_success
        + ["mask IoU", "recall", "precision", "empty masks"]
    )
    names += ["point error"] * with_points
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    for r in results:
        cells = [f"{r.mean:.1f} ± {r.std:.1f}", f"{r.iqm:.1f} [{r.iqm_low:.1f}, {r.iqm_high:.1f}]"]
        cells += [_number(r.random_return, ".1f")] * with_random
        cells += [_number(r.success_rate, ".0%")] * with_success
        cells += [_number(value, ".2f") for value in (r.mask_iou, r.mask_recall, r.mask_precision)]
        cells += [f"{r.empty_share:.1%}"] + [_number(r.point_error, ".1f")] * with_points
        table.add_row(r.conditions.level, *[r.conditions.masker["variant"]] * several, *cells)
    return table


def _caption(results: Sequence[EvaluationResult]) -> str:
    first, c = results[0], results[0].conditions
    updates = "unknown" if c.updates is None else f"{c.updates:,}"
    drawn = dict.fromkeys(_draws_from(result.conditions) for result in results)
    sentences = [
        f"{_count(first.episodes, 'episode')} per level, seed {c.seed}, protocol {c.protocol}.",
        f"Trained for {c.agent_steps:,} decisions = {c.frames:,} frames "
        f"(action repeat {c.action_repeat}), {updates} updates.",
    ]
    if facts := _agent_facts(c.agent):
        sentences.append(f"Agent: {facts}.")
    if any(drawn):
        sentences.append(f"Backgrounds from {c.source}: {', '.join(filter(None, drawn))}.")
    if first.random_returns is not None:
        sentences.append(f"Random: mean of {_count(len(first.random_returns), 'episode')} of random actions.")
    if any(result.point_error is not None for result in results):
        sentences.append("Point error: pixels from the masker's points to the body points of the reference.")
    return " ".join(sentences)


def _agent_facts(agent: dict[str, Any]) -> str:
    """Say what the agent was made of: ``encoder weights random, overlay source generated textures``."""
    named = {key: value.get("name") if isinstance(value, dict) else value for key, value in agent.items()}
    hidden = ("class", "encoder_sha256", "encoder_seed")
    return ", ".join(f"{key.replace('_', ' ')} {named[key]}" for key in sorted(named) if key not in hidden)


def _draws_from(conditions: Conditions) -> str:
    """Say what a level draws from, such as ``video_hard 100 clips``; empty for the level ``train``."""
    facts, what = conditions.level_facts, []
    if "colors" in facts:
        what.append(_count(facts["colors"], "colour"))
    if "clips" in facts:
        what.append(_count(facts["clips"], "clip"))
        if conditions.source == "dmcgb" and not facts.get("published"):
            what[-1] += " (not the published benchmark)"
    return f"{conditions.level} {' and '.join(what)}" if what else ""


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
