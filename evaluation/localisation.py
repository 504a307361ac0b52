"""How far a masker's points lie from the places on the body that the reference's points mark.

SAM-G looks in every frame for the pixel most like each point of the reference ("point features", section 4).
Where the reference is a picture of the simulator's, the place on the body that such a point lies on is known,
and so is where the camera sees it now: the distance in pixels tells how well the point was found again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class PointError:
    """Running mean over the points of the frames of an episode.

    Attributes:
        points: how many distances were measured.
        total: their sum, in pixels.
    """

    points: int = 0
    total: float = 0.0

    def add(self, points: np.ndarray | None, anchors: np.ndarray | None) -> None:
        """Count one frame; arguments as in ``point_distances``, or None where one of them is unknown."""
        if points is None or anchors is None:
            return
        distances = point_distances(points, anchors)
        seen = np.isfinite(distances)
        self.points += int(seen.sum())
        self.total += float(distances[seen].sum())

    @property
    def mean(self) -> float | None:
        """Mean distance in pixels; None when nothing could be measured."""
        return self.total / self.points if self.points else None


def point_distances(points: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Return the distance of each point from its anchor.

    Args:
        points: float ([V,] P, 2), (x, y) pixels, the masker's, in each of V views; NaN where there is none.
        anchors: float ([V,] P, 2), (x, y) pixels, where the body points are seen; NaN for hidden ones.

    Returns:
        float64 ([V,] P), pixels; NaN for hidden ones.
    """
    points, anchors = np.asarray(points, np.float64), np.asarray(anchors, np.float64)
    if points.shape != anchors.shape or points.ndim not in (2, 3) or points.shape[-1] != 2:
        raise ValueError(f"expected points and anchors ([V,] P, 2), got {points.shape} and {anchors.shape}")
    return np.sqrt(((points - anchors) ** 2).sum(-1))
