"""A report as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evaluation.report.tables import Table, Text

if TYPE_CHECKING:
    from evaluation.report.build import Chapter, Report


def markdown_page(report: Report) -> str:
    """Return the whole report; plots and pictures are linked beside it."""
    from evaluation.report.build import named_plots

    lines = [f"# {report.options.title}", ""]
    plots = iter(named_plots(report))
    for chapter in report.chapters:
        lines += _chapter(chapter, [next(plots)[0] for _ in chapter.plots])
    if report.curve_plot is not None:
        lines += ["## Learning curves", "", report.curve_plot.caption, ""]
        lines += [f"![{report.curve_plot.title}](plots/{next(plots)[0]}.svg)", ""]
    if report.pictures:
        lines += ["## What the agents saw", ""]
        for picture in report.pictures:
            lines += [f"![{picture.caption}](pictures/{picture.name})", "", picture.caption, ""]
    if report.more_pictures:
        lines += [f"{report.more_pictures} more pictures lie beside the results.", ""]
    return "\n".join(lines)


def _chapter(chapter: Chapter, plots: list[str]) -> list[str]:
    title = f" ({chapter.section.title})" if chapter.section.title else ""
    lines = [f"## Returns{title}", ""]
    levels, *others = [
        [f"![{plot.title}](plots/{name}.svg)", "", plot.caption, ""]
        for name, plot in zip(plots, chapter.plots, strict=True)
    ]
    lines += levels
    for table in chapter.returns:
        lines += _section(table, 3)
    lines += [f"## {chapter.over_tasks.title}", "", *(line for plot in others for line in plot)]
    lines += _body(chapter.over_tasks)
    lines += ["## Statistics", ""]
    for table in chapter.statistics:
        lines += _section(table, 3)
    for found in ([chapter.quality] if chapter.quality else []) + chapter.published + [chapter.methods]:
        lines += _section(found, 2)
    if chapter.caveats:
        lines += ["## What would mislead here", "", *(f"- {text}" for text in chapter.caveats), ""]
    return lines


def _section(table: Table, depth: int) -> list[str]:
    return [f"{'#' * depth} {table.title}", "", *_body(table)]


def _body(table: Table) -> list[str]:
    notes = [line for note in table.notes for line in (note, "")]
    return [table.caption, "", markdown_table(table), "", *notes]


def markdown_table(table: Table) -> str:
    """Return the table alone; numbers are aligned to the right, groups get a row of their own."""
    rules = ["---" if index < table.labels else "---:" for index in range(len(table.header))]
    lines = [_row(table.header), _row(rules)]
    for index, row in enumerate(table.rows):
        if title := table.groups.get(index):
            lines.append(_row([f"*{title}*", *[""] * (len(table.header) - 1)]))
        lines.append(_row([_cell(cell) for cell in row]))
    return "\n".join(lines)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Text) -> str:
    text = cell.text.replace("|", "\\|")
    text = f"**{text}**" if cell.strong else text
    return f"{text} {cell.detail}".rstrip()
