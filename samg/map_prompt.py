"""An option: the similarity map, scaled to logits, as the mask prompt of the first pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from samg.correspondence import OperatorGroup, operator_groups, similarity_maps
from samg.identify import Identity
from samg.networks import SamgNetworks
from samg.prompts import frame_prompts
from samg.rules import Rules

_SWING = 5.0  # the logit that a cosine typical of the target's inside receives; its outside gets the negative


@dataclass(frozen=True)
class MapPrompt:
    """How cosines become mask logits.

    Attributes:
        groups: resize operators to the decoder's resolution L.
        scale: float (2,), centre and factor: ``logit = (cosine - centre) * factor``.
        resolution: L.
    """

    groups: tuple[OperatorGroup, ...]
    scale: Tensor
    resolution: int

    def logits(self, maps: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """Return mask prompts, float32 (N, 1, L, L).

        Args:
            maps: encoder -> float (N, C_e, G_e, G_e).
            targets: encoder -> float (T, C_e); the first row is the target.
        """
        main = {name: rows[:1] for name, rows in targets.items()}
        return (similarity_maps(maps, main, self.groups).float() - self.scale[0]) * self.scale[1]


def calibrate(similarity: Tensor, mask: Tensor) -> Tensor:
    """Return the ``scale`` that gives the reference's target a mean logit of 5 and its surroundings -5.

    Args:
        similarity: float (H, W), the target's map on the reference.
        mask: bool (H, W).
    """
    inside, outside = similarity[mask].mean(), similarity[~mask].mean()
    return torch.stack(((inside + outside) / 2, 2 * _SWING / (inside - outside).clamp_min(1e-3)))


def build_map_prompt(
    networks: SamgNetworks, encoders: Sequence[str], scale: Tensor, resolution: int
) -> MapPrompt:
    """Make the prompt for a decoder whose low-resolution masks are ``resolution`` pixels wide."""
    return MapPrompt(operator_groups(networks, encoders, resolution, scale.device), scale, resolution)


@torch.inference_mode()
def fit_map_prompt(
    networks: SamgNetworks, found: Identity, groups: Sequence[OperatorGroup], rules: Rules
) -> MapPrompt:
    """Scale the map by the reference; one decoder call tells the decoder's resolution."""
    similarity = similarity_maps(found.maps, found.targets, groups).float()
    points, labels = frame_prompts(similarity, rules.global_negative(similarity[:, 0]))
    size = (similarity.shape[-2], similarity.shape[-1])
    output = networks.decode(found.embedding, size, points, labels)
    scale = calibrate(similarity[0, 0], found.mask)
    return build_map_prompt(networks, tuple(found.targets), scale, int(output.low_res.shape[-1]))
