"""Pictures of what a masker does: frame, similarity map, prompts, masks, and what the agent sees."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from common.files import write_bytes
from common.views import apart, side_by_side, view_count
from evaluation.mask_quality import view_quality
from evaluation.painting import (
    GREY,
    LEGEND_LINE,
    PANEL,
    Legend,
    Panel,
    Prompts,
    Sheet,
    legend_lines,
    paint,
    text_width,
)

__all__ = ["Panel", "Prompts"]  # beside what is defined here

MARGIN = 10
TITLE = 18
LEGEND_PROMPTS = (
    ("best", "best match of the target"),
    ("keep", "match of a part or point"),
    ("drop", "background"),
)
LEGEND_BOX = ("box", "box of the pass before")
LEGEND_MASK = ("mask", "mask of the pass")
LEGEND_TRUTH = ("truth", "the simulator's own mask")


@dataclass(frozen=True)
class Step:
    """One decoder pass over one frame.

    Attributes:
        mask: bool (H, W).
        box: float (4,), x0 y0 x1 y1, the box it was prompted with, of V cameras (V, 4); None in the first
            pass.
    """

    mask: np.ndarray
    box: np.ndarray | None = None


@dataclass(frozen=True)
class Explanation:
    """What a masker says about one frame; empty for maskers without prompts.

    The views of V cameras lie side by side, and x counts from the left edge of the first: W means V * W here.

    Attributes:
        prompts: point and box prompts, or None.
        similarity: float (H, W) similarity map, or None.
        passes: the refinement masks.
    """

    prompts: Prompts | None = None
    similarity: np.ndarray | None = None
    passes: tuple[Step, ...] = ()


@dataclass(frozen=True)
class Scene:
    """One frame with everything known about it.

    Attributes:
        title: such as ``video_hard``.
        raw: uint8 ([V,] H, W, 3).
        mask: bool or float ([V,] H, W).
        masked: uint8 ([V,] H, W, 3).
        explanation: prompts, similarity map and passes of the masker.
        note: text under the mask, such as its IoU.
        foreground: bool ([V,] H, W), the simulator's own mask; None where unknown.
    """

    title: str
    raw: np.ndarray
    mask: np.ndarray
    masked: np.ndarray
    explanation: Explanation = field(default_factory=Explanation)
    note: str = ""
    foreground: np.ndarray | None = None

    @property
    def soft(self) -> bool:
        """Whether the mask has values between 0 and 1."""
        return self.mask.dtype != np.bool_

    @property
    def views(self) -> int:
        """V, 1 for a single camera."""
        return view_count(self.raw.shape)

    def in_a_row(self) -> Scene:
        """Return the scene with the views of several cameras side by side, as pictures show them."""
        if self.raw.ndim == 3:
            return self
        truth = None if self.foreground is None else side_by_side(self.foreground)
        raw, mask, masked = (side_by_side(views) for views in (self.raw, self.mask, self.masked))
        return replace(self, raw=raw, mask=mask, masked=masked, foreground=truth)


def explain_frame(masker: Any, frame: np.ndarray) -> Explanation:
    """Ask ``masker.explain`` about a frame, uint8 ([V,] H, W, 3); empty where a masker has no such method."""
    explain = getattr(masker, "explain", None)
    if explain is None:
        return Explanation()
    import torch

    batch = np.ascontiguousarray(frame if frame.ndim == 4 else frame[None])
    answer, width = explain(torch.from_numpy(batch)), frame.shape[-2]
    points = np.concatenate(list(_moved(answer.points, width)))
    labels = answer.labels.flatten().cpu().numpy()
    prompts = Prompts(points, labels, _boxes(answer.boxes, width), views=len(batch))
    passes = tuple(
        Step(side_by_side(one.masks.cpu().numpy()), _boxes(one.boxes, width))
        for one in getattr(answer, "passes", ())
    )
    return Explanation(prompts, side_by_side(answer.similarity.float().cpu().numpy()), passes)


def _moved(places: Any, width: int) -> np.ndarray:
    """Return points (V, P, 2) or boxes (V, 2, 2) of V views as they lie when the views are side by side."""
    moved = places.cpu().numpy().copy()
    moved[..., 0] += width * np.arange(len(moved))[:, None]
    return moved


def _boxes(boxes: Any, width: int) -> np.ndarray | None:
    """Return float (4,) for a batch of one box, (V, 4) for V."""
    if boxes is None:
        return None
    moved = _moved(boxes.unflatten(1, (2, 2)), width).reshape(-1, 4)
    return moved[0] if len(moved) == 1 else moved


def iou_note(mask: np.ndarray, foreground: np.ndarray | None) -> str:
    """Return such as ``IoU 0.93``, of V views the mean; empty where the simulator's mask is unknown."""
    return "" if foreground is None else f"IoU {view_quality(mask, foreground)[0]:.2f}"


def level_picture(path: Path, scenes: Sequence[Scene], title: str = "") -> None:
    """Draw one row per scene: raw frame, prompts, mask, what the agent sees."""
    columns = ["observation", "prompts", "mask", "the agent sees"]
    rows = [
        [
            Panel(row.raw, views=scene.views),
            Panel(row.raw, prompts=scene.explanation.prompts, views=scene.views),
            Panel(row.mask, note=scene.note, views=scene.views),
            Panel(row.masked, views=scene.views),
        ]
        for scene, row in ((scene, scene.in_a_row()) for scene in scenes)
    ]
    if all(scene.explanation.prompts is None for scene in scenes):
        columns.pop(1)
        rows = [[*row[:1], *row[2:]] for row in rows]
    names = [scene.title for scene in scenes]
    draw_grid(path, rows, names, columns, title, legend=_legend(scenes, outlines=False))


def strip_picture(path: Path, scenes: Sequence[Scene], title: str = "", subtitle: str = "") -> None:
    """Draw one column per scene: frame, similarity map, prompts, each pass's mask, what the agent sees."""
    columns = [scene_panels(scene) for scene in scenes]
    names = list(columns[0])
    rows = [[column[name] for column in columns] for name in names]
    titles = [scene.title for scene in scenes]
    draw_grid(path, rows, names, titles, title, subtitle, _legend(scenes, outlines=True))


def scene_panels(scene: Scene) -> dict[str, Panel]:
    """Return the panels of one scene by name, the same names for every scene of one masker."""
    panels, views = _row_panels(scene.in_a_row(), scene.views), scene.views
    return panels if views == 1 else {name: replace(panel, views=views) for name, panel in panels.items()}


def _row_panels(scene: Scene, views: int) -> dict[str, Panel]:
    """Return the panels of a scene whose ``views`` are side by side already."""
    known, truth = scene.explanation, scene.foreground

    def note_of(mask: np.ndarray) -> str:
        if truth is None or views == 1:
            return iou_note(mask, truth)
        return iou_note(*(apart(row, views) for row in (mask, truth)))

    panels = {"observation": Panel(scene.raw)}
    if known.similarity is not None:
        low, high = known.similarity.min(), known.similarity.max()
        note = f"cosine {low:.2f} to {high:.2f}".replace("-", "\N{MINUS SIGN}")
        panels["similarity"] = Panel(known.similarity, heat=True, note=note)
    if known.prompts is not None:
        panels["prompts"] = Panel(scene.raw, prompts=known.prompts)
    several = len(known.passes) > 1
    for number, one in enumerate(known.passes, start=1):
        box = None if one.box is None else Prompts(np.zeros((0, 2)), np.zeros(0), one.box)
        note = note_of(one.mask)
        name = f"pass {number}" if several else "mask"
        panels[name] = Panel(scene.raw, prompts=box, mask=one.mask, truth=truth, note=note)
    if scene.soft:
        panels["soft mask"] = Panel(scene.mask)
    elif not known.passes:
        panels["mask"] = Panel(scene.raw, mask=scene.mask, truth=truth, note=note_of(scene.mask))
    if truth is not None:
        panels["simulator's mask"] = Panel(truth)
    return {**panels, "the agent sees": Panel(scene.masked)}


def scene_frame(scene: Scene, title: str = "", columns: int = 4) -> np.ndarray:
    """Draw the panels of one scene side by side, a frame of a video.

    Returns:
        uint8 (H, W, 3) with even sides, the same for every scene of one masker.
    """
    panels = scene_panels(scene)
    columns, wide = min(columns, len(panels)), PANEL * scene.views
    step, tall = wide + MARGIN, PANEL + MARGIN + 44
    lines = -(-len(panels) // columns)
    top, width = 34, columns * step + MARGIN
    legend = legend_lines(_legend([scene], outlines=True), width - MARGIN)
    height = top + lines * tall + LEGEND_LINE * len(legend) + MARGIN // 2
    sheet = Sheet(width + width % 2, height + height % 2)
    sheet.text(MARGIN, top / 2, title, 15, "lm", bold=True)
    sheet.text(sheet.image.width - MARGIN, top / 2, scene.title, 15, "rm")
    for index, (name, panel) in enumerate(panels.items()):
        x, y = MARGIN + index % columns * step, top + index // columns * tall
        sheet.text(x + wide / 2, y + 18, name, 14, "ms")
        _place(sheet, panel, x, y + 24, wide)
    sheet.legend(MARGIN, top + lines * tall, legend)
    return np.asarray(sheet.image)


def _legend(scenes: Sequence[Scene], outlines: bool) -> list[tuple[str, str]]:
    """Return what needs an explanation, and its explanation."""
    entries: list[tuple[str, str]] = []
    known = [scene.explanation for scene in scenes]
    if any(one.prompts is not None for one in known):
        entries += LEGEND_PROMPTS
    if any(one.prompts is not None and one.prompts.box is not None for one in known):
        entries.append(LEGEND_BOX)
    if outlines:
        several = any(len(one.passes) > 1 for one in known)
        entries.append(LEGEND_MASK if several else ("mask", "mask"))
        if any(scene.foreground is not None for scene in scenes):
            entries.append(LEGEND_TRUTH)
    return entries


def draw_grid(
    path: Path,
    rows: Sequence[Sequence[Panel]],
    row_titles: Sequence[str],
    column_titles: Sequence[str],
    title: str = "",
    subtitle: str = "",
    legend: Legend = (),
) -> None:
    """Write a PNG of panels, pixels enlarged without smoothing; the file is whole or absent.

    Args:
        path: PNG file.
        rows: the panels; rows of equal length.
        row_titles: one per row, left of it.
        column_titles: one per column, above it.
        title: over the whole picture.
        subtitle: below the title, smaller.
        legend: markers (``evaluation.painting.marker``) and what they mean, at the bottom.
    """
    names, heads = ([text.replace("_", " ") for text in texts] for texts in (row_titles, column_titles))
    left = MARGIN + max((text_width(name) + 12 for name in names if name), default=0)
    wide = PANEL * max((panel.views for row in rows for panel in row), default=1)
    steps = [PANEL + MARGIN + 20 * any(panel.note for panel in row) for row in rows]
    top = MARGIN + (TITLE + 10) * bool(title) + 22 * bool(subtitle) + 26 * any(heads)
    texts = text_width(title, TITLE, bold=True), text_width(subtitle, 14)
    width = max(left + len(heads) * (wide + MARGIN), *(text + 2 * MARGIN for text in texts))
    explained = legend_lines(legend, width - MARGIN)
    sheet = Sheet(width, top + sum(steps) + LEGEND_LINE * len(explained) + MARGIN * bool(legend))
    sheet.text(MARGIN, MARGIN, title, TITLE, bold=True)
    sheet.text(MARGIN, MARGIN + TITLE + 10, subtitle, 14, colour=GREY)
    for c, head in enumerate(heads):
        sheet.text(left + c * (wide + MARGIN) + wide / 2, top - 8, head, 15, "ms")
    for r, row in enumerate(rows):
        y = top + sum(steps[:r])
        sheet.text(left - 12, y + PANEL / 2, names[r], 15, "rm")
        for c, panel in enumerate(row):
            _place(sheet, panel, left + c * (wide + MARGIN), y, wide)
    sheet.legend(MARGIN, top + sum(steps), explained)
    buffer = io.BytesIO()
    sheet.image.save(buffer, format="PNG")
    write_bytes(path, buffer.getvalue())


def _place(sheet: Sheet, panel: Panel, x: int, y: int, wide: int) -> None:
    """Put a panel and its note into the cell, ``wide`` pixels wide, whose upper left corner is (x, y)."""
    painted = paint(panel)
    sheet.paste(painted, x + (wide - painted.width) // 2, y + (PANEL - painted.height) // 2)
    if panel.note:
        sheet.text(x + wide / 2, y + PANEL + 15, panel.note, 13, "ms", colour=GREY)
