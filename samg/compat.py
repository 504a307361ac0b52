"""The published code's behaviour with its quirks, for comparison with published numbers (``compat=True``).

Each method names what differs from ``samg.rules.FixedRules``; docs/fidelity.md gives the reasons.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from common.errors import InputError
from samg import features, prompts

_RED_MEAN = 123.675
_SAM_INPUT = 512


class CompatRules:
    """The quirks of the DMControl branch; written for square frames, as that branch is."""

    name = "compat"
    uses_cutouts = True
    asks_presence = False

    def pooling_cells(self, mask: Tensor, cutout: Tensor, grid: int) -> Tensor:
        """Keep the cells where the enlarged cut-out's red exceeds 123.675 (the normalised value is positive).

        Args:
            mask: unused.
            cutout: uint8 (H, W, 3), the object on black.
            grid: G.
        """
        height, width = cutout.shape[:2]
        scale = _SAM_INPUT / max(height, width)
        size = (int(width * scale + 0.5), int(height * scale + 0.5))
        enlarged = Image.fromarray(cutout.cpu().numpy()).resize(size, Image.Resampling.BILINEAR)
        red = torch.from_numpy(np.asarray(enlarged)[..., 0].astype(np.float32))
        cells = F.interpolate(red[None, None], size=(grid, grid), mode="bilinear", align_corners=False)
        selected = cells[0, 0] > _RED_MEAN
        if not selected.any():
            raise InputError(
                "compat=true keeps the reddish part of the cut-out (red > 123), and none is left of it.",
                "Use compat=false, which takes the whole mask.",
            )
        return selected.to(cutout.device)

    def training_mask(self, mask: Tensor, cutout: Tensor) -> Tensor:
        """Fit to every pixel of the cut-out with any red at all, compression halo included."""
        return cutout[..., 0] > 0

    def point_features(self, feature_map: Tensor, points: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Sample at ``p * G / W``, half a cell off.

        The published code raises an IndexError for points in the last column or row; here they are clamped.
        """
        grid = feature_map.shape[-1]
        x, y = points[:, 0] * grid / image_size[1], points[:, 1] * grid / image_size[0]
        return F.normalize(features.bilinear_cells(feature_map, x, y), dim=1)

    def global_negative(self, similarity: Tensor) -> Tensor:
        """Search all but the last row and the last column."""
        height, width = similarity.shape[-2:]
        cropped = similarity[:, : height - 1, : width - 1]
        return prompts.lowest_points(cropped)

    def fallback_box(self, size: tuple[int, int]) -> prompts.Box:
        """Use [1, 1, 83, 83] at 84 pixels."""
        return 1.0, 1.0, size[1] - 1.0, size[0] - 1.0

    def box_negative(self, similarity: Tensor, boxes: Tensor, empty: Tensor) -> tuple[Tensor, Tensor]:
        """Leave out the box's last row and column; an empty window gives (0, 0), labelled negative."""
        window = prompts.box_windows(boxes, (similarity.shape[-2], similarity.shape[-1]), end_inside=False)
        return prompts.lowest_points(similarity, window), torch.zeros_like(empty, dtype=torch.int64)

    def last_negative(self, similarity: Tensor, boxes: Tensor, empty: Tensor) -> tuple[Tensor, Tensor]:
        """Repeat the global background point of the first pass."""
        return self.global_negative(similarity), torch.zeros_like(empty, dtype=torch.int64)
