"""An option: masks from the features alone. The similarity map against one level, with no decoder at all."""

from __future__ import annotations

import torch
from torch import Tensor

from samg.map_prompt import calibrate
from samg.prompts import frame_prompts
from samg.rules import Rules
from samg.segment import Pass, hide_absent


def best_level(similarity: Tensor, mask: Tensor) -> Tensor:
    """Return the level whose upper set has the highest IoU with a mask, a scalar.

    It lies halfway between the two neighbouring values of the map; among equally good ones the highest wins.

    Args:
        similarity: float (H, W).
        mask: bool (H, W), not empty.
    """
    values, order = similarity.flatten().sort(descending=True)
    hits = mask.flatten()[order].cumsum(0)
    kept = torch.arange(1, len(values) + 1, device=values.device)
    union = kept + mask.sum() - hits
    below = torch.cat((values[1:], values[-1:] - 1))
    scores = (hits / union).masked_fill(values == below, -1.0)  # equal pixels are kept together or not at all
    best = scores.argmax()
    return (values[best] + below[best]) / 2


def fit_map_mask(similarity: Tensor, mask: Tensor) -> Tensor:
    """Return level and factor, float32 (2,), of ``logit = (cosine - level) * factor``.

    The factor is that of the mask prompt (``samg.map_prompt.calibrate``): the reference's inside and outside
    lie ten logits apart on average.

    Args:
        similarity: float (H, W), the target's map on the reference.
        mask: bool (H, W).
    """
    return torch.stack((best_level(similarity, mask), calibrate(similarity, mask)[1])).float()


def map_pass(similarity: Tensor, rules: Rules, scale: Tensor, presence: float | None) -> Pass:
    """Make the one "pass" of a masker without a decoder.

    Its points are those that a decoder would be prompted with, kept for pictures and measurements.

    Args:
        similarity: float64 (N, T, H, W), the target's map first.
        rules: faithful or fixed.
        scale: from ``fit_map_mask``.
        presence: as in ``samg.segment.hide_absent``; None never asks.
    """
    main = similarity[:, 0]
    points, labels = frame_prompts(similarity, rules.global_negative(main))
    logits = ((main - scale[0]) * scale[1]).float()
    one = Pass(points, labels, None, logits, logits[:, None], logits.new_zeros(len(logits), 3))
    return one if presence is None else hide_absent(one, main, presence)


def soften(one: Pass, masks: Tensor) -> Tensor:
    """Return soft masks, float32 (N, H, W) in [0, 1]: the sigmoid of the logits where a mask is not empty.

    Args:
        one: the last pass.
        masks: bool (N, H, W), after the policy for empty masks, which those frames follow.
    """
    found = one.masks.flatten(1).any(1)[:, None, None]
    return torch.where(found, one.logits.sigmoid(), masks.float())
