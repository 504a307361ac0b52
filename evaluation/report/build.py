"""From paths to a report, and from a report to its files."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from common.errors import ConfigError
from common.files import write_bytes, write_json
from evaluation.report.caveats import misleading
from evaluation.report.curves import Curve, learning_curves
from evaluation.report.grouping import Section, check_split, make_sections
from evaluation.report.loading import Entry, Inputs, Picture, parse_labels, read_inputs
from evaluation.report.pictures import Embedded, embed_pictures
from evaluation.report.plots import Plot, aggregate_plot, curve_plot, level_plot
from evaluation.report.published import load_published, published_tables
from evaluation.report.scores import Scores, check_baseline, compute_scores, work
from evaluation.report.tables import (
    Table,
    aggregate_table,
    methods_table,
    quality_table,
    returns_tables,
    statistics_table,
)
from evaluation.results import refuse_existing
from evaluation.statistics import BOOTSTRAP_REPLICATES

PICTURES = 12
FILES = ("report.md", "report.csv", "scores.csv", "report.json", "report.html")


@dataclass(frozen=True)
class ReportOptions:
    """What a report is made of and how.

    Attributes:
        paths: result files, folders of them, run directories.
        labels: ``NAME=PATH``: what to call everything at or below a path.
        baseline: method that the others are compared with, or None.
        split: names of ``grouping.RULES`` in which results may differ.
        title: of the report.
        published: show figures of others, too.
        pictures: how many pictures at most.
        replicates: resamples of each bootstrap.
        seed: of every bootstrap.
    """

    paths: Sequence[str | Path]
    labels: Sequence[str] = ()
    baseline: str | None = None
    split: Sequence[str] = ()
    title: str = "Results"
    published: bool = True
    pictures: int = PICTURES
    replicates: int = BOOTSTRAP_REPLICATES
    seed: int = 0


@dataclass(frozen=True)
class Chapter:
    """What a report says about one section.

    Attributes:
        section: its results.
        scores: their numbers.
        returns: compact tables, one per task.
        over_tasks: aggregates.
        statistics: long tables, one per task.
        quality: of the masks; None where nothing masks.
        published: figures of others beside ours, one table per level.
        methods: what was evaluated.
        plots: of the numbers.
        caveats: what would mislead.
    """

    section: Section
    scores: Scores
    returns: list[Table]
    over_tasks: Table
    statistics: list[Table]
    quality: Table | None
    published: list[Table]
    methods: Table
    plots: list[Plot]
    caveats: list[str]

    @property
    def tables(self) -> list[Table]:
        """All tables, in reading order."""
        quality = [self.quality] if self.quality else []
        return [*self.returns, self.over_tasks, *self.statistics, *quality, *self.published, self.methods]


@dataclass(frozen=True)
class Report:
    """Everything that is written.

    Attributes:
        options: what was asked for.
        entries: all result files.
        chapters: one per section.
        curves: learning curves.
        curve_plot: their plot; None where no run has any.
        pictures: those that were found.
        more_pictures: how many were found besides.
    """

    options: ReportOptions
    entries: list[Entry]
    chapters: list[Chapter]
    curves: list[Curve]
    curve_plot: Plot | None
    pictures: list[Embedded] = field(default_factory=list)
    more_pictures: int = 0


def build_report(options: ReportOptions, console: Console | None = None) -> Report:
    """Read, check and compute everything; nothing is written.

    Args:
        options: what to do.
        console: where the progress bar goes.

    Raises:
        InputError: files cannot be used.
        ConfigError: results do not belong together, or an option is impossible.
    """
    check_split(options.split)
    if options.replicates < 1 or options.pictures < 0:
        raise ConfigError(
            "--replicates must be at least 1 and --pictures at least 0.", "See report.py --help."
        )
    inputs = read_inputs(options.paths, parse_labels(options.labels))
    sections = make_sections(inputs.entries, options.split) if inputs.entries else []
    check_baseline(sections, options.baseline)
    figures = load_published() if options.published else []
    chapters = []
    with _progress(sum(map(work, sections)), console) as tick:
        for section in sections:
            scores = compute_scores(section, options.baseline, options.replicates, options.seed, tick)
            chapters.append(_chapter(section, scores, published_tables(scores, figures)))
    curves = learning_curves(inputs.runs)
    pictures, more = _chosen_pictures(inputs, options.pictures)
    return Report(
        options, inputs.entries, chapters, curves, curve_plot(curves, _order(chapters)), pictures, more
    )


def _chapter(section: Section, scores: Scores, published: list[Table]) -> Chapter:
    over_tasks = aggregate_plot(scores)
    return Chapter(
        section,
        scores,
        returns_tables(scores),
        aggregate_table(scores),
        [statistics_table(scores, task) for task in section.tasks],
        quality_table(scores),
        published,
        methods_table(scores),
        [level_plot(scores), *([over_tasks] if over_tasks else [])],
        misleading(scores),
    )


def _order(chapters: Sequence[Chapter]) -> list[str]:
    """Return the methods of all tables in their order, so that a colour means one method everywhere."""
    return list(dict.fromkeys(method for chapter in chapters for method in chapter.scores.methods))


def _chosen_pictures(inputs: Inputs, most: int) -> tuple[list[Embedded], int]:
    # The first of every method and task before the second of any.
    seen: Counter[str] = Counter()
    turns: list[tuple[int, int, Picture]] = []
    for picture in inputs.pictures:
        turns.append((seen[picture.whose], len(turns), picture))
        seen[picture.whose] += 1
    chosen = [picture for *_, picture in sorted(turns, key=lambda turn: turn[:2])][:most]
    return embed_pictures(chosen), len(inputs.pictures) - len(chosen)


@contextlib.contextmanager
def _progress(total: int, console: Console | None) -> Iterator[Callable[[], None]]:
    console = console or Console(stderr=True, highlight=False)
    columns = (TextColumn("bootstrap"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=total)
        yield lambda: progress.advance(bar)


def check_output(directory: Path, overwrite: bool) -> None:
    """Raise ``ConfigError`` when a report is there already and may not be replaced."""
    refuse_existing([directory / name for name in FILES], overwrite)


def write_report(report: Report, directory: Path, overwrite: bool = False) -> list[Path]:
    """Write ``FILES``, ``plots/*.svg`` and ``pictures/*.png``; every file is whole or absent.

    Args:
        report: what to write.
        directory: where; made if need be.
        overwrite: replace an earlier report.

    Returns:
        The paths of ``FILES``.

    Raises:
        ConfigError: a report is there already.
    """
    from evaluation.report.html import html_page
    from evaluation.report.markdown import markdown_page
    from evaluation.report.records import record, result_rows, score_rows, to_csv

    check_output(directory, overwrite)
    for name, plot in named_plots(report):
        write_bytes(directory / "plots" / f"{name}.svg", plot.whole().file().encode())
    for picture in report.pictures:
        write_bytes(directory / "pictures" / picture.name, picture.png)
    write_bytes(directory / "report.md", markdown_page(report).encode())
    write_bytes(directory / "report.csv", to_csv(result_rows(report)).encode())
    write_bytes(directory / "scores.csv", to_csv(score_rows(report)).encode())
    write_json(directory / "report.json", record(report))
    write_bytes(directory / "report.html", html_page(report).encode())
    return [directory / name for name in FILES]


def named_plots(report: Report) -> list[tuple[str, Plot]]:
    """Return every plot with the name of its file; those of a second section end in ``-2``."""
    named = []
    for index, chapter in enumerate(report.chapters):
        suffix = f"-{index + 1}" if index else ""
        named += [(f"{plot.name}{suffix}", plot) for plot in chapter.plots]
    return [*named, *([(report.curve_plot.name, report.curve_plot)] if report.curve_plot else [])]
