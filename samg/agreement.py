"""How far an approximation's masks are from the exact ones: what to print beside its speed."""

from __future__ import annotations

import torch
from torch import Tensor

from common.masking import ObservationMasker


def mask_iou(right: Tensor, found: Tensor) -> Tensor:
    """Return the IoU of two maskers' masks, frame by frame; see ``episode_masks``.

    Args:
        right: bool (N, H, W), the masks that count as right.
        found: bool (N, H, W), the other ones.

    Returns:
        float64 (N,) in [0, 1]; 1 where both masks are empty.
    """
    shared = (right & found).flatten(1).sum(1).double()
    either = (right | found).flatten(1).sum(1)
    return torch.where(either > 0, shared / either.clamp_min(1), torch.ones_like(shared))


def episode_masks(masker: ObservationMasker, frames: Tensor) -> Tensor:
    """Return a masker's masks as an agent sees them: every k-th anew, used again in between.

    Args:
        masker: any; its soft masks count from one half on.
        frames: uint8 (N, H, W, 3), those of an episode in order where ``every`` is to mean something.

    Returns:
        bool (N, H, W).
    """
    every = int(getattr(masker, "every", 1))
    masks = masker.mask(frames[::every])
    binary = masks if masks.dtype == torch.bool else masks >= 0.5
    return binary.repeat_interleave(every, 0)[: len(frames)]
