"""Three passes of the decoder per frame: points; box and mask prompt; the same again (SAM-G, "Segment").

A batch of frames goes through together and nothing is read back: what depends on the data (an empty mask,
which of three masks is best) is decided by ``where`` and ``gather`` on the device.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from efficientvit.output import SamOutput
from samg.networks import SamgNetworks
from samg.prompts import add_point, frame_prompts, mask_boxes
from samg.rules import Rules


class Pass(NamedTuple):
    """One pass: its prompts and what came of them.

    Attributes:
        points: float (N, P, 2), (x, y).
        labels: int64 (N, P): 1, 0, or -1 for no point.
        boxes: float (N, 4), or None in the first pass.
        logits: float (N, H, W), positive inside the mask.
        low_res: float (N, 1, L, L), the mask prompt of the next pass.
        iou: float (N, 3), what the decoder thinks of its three masks.
    """

    points: Tensor
    labels: Tensor
    boxes: Tensor | None
    logits: Tensor
    low_res: Tensor
    iou: Tensor

    @property
    def masks(self) -> Tensor:
        """Bool (N, H, W)."""
        return self.logits > 0


def weighted_masks(output: SamOutput, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Mix the three masks: logits (N, H, W) and low-resolution logits (N, 1, L, L).

    Args:
        output: of the decoder.
        weights: float (3,).
    """
    factors = weights[:, None, None]
    low_res = (output.low_res * factors).sum(1, keepdim=True)
    if output.logits is output.low_res:  # networks that decode at the frames' own resolution
        return low_res.squeeze(1), low_res
    return (output.logits * factors).sum(1), low_res


def best_masks(output: SamOutput) -> tuple[Tensor, Tensor]:
    """Take the mask with the highest predicted IoU: logits (N, H, W), low-resolution logits (N, 1, L, L)."""
    best = output.iou.argmax(1)[:, None, None, None]
    low_res = output.low_res.gather(1, best.expand(-1, 1, *output.low_res.shape[2:]))
    if output.logits is output.low_res:
        return low_res.squeeze(1), low_res
    return output.logits.gather(1, best.expand(-1, 1, *output.logits.shape[2:])).squeeze(1), low_res


def first_pass(
    networks: SamgNetworks,
    embedding: Tensor,
    similarity: Tensor,
    weights: Tensor,
    rules: Rules,
    mask_inputs: Tensor | None = None,
) -> Pass:
    """Decode from points alone and mix the masks by the fitted weights.

    Args:
        networks: the decoder.
        embedding: first axis N.
        similarity: float (N, T, H, W), the target's map first.
        weights: float (3,).
        rules: faithful or fixed.
        mask_inputs: float (N, 1, L, L), or None.
    """
    size = (similarity.shape[-2], similarity.shape[-1])
    points, labels = frame_prompts(similarity, rules.global_negative(similarity[:, 0]))
    output = networks.decode(embedding, size, points, labels, mask_inputs=mask_inputs)
    logits, low_res = weighted_masks(output, weights)
    return Pass(points, labels, None, logits, low_res, output.iou)


def refining_pass(
    networks: SamgNetworks, embedding: Tensor, similarity: Tensor, before: Pass, rules: Rules, last: bool
) -> Pass:
    """Decode again from the last pass's prompts, its box, its mask and one more background point.

    Args:
        networks: the decoder.
        embedding: first axis N.
        similarity: float (N, T, H, W).
        before: the pass to refine.
        rules: faithful or fixed.
        last: whether this is the third pass.
    """
    size = (similarity.shape[-2], similarity.shape[-1])
    boxes, empty = mask_boxes(before.masks, rules.fallback_box(size))
    negative = rules.last_negative if last else rules.box_negative
    points, labels = add_point(before.points, before.labels, *negative(similarity[:, 0], boxes, empty))
    output = networks.decode(embedding, size, points, labels, boxes=boxes, mask_inputs=before.low_res)
    logits, low_res = best_masks(output)
    return Pass(points, labels, boxes, logits, low_res, output.iou)


def hide_absent(one: Pass, similarity: Tensor, presence: float) -> Pass:
    """Empty the masks of the frames in which the target's best pixel is less like it than ``presence``.

    Args:
        one: a pass.
        similarity: float (N, H, W), the target's map.
        presence: a cosine.
    """
    there = similarity.flatten(1).amax(1) >= presence
    return one._replace(logits=torch.where(there[:, None, None], one.logits, -one.logits.abs() - 1))


def segment(
    networks: SamgNetworks,
    embedding: Tensor,
    similarity: Tensor,
    weights: Tensor,
    rules: Rules,
    passes: int = 3,
    mask_inputs: Tensor | None = None,
    presence: float | None = None,
) -> list[Pass]:
    """Run one to three passes over a batch of frames; arguments as in ``first_pass`` and ``hide_absent``."""
    done = [first_pass(networks, embedding, similarity, weights, rules, mask_inputs)]
    for number in range(2, passes + 1):
        done.append(refining_pass(networks, embedding, similarity, done[-1], rules, last=number == 3))
    return done if presence is None else [hide_absent(one, similarity[:, 0], presence) for one in done]


def resolve_empty(done: list[Pass], policy: str) -> Tensor:
    """Return the final masks under a policy for frames whose last mask is empty.

    Args:
        done: the passes.
        policy: ``keep`` leaves the frame black, ``raw`` shows all of it, ``previous_pass`` takes the newest
            pass whose mask is not empty (black if none is).

    Returns:
        bool (N, H, W).
    """
    final = done[-1].masks
    if policy == "raw":
        return final | ~final.flatten(1).any(1)[:, None, None]
    if policy == "previous_pass":
        for earlier in reversed(done[:-1]):
            empty = ~final.flatten(1).any(1)[:, None, None]
            final = torch.where(empty, earlier.masks, final)
    return final
