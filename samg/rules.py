"""The points in which the published code and what it evidently meant differ; this file is the latter.

``samg.compat`` holds the former. The pipeline asks these rules and knows neither.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from samg import features, prompts


class Rules(Protocol):
    """What a masker's method may choose."""

    name: str
    uses_cutouts: bool
    asks_presence: bool

    def pooling_cells(self, mask: Tensor, cutout: Tensor, grid: int) -> Tensor:
        """Return bool (G, G): the cells over which a target feature is pooled."""
        ...

    def training_mask(self, mask: Tensor, cutout: Tensor) -> Tensor:
        """Return bool (H, W): the mask to which the PerSAM-F weights are fitted."""
        ...

    def point_features(self, feature_map: Tensor, points: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Return float (P, C): unit features at image points."""
        ...

    def global_negative(self, similarity: Tensor) -> Tensor:
        """Return float (N, 2): the point least like the target, anywhere in maps (N, H, W)."""
        ...

    def fallback_box(self, size: tuple[int, int]) -> prompts.Box:
        """Return the box that stands in for that of an empty mask."""
        ...

    def box_negative(self, similarity: Tensor, boxes: Tensor, empty: Tensor) -> tuple[Tensor, Tensor]:
        """Return the background point inside each box, (N, 2), and its label (N,)."""
        ...

    def last_negative(self, similarity: Tensor, boxes: Tensor, empty: Tensor) -> tuple[Tensor, Tensor]:
        """Return the background point that the third pass adds, (N, 2), and its label (N,)."""
        ...


class FixedRules:
    """The default: inclusive windows, half-cell offsets, whole masks, no duplicated prompt."""

    name = "fixed"
    uses_cutouts = False
    asks_presence = True

    def pooling_cells(self, mask: Tensor, cutout: Tensor, grid: int) -> Tensor:
        """Pool over the mask itself, whatever the object's colour."""
        return features.mask_on_grid(mask, grid)

    def training_mask(self, mask: Tensor, cutout: Tensor) -> Tensor:
        """Fit the weights to the mask itself."""
        return mask

    def point_features(self, feature_map: Tensor, points: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Sample between cell centres."""
        return features.point_features(feature_map, points, image_size)

    def global_negative(self, similarity: Tensor) -> Tensor:
        """Search every pixel."""
        return prompts.lowest_points(similarity)

    def fallback_box(self, size: tuple[int, int]) -> prompts.Box:
        """Use the whole frame."""
        return 0.0, 0.0, size[1] - 1.0, size[0] - 1.0

    def box_negative(self, similarity: Tensor, boxes: Tensor, empty: Tensor) -> tuple[Tensor, Tensor]:
        """Search the box, its last row and column included; an empty mask adds no point."""
        window = prompts.box_windows(boxes, (similarity.shape[-2], similarity.shape[-1]), end_inside=True)
        points = prompts.lowest_points(similarity, window)
        labels = torch.full_like(empty, prompts.NEGATIVE, dtype=torch.int64)
        return points, labels.masked_fill_(empty, prompts.NO_POINT)

    def last_negative(self, similarity: Tensor, boxes: Tensor, empty: Tensor) -> tuple[Tensor, Tensor]:
        """Search the newest box, as in the second pass."""
        return self.box_negative(similarity, boxes, empty)
