"""How far an approximation's masks are from the exact ones: what to print beside its speed."""

from __future__ import annotations

import torch
from torch import Tensor

from common.masking import ObservationMasker


def mask_iou(exact: ObservationMasker, approximate: ObservationMasker, frames: Tensor) -> Tensor:
    """Return the IoU of two maskers' masks, frame by frame.

    Args:
        exact: the masker that counts as right.
        approximate: the other one; where it masks every k-th frame, its masks are used again in between.
        frames: uint8 (N, H, W, 3), those of an episode in order where ``every`` is to mean something.

    Returns:
        float64 (N,) in [0, 1]; 1 where both masks are empty. Soft masks count from one half on.
    """
    return iou_of_masks(episode_masks(exact, frames), episode_masks(approximate, frames))


def iou_of_masks(right: Tensor, found: Tensor) -> Tensor:
    """Return the IoU of two masks bool (N, H, W) of each frame, float64 (N,); 1 where both are empty."""
    shared = (right & found).flatten(1).sum(1).double()
    either = (right | found).flatten(1).sum(1)
    return torch.where(either > 0, shared / either.clamp_min(1), torch.ones_like(shared))


def episode_masks(masker: ObservationMasker, frames: Tensor) -> Tensor:
    """Return the masks of an episode's frames, bool (N, H, W), as an agent sees them: every k-th anew."""
    every = int(getattr(masker, "every", 1))
    masks = masker.mask(frames[::every])
    binary = masks if masks.dtype == torch.bool else masks >= 0.5
    return binary.repeat_interleave(every, 0)[: len(frames)]
