"""What a mask decoder returns; apart from the networks, so that knowing it costs no import of them."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class SamOutput(NamedTuple):
    """Masks of one decoder pass.

    Attributes:
        logits: float (N, 3, H, W) mask logits at image size; positive is foreground.
        iou: float (N, 3) predicted quality of each mask.
        low_res: float (N, 3, L, L) the same logits at the decoder's resolution (L = 256 for SAM).
    """

    logits: Tensor
    iou: Tensor
    low_res: Tensor
