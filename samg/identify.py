"""Read the reference once: the features of the target, its parts and its points (SAM-G, "Identify")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from samg.extra_points import choose_extra_points
from samg.features import pooled_feature
from samg.networks import SamgNetworks
from samg.reference import Reference
from samg.rules import Rules


@dataclass(frozen=True)
class Identity:
    """What is known of the target.

    Attributes:
        targets: encoder -> float (T, C_e), unit rows: the main mask, M part masks, P points.
        points: P, how many of the last rows are points (only those get noise in training).
        maps: encoder -> float (1, C_e, G_e, G_e), the reference image's own features.
        embedding: what the decoder needs of the reference image, N = 1.
        mask: bool (H, W), the target as the mask weights should reproduce it.
    """

    targets: dict[str, Tensor]
    points: int
    maps: dict[str, Tensor]
    embedding: Tensor
    mask: Tensor


@torch.inference_mode()
def identify(
    networks: SamgNetworks,
    reference: Reference,
    rules: Rules,
    encoders: Sequence[str],
    device: torch.device,
    extra_points: bool | int = True,
) -> Identity:
    """Encode the reference image once and pool a feature per mask and per point.

    Args:
        networks: the encoders.
        reference: the checked reference.
        rules: faithful or fixed.
        encoders: which of the networks' maps to compare.
        device: where the networks are.
        extra_points: whether the reference's points become targets, or how many (``SamgOptions``).
    """
    frame = torch.from_numpy(reference.image.copy())[None].to(device)
    cutouts = torch.from_numpy(reference.cutouts.copy()).to(device)
    masks = torch.stack(
        [torch.from_numpy(mask.copy()) for mask in (reference.mask, *reference.part_masks)]
    ).to(device)
    points = torch.from_numpy(choose_extra_points(reference, extra_points).copy()).to(device)
    size = (reference.size, reference.size)

    encoded = networks.encode(frame)
    maps = {name: encoded.maps[name].float() for name in encoders}
    targets = {}
    for name in encoders:
        feature_map = maps[name][0]
        grid = feature_map.shape[-1]
        pooled = [
            pooled_feature(feature_map, rules.pooling_cells(mask, cutout, grid))
            for mask, cutout in zip(masks, cutouts, strict=True)
        ]
        sampled = rules.point_features(feature_map, points, size)
        targets[name] = torch.cat((torch.stack(pooled), sampled))
    training_mask = rules.training_mask(masks[0], cutouts[0])
    return Identity(targets, len(points), maps, encoded.embedding, training_mask)
