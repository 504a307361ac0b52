"""A report as one HTML page that needs nothing else: no network, no script, no file beside it."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.report.pictures import Embedded
from evaluation.report.plots import Plot
from evaluation.report.svg import Drawing, theme_css
from evaluation.report.tables import Table, Text, span

if TYPE_CHECKING:
    from evaluation.report.build import Chapter, Report

CSS = Path(__file__).parent / "page.css"
KEY_WIDTH = 340.0  # fits a phone


def html_page(report: Report) -> str:
    """Return the whole page."""
    parts: list[tuple[str, str]] = []  # title in the contents, HTML
    for chapter in report.chapters:
        parts += _chapter(chapter)
    if report.curve_plot is not None:
        parts.append(("Learning curves", _plot(report.curve_plot)))
    if report.pictures or report.more_pictures:
        parts.append(("What the agents saw", _pictures(report.pictures, report.more_pictures)))
    anchors = _anchors([title for title, _ in parts])
    contents = "".join(
        f'<li><a href="#{a}">{escape(title)}</a></li>' for a, (title, _) in zip(anchors, parts, strict=True)
    )
    body = "".join(
        f'<section id="{a}"><h2>{escape(title)}</h2>{text}</section>'
        for a, (title, text) in zip(anchors, parts, strict=True)
    )
    title = escape(report.options.title)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>{title}</title><style>\n{theme_css()}{CSS.read_text()}</style></head><body><header><h1>{title}</h1>{_facts(report)}</header>"
        f'<nav aria-label="Contents"><ul>{contents}</ul></nav><main>{body}</main></body></html>\n'
    )


def _anchors(titles: list[str]) -> list[str]:
    """Return a different anchor for every title."""
    anchors: list[str] = []
    for title in titles:
        base = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
        same = sum(anchor == base or anchor.startswith(f"{base}--") for anchor in anchors)
        anchors.append(f"{base}--{same + 1}" if same else base)
    return anchors


def _facts(report: Report) -> str:
    """Return the few numbers that say how much stands behind the page."""
    entries = report.entries
    if not entries:
        return ""
    conditions = [entry.conditions for entry in entries]
    methods = {e.method for chapter in report.chapters for e in chapter.section.entries}
    facts = [
        (len(entries), "result file"),
        (len({c.task for c in conditions}), "task"),
        (len({c.level for c in conditions}), "level"),
        (len(methods), "method"),
        (len({c.train_seed for c in conditions}), "training seed"),
        (sum(entry.result.episodes for entry in entries), "episode"),
    ]
    items = "".join(f"<li><b>{n:,}</b> {span([n], what).split(' ', 1)[1]}</li>" for n, what in facts)
    return f'<ul class="facts">{items}</ul>'


def _chapter(chapter: Chapter) -> list[tuple[str, str]]:
    """Return the parts of a section: title and HTML of each."""
    suffix = f" ({chapter.section.title})" if chapter.section.title else ""
    levels, *others = chapter.plots
    returns = _plot(levels) + "".join(_titled(table) for table in chapter.returns)
    parts = [("Returns", returns)]
    parts.append(("Aggregates", "".join(map(_plot, others)) + html_table(chapter.over_tasks)))
    parts.append(("Statistics", "".join(_titled(table) for table in chapter.statistics)))
    if chapter.quality:
        parts.append(("Mask quality", html_table(chapter.quality)))
    if chapter.published:
        parts.append(("Published figures", "".join(map(_titled, chapter.published))))
    parts.append(("Methods", html_table(chapter.methods)))
    if chapter.caveats:
        items = "".join(f"<li>{escape(text)}</li>" for text in chapter.caveats)
        parts.insert(0, ("What would mislead here", f'<ul class="caveats">{items}</ul>'))
    return [(title + suffix, text) for title, text in parts]


def _titled(table: Table) -> str:
    return f"<h3>{escape(table.title)}</h3>{html_table(table)}"


def html_table(table: Table) -> str:
    """Return a table that scrolls sideways where the screen is small, its caption above and notes below."""
    head = "".join(_cell("th", Text(name), i < table.labels) for i, name in enumerate(table.header))
    rows = []
    for index, row in enumerate(table.rows):
        if title := table.groups.get(index):
            rows.append(
                f'<tr class="group"><th colspan="{len(table.header)}"><span>{escape(title)}</span></th></tr>'
            )
        cells = "".join(_cell("td", cell, i < table.labels) for i, cell in enumerate(row))
        rows.append(f"<tr>{cells}</tr>")
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in table.notes)
    return (
        f'<figure class="table"><figcaption>{escape(table.caption)}</figcaption>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(table.title)}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>{notes}</figure>"
    )


def _cell(tag: str, cell: Text, is_label: bool) -> str:
    text = escape(cell.text)
    inner = f"<strong>{text}</strong>" if cell.strong else text
    inner += f" <small>{escape(cell.detail)}</small>" if cell.detail else ""
    return f'<{tag} class="{"label" if is_label else "number"}">{inner}</{tag}>'


def _plot(plot: Plot) -> str:
    panels = "".join(f'<div class="panel">{panel.inline()}</div>' for panel in plot.panels)
    names = "".join(f"<li>{_swatch(index)}{escape(name)}</li>" for index, name in enumerate(plot.series))
    if plot.dashed:
        names += f'<li><i class="dashed"></i>{escape(plot.dashed)}</li>'
    return (
        f'<figure class="plots"><ul class="key">{names}</ul><div class="panels">{panels}</div>'
        f"<figcaption>{escape(plot.caption)}</figcaption></figure>"
    )


def _swatch(series: int) -> str:
    drawing = Drawing(14, 14, "")
    drawing.marker(7, 7, series)
    return drawing.inline().replace('role="img" aria-label=""', 'aria-hidden="true"')


def _pictures(pictures: list[Embedded], more: int) -> str:
    figures = "".join(
        f'<figure class="picture"><img src="{p.data_uri}" width="{p.size[0]}" height="{p.size[1]}" '
        f'alt="{escape(p.caption)}"><figcaption>{escape(p.caption)}</figcaption></figure>'
        for p in pictures
    )
    rest = f'<p class="note">{span([more], "more picture")} beside the results.</p>' if more else ""
    return f'<div class="pictures">{figures}</div>{rest}'
