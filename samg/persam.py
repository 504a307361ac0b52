"""PerSAM-F: three numbers that mix the decoder's three masks, fitted to one reference (Zhang et al., 2023).

The published loop decodes in each of its 1,000 iterations, although its prompts are pixels and only a few
distinct sets of them occur. Here all noise is drawn first, all maps come from one product, each distinct set
is decoded once, and the two free parameters are fitted to the stored logits: the same numbers, far sooner.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from samg.correspondence import OperatorGroup, best_points, similarity_maps
from samg.features import unit_noise
from samg.identify import Identity
from samg.map_prompt import MapPrompt
from samg.networks import SamgNetworks
from samg.prompts import frame_prompts, pixel_points
from samg.rules import Rules

ITERATIONS = 1000
NOISE = 0.01
LEARNING_RATE = 1e-3
ADAM_EPS = 1e-4
BETAS = (0.9, 0.999)
WEIGHT_DECAY = 0.01
_DECODE_AT_ONCE = 8


@dataclass(frozen=True)
class Adaptation:
    """A fit.

    Attributes:
        weights: float (3,), the factors of the decoder's three masks; they add up to 1.
        point_sets: how many distinct prompt sets occurred.
        losses: first and last training loss.
    """

    weights: Tensor
    point_sets: int
    losses: tuple[float, float]


def equal_weights(device: torch.device) -> Tensor:
    """Return the factors before any fitting: one third each."""
    return torch.full((3,), 1 / 3, device=device)


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return ``1 - (2 |pt| + 1) / (|p| + |t| + 1)``.

    Args:
        logits: float (K,).
        target: float (K,) of 0 and 1.
    """
    probability = logits.sigmoid()
    return 1 - (2 * (probability * target).sum() + 1) / (probability.sum() + target.sum() + 1)


def focal_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return the mean of ``a_t (1 - p_t)^2 * cross entropy``, a_t = 0.25 inside the target, 0.75 outside."""
    probability = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    agreement = probability * target + (1 - probability) * (1 - target)
    balance = 0.25 * target + 0.75 * (1 - target)
    return (balance * (1 - agreement) ** 2 * entropy).mean()


@torch.inference_mode()
def training_prompts(
    identity: Identity,
    groups: Sequence[OperatorGroup],
    rules: Rules,
    generator: torch.Generator,
    iterations: int = ITERATIONS,
) -> tuple[Tensor, Tensor]:
    """Return the prompts of every iteration; only those of the extra points move, by their noise.

    Args:
        identity: the target.
        groups: from ``operator_groups``.
        rules: faithful or fixed.
        generator: on the CPU; the only source of randomness.
        iterations: I.

    Returns:
        points: float (I, T + 1, 2).
        labels: int64 (T + 1,).
    """
    names = [name for group in groups for name in group.encoders]
    clean = similarity_maps(identity.maps, identity.targets, groups)
    points, labels = frame_prompts(clean, rules.global_negative(clean[:, 0]))
    points = points.repeat(iterations, 1, 1)
    if identity.points:
        noisy = {}
        for name in names:
            features = identity.targets[name][-identity.points :]
            noise = unit_noise((iterations, *features.shape), generator).to(features.device)
            noisy[name] = F.normalize(features + NOISE * noise, dim=-1).flatten(0, 1)
        best = best_points(identity.maps, noisy, groups).view(iterations, identity.points)
        points[:, -identity.points :] = pixel_points(best, clean.shape[-1])
    return points, labels[0]


@torch.inference_mode()
def decode_distinct(
    networks: SamgNetworks,
    embedding: Tensor,
    size: tuple[int, int],
    points: Tensor,
    labels: Tensor,
    mask_input: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Decode every distinct prompt set once.

    Args:
        networks: the decoder.
        embedding: of one image, first axis 1.
        size: (H, W).
        points: float (I, P, 2).
        labels: int64 (P,).
        mask_input: float (1, 1, L, L), the mask prompt of them all, or None.

    Returns:
        logits: float (D, 3, H, W), one row per distinct set.
        index: int64 (I,), the row of each iteration.
    """
    distinct, index = torch.unique(points, dim=0, return_inverse=True)
    logits = []
    for some in distinct.split(_DECODE_AT_ONCE):
        count = len(some)
        output = networks.decode(
            embedding.expand(count, *embedding.shape[1:]),
            size,
            some,
            labels.expand(count, -1),
            mask_inputs=None if mask_input is None else mask_input.expand(count, -1, -1, -1),
        )
        logits.append(output.logits.float())
    return torch.cat(logits), index


def loss_gradient(logits: Tensor, target: Tensor) -> Tensor:
    """Return d(dice + focal) / d(logits), float (K,).

    Written out, because a thousand passes through autograd take longer than everything else in a fit. With
    ``u`` the logit towards the right answer and ``q = sigmoid(u)``, the focal term of a pixel is
    ``-a (1 - q)^2 log q``, whose derivative by ``u`` is ``a (1 - q)^2 (2 q log q - (1 - q))``.

    Args:
        logits: float (K,).
        target: float (K,) of 0 and 1.
    """
    sign = 2 * target - 1
    towards = sign * logits
    right = towards.sigmoid()
    wrong = 1 - right
    focal = sign * (0.75 - 0.5 * target) * wrong**2 * (2 * right * F.logsigmoid(towards) - wrong)
    probability = logits.sigmoid()
    above = 2 * (probability * target).sum() + 1
    below = probability.sum() + target.sum() + 1
    dice = (above / below - 2 * target) / below * probability * (1 - probability)
    return dice + focal / len(logits)


def fit_weights(logits: Tensor, index: Tensor, target: Tensor) -> tuple[Tensor, tuple[float, float]]:
    """Fit the two free weights by AdamW with a cosine schedule, one step per entry of ``index``.

    On the CPU wherever the logits are: the steps are far too small for a GPU. AdamW (Loshchilov and Hutter,
    2019) is written out: for two numbers, ``torch.optim`` would cost seconds of imports at its first step.

    Args:
        logits: float (D, 3, H, W), the decoder's masks per distinct prompt set.
        index: int64 (I,), which of them each step sees.
        target: bool (H, W).

    Returns:
        weights: float (3,): ``(1 - w1 - w2, w1, w2)``.
        losses: of the first and the last step's prompts, before and after fitting.
    """
    masks = logits.detach().flatten(2).cpu().clone()
    wanted = target.flatten().cpu().to(masks.dtype)
    rows = index.tolist()
    # Only these two differences matter to the free weights: the first mask's weight is what they leave over.
    slopes = masks[:, 1:] - masks[:, :1]
    with torch.no_grad():
        free = torch.full((2,), 1 / 3)
        mean, square = torch.zeros(2), torch.zeros(2)
        first = _loss(mix_weights(free) @ masks[rows[0]], wanted)
        for step, row in enumerate(rows):
            gradient = slopes[row] @ loss_gradient(mix_weights(free) @ masks[row], wanted)
            rate = LEARNING_RATE * (1 + math.cos(math.pi * step / len(rows))) / 2
            mean = BETAS[0] * mean + (1 - BETAS[0]) * gradient
            square = BETAS[1] * square + (1 - BETAS[1]) * gradient**2
            slope = mean / (1 - BETAS[0] ** (step + 1))
            spread = (square / (1 - BETAS[1] ** (step + 1))).sqrt()
            free = free * (1 - rate * WEIGHT_DECAY) - rate * slope / (spread + ADAM_EPS)
        last = _loss(mix_weights(free) @ masks[rows[-1]], wanted)
        return mix_weights(free).to(logits.device), (first, last)


def _loss(logits: Tensor, target: Tensor) -> float:
    return float(dice_loss(logits, target) + focal_loss(logits, target))


def mix_weights(free: Tensor) -> Tensor:
    """Return the three factors (3,) that two free weights (2,) stand for."""
    return torch.cat((1 - free.sum().unsqueeze(0), free))


def adapt(
    networks: SamgNetworks,
    identity: Identity,
    groups: Sequence[OperatorGroup],
    rules: Rules,
    generator: torch.Generator,
    map_prompt: MapPrompt | None = None,
    iterations: int = ITERATIONS,
) -> Adaptation:
    """Fit the mask weights of one reference; the networks stay as they are."""
    points, labels = training_prompts(identity, groups, rules, generator, iterations)
    size = (identity.mask.shape[0], identity.mask.shape[1])
    prompt = None if map_prompt is None else map_prompt.logits(identity.maps, identity.targets)
    logits, index = decode_distinct(networks, identity.embedding, size, points, labels, prompt)
    weights, losses = fit_weights(logits, index, identity.mask)
    return Adaptation(weights, len(logits), losses)
