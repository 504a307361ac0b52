"""How well a mask agrees with the simulator's own foreground."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class MaskQuality:
    """Running means over the frames of an episode; the views of several cameras are frames of their own.

    Attributes:
        frames: frames seen.
        compared: frames for which the simulator's foreground was known.
        iou: sum of intersection over union over the compared frames.
        recall: sum of the share of the foreground that the mask keeps.
        precision: sum of the share of the mask that is foreground.
        empty: number of frames in which the masker found nothing.
    """

    frames: int = 0
    compared: int = 0
    iou: float = 0.0
    recall: float = 0.0
    precision: float = 0.0
    empty: int = 0

    def add(self, mask: np.ndarray, foreground: np.ndarray | None, empty: bool | None = None) -> None:
        """Count one frame.

        Args:
            mask: bool (H, W).
            foreground: bool (H, W), or None where the simulator's mask is unknown.
            empty: whether the masker found nothing, whatever it then put in the empty mask's place; None:
                whether ``mask`` is empty.
        """
        self.frames += 1
        self.empty += int(not mask.any() if empty is None else empty)
        if foreground is None:
            return
        iou, recall, precision = frame_quality(mask, foreground)
        self.compared += 1
        self.iou += iou
        self.recall += recall
        self.precision += precision

    def add_views(self, mask: np.ndarray, foreground: np.ndarray | None, empty: np.ndarray) -> None:
        """Count one frame, or V views of a moment.

        Args:
            mask: bool (H, W) or (V, H, W).
            foreground: the same, or None.
            empty: bool () or (V,).
        """
        masks, views = mask.reshape(-1, *mask.shape[-2:]), np.ravel(empty)
        exact = [None] * len(masks) if foreground is None else foreground.reshape(masks.shape)
        for one, truth, nothing in zip(masks, exact, views, strict=True):
            self.add(one, truth, bool(nothing))

    def mean(self, what: str) -> float | None:
        """Return the mean of ``iou``, ``recall`` or ``precision``; None when no frame could be compared."""
        return float(getattr(self, what)) / self.compared if self.compared else None

    @property
    def empty_share(self) -> float:
        """Share of the frames in which the masker found nothing, in [0, 1]."""
        return self.empty / self.frames if self.frames else 0.0


def view_quality(mask: np.ndarray, foreground: np.ndarray) -> tuple[float, float, float]:
    """Return the means of ``frame_quality`` over V views, bool (V, H, W) twice, or those of one, (H, W)."""
    if mask.ndim == 2:
        return frame_quality(mask, foreground)
    each = np.array([frame_quality(*pair) for pair in zip(mask, foreground, strict=True)])
    iou, recall, precision = each.mean(axis=0).tolist()
    return iou, recall, precision


def frame_quality(mask: np.ndarray, foreground: np.ndarray) -> tuple[float, float, float]:
    """Return (IoU, recall, precision) of bool (H, W) ``mask`` against bool (H, W) ``foreground``.

    Two empty masks agree perfectly (1, 1, 1); a quotient that is undefined because only one of them is
    empty counts as 0.
    """
    kept, wanted = int(mask.sum()), int(foreground.sum())
    if kept == 0 and wanted == 0:
        return 1.0, 1.0, 1.0
    both = int((mask & foreground).sum())
    union = kept + wanted - both
    return both / union, both / wanted if wanted else 0.0, both / kept if kept else 0.0
