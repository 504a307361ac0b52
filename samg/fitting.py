"""Fit a masker to its reference: features of the target, then the mask weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from common.errors import NonFiniteError
from common.seeding import derive_seed
from samg.correspondence import operator_groups, similarity_maps
from samg.identify import identify
from samg.map_mask import fit_map_mask
from samg.map_prompt import MapPrompt, fit_map_prompt
from samg.networks import SamgNetworks
from samg.options import AUTO, SamgOptions
from samg.persam import adapt, equal_weights
from samg.reference import Reference
from samg.rules import Rules


@dataclass(frozen=True)
class Fit:
    """What was learnt from the reference.

    Attributes:
        targets: encoder -> float (T, C_e), unit rows: target, parts, points.
        mask_weights: float (3,).
        map_prompt: the mask prompt of the first pass, or None when the option is off.
        report: figures about the fit, as JSON values.
        presence: the least cosine of the best pixel of the target's map, or None where it is not asked.
        map_scale: float (2,), how the map itself becomes a mask (``samg.map_mask``); None with a decoder.
    """

    targets: dict[str, Tensor]
    mask_weights: Tensor
    map_prompt: MapPrompt | None
    report: dict[str, Any]
    presence: float | None = None
    map_scale: Tensor | None = None


def fit_reference(
    networks: SamgNetworks, reference: Reference, rules: Rules, options: SamgOptions, device: torch.device
) -> Fit:
    """Learn the target's features and the mask weights from a reference (SAM-G, "Identify" and "Adapt").

    Raises:
        ConfigError: an encoder is named that the networks do not have.
        NonFiniteError: the networks' features are not finite numbers.
    """
    encoders = options.select_encoders(networks.encoders)
    found = identify(networks, reference, rules, encoders, device, options.extra_points)
    if not all(bool(rows.isfinite().all()) for rows in found.targets.values()):
        raise NonFiniteError(
            "The networks' features of the reference are not finite numbers.",
            "Use float32, or load the weights anew.",
        )
    groups = operator_groups(networks, encoders, reference.size, device)
    decoder = options.uses_decoder
    prompt = fit_map_prompt(networks, found, groups, rules) if options.map_prompt and decoder else None
    report: dict[str, Any] = {"targets": len(found.targets[encoders[0]]), "points": found.points}
    weights = equal_weights(device)
    if options.persam and decoder:
        generator = torch.Generator().manual_seed(derive_seed(options.seed, "persam"))
        adapted = adapt(networks, found, groups, rules, generator, prompt)
        weights = adapted.weights
        report |= {"point_sets": adapted.point_sets, "loss": list(adapted.losses)}
    targets = {name: rows.clone() for name, rows in found.targets.items()}
    scale = None
    if not decoder:
        scale = fit_map_mask(similarity_maps(found.maps, found.targets, groups)[0, 0], found.mask)
    return Fit(targets, weights, prompt, report, _presence(networks, options, encoders, rules), scale)


def _presence(
    networks: SamgNetworks, options: SamgOptions, encoders: Sequence[str], rules: Rules
) -> float | None:
    if options.presence == AUTO:
        return networks.presence_threshold(encoders) if rules.asks_presence else None
    return None if options.presence is None else float(options.presence)
