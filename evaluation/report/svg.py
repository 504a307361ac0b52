"""A small drawing surface: SVG whose colours follow the reader's light or dark theme."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

SERIES = 8  # colours; later series repeat them with another marker
CHARACTER = 6.9  # generous mean width of a character of 12 px text
# Okabe and Ito's palette, safe for colour-blind readers, darkened or lightened to stand out on either ground.
THEMES = {
    "light": ("#0067a5", "#c44e00", "#00805b", "#a5528a", "#9a6a00", "#2a8fbd", "#5c5c5c", "#7a3b2e"),
    "dark": ("#4da3e0", "#f0813a", "#2bb58a", "#d98cbf", "#dba420", "#7cc9f2", "#b0b0b0", "#c98a7a"),
}
INKS = {
    "light": {"ink": "#1c1f23", "muted": "#5d6570", "rule": "#dfe3e8", "ground": "#ffffff"},
    "dark": {"ink": "#e8eaed", "muted": "#9aa4b0", "rule": "#343b45", "ground": "#15181d"},
}
RULES = """
.plot text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill: var(--ink); }
.plot .small { font-size: 11px; fill: var(--muted); font-variant-numeric: tabular-nums; }
.plot .title { font-weight: 600; font-size: 13px; }
.plot .grid { stroke: var(--rule); stroke-width: 1; }
.plot .axis { stroke: var(--muted); stroke-width: 1; }
.plot .reference { stroke: var(--muted); stroke-width: 1.2; stroke-dasharray: 4 3; }
.plot .fill { fill: var(--c); } .plot .faint { fill: var(--c); opacity: .18; }
.plot .line { fill: none; stroke: var(--c); stroke-width: 2; stroke-linejoin: round; }
.plot .whisker { stroke: var(--c); stroke-width: 2; stroke-linecap: round; }
.plot .over { stroke: var(--ink); stroke-width: 1.3; }
.plot .halo { stroke: var(--ground); stroke-width: 4; opacity: .75; }
"""


def theme_css() -> str:
    """Return the style that both the page and every single drawing carry."""

    def variables(name: str) -> str:
        inks = "".join(f"--{key}:{value};" for key, value in INKS[name].items())
        return inks + "".join(f"--s{i}:{colour};" for i, colour in enumerate(THEMES[name]))

    series = "".join(f".c{i}{{--c:var(--s{i})}}" for i in range(SERIES))
    return (
        f":root{{color-scheme:light dark;{variables('light')}}}\n"
        f"@media (prefers-color-scheme:dark){{:root{{{variables('dark')}}}}}\n{series}{RULES}"
    )


class Drawing:
    """An SVG drawing in pixels, y downward; everything is appended in drawing order.

    Args:
        width, height: of the whole.
        label: what a screen reader says of it.
    """

    def __init__(self, width: float, height: float, label: str) -> None:
        self.width, self.height, self.label = width, height, label
        self._parts: list[str] = []

    def text(self, x: float, y: float, text: str, style: str = "", anchor: str = "start") -> None:
        """Write ``text`` with its baseline at (x, y)."""
        place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
        self._parts.append(f'<text class="{style}" {place}>{escape(text)}</text>')

    def line(self, x1: float, y1: float, x2: float, y2: float, style: str) -> None:
        """Draw a straight line."""
        self._parts.append(f'<line class="{style}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')

    def bar(self, x: float, y: float, width: float, height: float, style: str, tip: str = "") -> None:
        """Draw a filled rectangle with a tooltip."""
        shape = f'x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{height:.1f}" rx="1.5"'
        self._parts.append(f'<rect class="{style}" {shape}>{_tip(tip)}</rect>')

    def path(self, points: Sequence[tuple[float, float]], style: str, closed: bool = False) -> None:
        """Draw a line through points, or the area within."""
        corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._parts.append(f'<{"polygon" if closed else "polyline"} class="{style}" points="{corners}"/>')

    def marker(self, x: float, y: float, series: int, tip: str = "", size: float = 4.5) -> None:
        """Draw the marker of a series: colour and shape both tell which."""
        corners = _shape(series, size)
        style = f"fill c{series % SERIES}"
        if corners is None:
            self._parts.append(
                f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}">{_tip(tip)}</circle>'
            )
            return
        points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
        self._parts.append(f'<polygon class="{style}" points="{points}">{_tip(tip)}</polygon>')

    def place(self, other: Drawing, x: float, y: float) -> None:
        """Put another drawing at (x, y)."""
        self._parts.append(f'<g transform="translate({x:.1f} {y:.1f})">{"".join(other._parts)}</g>')

    def inline(self) -> str:
        """Return it for a page that has ``theme_css``."""
        size = f'viewBox="0 0 {self.width:.0f} {self.height:.0f}"'
        label = f'role="img" aria-label="{escape(self.label)}"'
        return f'<svg class="plot" {label} {size}>{"".join(self._parts)}</svg>'

    def file(self) -> str:
        """Return it as a file of its own, on its own ground."""
        size = f'width="{self.width:.0f}" height="{self.height:.0f}"'
        box = f'viewBox="0 0 {self.width:.0f} {self.height:.0f}"'
        ground = '<rect width="100%" height="100%" style="fill:var(--ground)"/>'
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="plot" role="img" '
            f'aria-label="{escape(self.label)}" {size} {box}><style>{theme_css()}</style>'
            f"{ground}{''.join(self._parts)}</svg>\n"
        )


def _tip(text: str) -> str:
    return f"<title>{escape(text)}</title>" if text else ""


def _shape(series: int, size: float) -> list[tuple[float, float]] | None:
    """Return the corners of a series' marker around the origin; None for a circle."""
    kind = (series + series // SERIES) % 4
    if kind == 0:
        return None
    turns = {1: (4, 0.125), 2: (4, 0.0), 3: (3, 0.75)}[kind]
    corners, phase = turns
    radius = size * (1.2 if kind != 3 else 1.3)
    return [
        (
            radius * math.cos(2 * math.pi * (k / corners + phase)),
            radius * math.sin(2 * math.pi * (k / corners + phase)),
        )
        for k in range(corners)
    ]


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return about ``count`` round numbers that cover [low, high]; the first and last may lie outside."""
    if not high > low:
        high = low + 1
    raw = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * next(factor for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [k * step for k in range(first, last + 1)]


def clipped(text: str, width: float) -> str:
    """Return ``text``, shortened to about ``width`` pixels of 12 px type."""
    most = max(int(width / CHARACTER), 2)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def legend(names: Sequence[str], width: float, dashed: str = "") -> Drawing:
    """Return the key of the series, in as many lines as ``width`` demands."""
    x, y, places = 0.0, 14.0, []
    entries = [*enumerate(names), *([(-1, dashed)] if dashed else [])]
    for index, name in entries:
        need = 18 + CHARACTER * len(name) + 18
        if x and x + need > width:
            x, y = 0.0, y + 20
        places.append((index, name, x, y))
        x += need
    drawing = Drawing(width, y + 12, "key")
    for index, name, left, base in places:
        if index < 0:
            drawing.line(left, base - 4, left + 14, base - 4, "reference")
        else:
            drawing.marker(left + 6, base - 4, index)
        drawing.text(left + 18, base, name)
    return drawing


def stack(title: str, panels: Sequence[Drawing], columns: int, key: Drawing | None = None) -> Drawing:
    """Return one drawing of many panels in a grid, with the key on top."""
    columns = max(1, min(columns, len(panels)))
    gap, pad = 24.0, 12.0
    rows = [panels[i : i + columns] for i in range(0, len(panels), columns)]
    width = max(sum(panel.width + gap for panel in row) - gap for row in rows)
    top = pad + (key.height + 6 if key else 0)
    heights = [max(panel.height for panel in row) for row in rows]
    whole = Drawing(width + 2 * pad, top + sum(heights) + gap * (len(rows) - 1) + pad, title)
    if key:
        whole.place(key, pad, pad)
    y = top
    for row, height in zip(rows, heights, strict=True):
        x = pad
        for panel in row:
            whole.place(panel, x, y)
            x += panel.width + gap
        y += height + gap
    return whole
