"""Pictures of what a masker does: frame, similarity map, prompts, mask, and what the agent sees."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from common.files import write_bytes

PANEL_INCHES = 1.75
MARGIN_INCHES = 0.10
TITLE_INCHES = 0.34
NOTE_INCHES = 0.17
LABEL_INCHES = 1.25
DPI = 160
POSITIVE = "#2ca02c"
NEGATIVE = "#d62728"
BOX = "#ffbf00"


@dataclass(frozen=True)
class Prompts:
    """Prompts of one frame, drawn over it.

    Attributes:
        points: float (P, 2), (x, y) pixels.
        labels: int (P,), 1 keep, 0 drop; others are not drawn.
        box: float (4,), x0 y0 x1 y1, or None.
    """

    points: np.ndarray
    labels: np.ndarray
    box: np.ndarray | None = None


@dataclass(frozen=True)
class Panel:
    """One cell of a picture.

    Attributes:
        image: uint8 (H, W, 3) RGB; bool or float (H, W), drawn in grey from 0 to 1; or a float (H, W)
            similarity map when ``heat`` is set.
        heat: draw ``image`` as a heat map over its own range.
        prompts: drawn on top.
        note: short text under the panel.
    """

    image: np.ndarray
    heat: bool = False
    prompts: Prompts | None = None
    note: str = ""


@dataclass(frozen=True)
class Explanation:
    """What a masker says about one frame; empty for maskers without prompts.

    Attributes:
        prompts: point and box prompts, or None.
        similarity: float (H, W) similarity map, or None.
    """

    prompts: Prompts | None = None
    similarity: np.ndarray | None = None


@dataclass(frozen=True)
class Scene:
    """One frame with everything known about it, a row of the picture.

    Attributes:
        title: such as ``video_hard``.
        raw: uint8 (H, W, 3).
        mask: bool or float (H, W).
        masked: uint8 (H, W, 3).
        explanation: prompts and similarity map of the masker.
        note: text under the mask, such as its IoU.
    """

    title: str
    raw: np.ndarray
    mask: np.ndarray
    masked: np.ndarray
    explanation: Explanation = field(default_factory=Explanation)
    note: str = ""


def explain_frame(masker: Any, frame: np.ndarray) -> Explanation:
    """Ask ``masker.explain`` about one frame, uint8 (H, W, 3); empty where a masker has no such method."""
    explain = getattr(masker, "explain", None)
    if explain is None:
        return Explanation()
    import torch

    answer = explain(torch.from_numpy(np.ascontiguousarray(frame))[None])
    box = None if answer.boxes is None else answer.boxes[0].cpu().numpy()
    prompts = Prompts(answer.points[0].cpu().numpy(), answer.labels[0].cpu().numpy(), box)
    return Explanation(prompts, answer.similarity[0].float().cpu().numpy())


def level_picture(path: Path, scenes: Sequence[Scene], title: str = "") -> None:
    """Draw one row per scene: raw frame, prompts, mask, what the agent sees."""
    columns = ["observation", "prompts", "mask", "the agent sees"]
    rows = [
        [
            Panel(scene.raw),
            Panel(scene.raw, prompts=scene.explanation.prompts),
            Panel(scene.mask, note=scene.note),
            Panel(scene.masked),
        ]
        for scene in scenes
    ]
    if all(scene.explanation.prompts is None for scene in scenes):
        columns.pop(1)
        rows = [[*row[:1], *row[2:]] for row in rows]
    draw_grid(path, rows, [scene.title for scene in scenes], columns, title)


def strip_picture(path: Path, scenes: Sequence[Scene], title: str = "") -> None:
    """Draw one column per scene, in time: raw frame, similarity map, prompts, mask, what the agent sees."""
    kinds: list[tuple[str, list[Panel | None]]] = [
        ("observation", [Panel(scene.raw) for scene in scenes]),
        ("similarity", [_heat(scene) for scene in scenes]),
        ("prompts", [_prompted(scene) for scene in scenes]),
        ("mask", [Panel(scene.mask, note=scene.note) for scene in scenes]),
        ("the agent sees", [Panel(scene.masked) for scene in scenes]),
    ]
    known = [(name, [panel for panel in row if panel is not None]) for name, row in kinds]
    known = [(name, row) for name, row in known if row]
    names, rows = [name for name, _ in known], [row for _, row in known]
    draw_grid(path, rows, names, [scene.title for scene in scenes], title)


def _heat(scene: Scene) -> Panel | None:
    similarity = scene.explanation.similarity
    return None if similarity is None else Panel(similarity, heat=True)


def _prompted(scene: Scene) -> Panel | None:
    prompts = scene.explanation.prompts
    return None if prompts is None else Panel(scene.raw, prompts=prompts)


def draw_grid(
    path: Path,
    rows: Sequence[Sequence[Panel]],
    row_titles: Sequence[str],
    column_titles: Sequence[str],
    title: str = "",
) -> None:
    """Write a PNG of panels, pixels enlarged without smoothing; the file is whole or absent.

    Args:
        path: PNG file.
        rows: the panels; rows of equal length.
        row_titles: one per row, left of it.
        column_titles: one per column, above it.
        title: over the whole picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    cell = PANEL_INCHES + MARGIN_INCHES
    steps = [cell + NOTE_INCHES * any(panel.note for panel in row) for row in rows]
    top = TITLE_INCHES * (1.9 if title else 1.0)
    inches = (LABEL_INCHES + len(column_titles) * cell, top + sum(steps))
    figure = Figure(figsize=inches, dpi=DPI, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    for r, row in enumerate(rows):
        y = inches[1] - top - sum(steps[:r])
        for c, panel in enumerate(row):
            x = LABEL_INCHES + c * cell
            place = (x / inches[0], (y - PANEL_INCHES) / inches[1])
            size = (PANEL_INCHES / inches[0], PANEL_INCHES / inches[1])
            _draw_panel(figure.add_axes((*place, *size)), panel)
        label = row_titles[r].replace("_", " ")
        middle = (y - PANEL_INCHES / 2) / inches[1]
        figure.text((LABEL_INCHES - 0.12) / inches[0], middle, label, ha="right", va="center", fontsize=10)
    for c, text in enumerate(column_titles):
        x = (LABEL_INCHES + c * cell + PANEL_INCHES / 2) / inches[0]
        y = (inches[1] - top + 0.07) / inches[1]
        figure.text(x, y, text.replace("_", " "), ha="center", va="bottom", fontsize=10)
    if title:
        y = (inches[1] - 0.08) / inches[1]
        figure.text(0.12 / inches[0], y, title, ha="left", va="top", fontsize=10, fontweight="bold")
    buffer = io.BytesIO()
    canvas.print_png(buffer)
    write_bytes(path, buffer.getvalue())


def _draw_panel(axes: Any, panel: Panel) -> None:
    height, width = panel.image.shape[:2]
    # Pixel x covers [x - 0.5, x + 0.5]; prompts are given in the same coordinates.
    options: dict[str, Any] = {"interpolation": "nearest", "extent": (-0.5, width - 0.5, height - 0.5, -0.5)}
    if panel.heat:
        axes.imshow(panel.image, cmap="inferno", **options)
    elif panel.image.ndim == 2:
        axes.imshow(panel.image.astype(np.float32), cmap="gray", vmin=0, vmax=1, **options)
    else:
        axes.imshow(panel.image, **options)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#888888")
        spine.set_linewidth(0.6)
    if panel.prompts is not None:
        _draw_prompts(axes, panel.prompts)
    if panel.note:
        axes.set_xlabel(panel.note, fontsize=8, labelpad=2)


def _draw_prompts(axes: Any, prompts: Prompts) -> None:
    from matplotlib.patches import Rectangle

    for label, colour, marker in ((0, NEGATIVE, "X"), (1, POSITIVE, "o")):
        points = prompts.points[prompts.labels == label]
        axes.scatter(
            points[:, 0], points[:, 1], s=26, c=colour, marker=marker, edgecolors="white", linewidths=0.7
        )
    if prompts.box is not None:
        x0, y0, x1, y1 = (float(value) for value in prompts.box)
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=BOX, linewidth=1.2))
