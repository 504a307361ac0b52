"""Where a frame looks like the target: cosine maps, averaged over encoders, at the frame's resolution.

Resizing is linear, so maps that share grid and operator are averaged first and resized once (SAM-G,
section "Segment"; the operator itself is the networks' business).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from samg.networks import SamgNetworks

_TARGETS_AT_ONCE = 256
_NUMBERS_AT_ONCE = 1 << 17  # float64 copies of so many stay in a core's cache


@dataclass(frozen=True)
class OperatorGroup:
    """Encoders whose maps are resized by one and the same operator.

    Attributes:
        encoders: their names.
        operator: float64 (S, G).
        identity: whether it changes nothing, so that it need not be applied.
    """

    encoders: tuple[str, ...]
    operator: Tensor
    identity: bool = False


def operator_groups(
    networks: SamgNetworks, encoders: Sequence[str], size: int, device: torch.device
) -> tuple[OperatorGroup, ...]:
    """Sort encoders by their resize operator to ``size`` x ``size`` pixels; done once per masker."""
    groups: list[OperatorGroup] = []
    for name in encoders:
        operator = networks.similarity_operator(name, size).to(device, torch.float64)
        for index, group in enumerate(groups):
            if torch.equal(group.operator, operator):
                groups[index] = replace(group, encoders=(*group.encoders, name))
                break
        else:
            identity = torch.equal(operator, torch.eye(size).to(operator))
            groups.append(OperatorGroup((name,), operator, identity))
    return tuple(groups)


def cosine_maps(feature_map: Tensor, targets: Tensor) -> Tensor:
    """Return the cosine of every cell with every target, all in one matrix product.

    Args:
        feature_map: float (N, C, G, G), raw features.
        targets: float (T, C), rows of length 1.

    Returns:
        float (N, T, G, G) in [-1, 1].
    """
    return _cosines(feature_map.flatten(2), targets).unflatten(-1, feature_map.shape[-2:])


def _cosines(cells: Tensor, targets: Tensor) -> Tensor:
    """Return (N, T, P) of the cells (N, C, P); see ``cosine_maps``."""
    # Dividing the few products is cheaper than normalising every cell of every channel. A vector norm is one
    # pass over memory; along a strided axis it is some seven times slower on a CPU than summing squares.
    if cells.stride(1) == 1:
        lengths = torch.linalg.vector_norm(cells, dim=1, keepdim=True)
    else:
        lengths = (cells * cells).sum(dim=1, keepdim=True).sqrt_()
    return torch.matmul(targets, cells).div_(lengths.clamp_min_(1e-12))


def _exact_cosine_maps(feature_map: Tensor, targets: Tensor) -> Tensor:
    """Return ``cosine_maps`` in float64 of what may be less."""
    targets = targets.double()
    if feature_map.device.type != "cpu":
        return cosine_maps(feature_map.double(), targets)
    # Some cells at a time: a float64 copy of a whole map leaves every cache and is written and read in vain.
    cells = feature_map.flatten(2)
    some = max(1, _NUMBERS_AT_ONCE // cells.shape[1])
    parts = [_cosines(part.double(), targets) for part in cells.split(some, dim=2)]
    return torch.cat(parts, dim=2).unflatten(-1, feature_map.shape[-2:])


def resize_maps(maps: Tensor, operator: Tensor) -> Tensor:
    """Return ``operator @ map @ operator.T`` of every map, float (..., S, S)."""
    return operator @ maps @ operator.T


def similarity_maps(
    maps: Mapping[str, Tensor], targets: Mapping[str, Tensor], groups: Sequence[OperatorGroup]
) -> Tensor:
    """Return the similarity of every pixel with every target, averaged over encoders.

    In float64: around the best match the cosine is flat, neighbouring pixels differ by less than float32
    resolves, and the chosen point would depend on the machine's order of summation.

    Args:
        maps: encoder -> float (N, C_e, G_e, G_e), raw features.
        targets: encoder -> float (T, C_e), rows of length 1, the same targets for every encoder.
        groups: from ``operator_groups``.

    Returns:
        float64 (N, T, S, S) in [-1, 1].
    """
    if not groups:
        raise ValueError("groups: expected at least one encoder, got none")
    first = next(iter(maps.values()))
    if first.device.type != "cpu" or len(first) < 2:
        return _similarity(maps, targets, groups)
    # Frame by frame: the float64 copies of a whole batch leave every cache, and are paid for page by page.
    frames = [{name: value[index : index + 1] for name, value in maps.items()} for index in range(len(first))]
    return torch.cat([_similarity(frame, targets, groups) for frame in frames])


def _similarity(
    maps: Mapping[str, Tensor], targets: Mapping[str, Tensor], groups: Sequence[OperatorGroup]
) -> Tensor:
    count = sum(len(group.encoders) for group in groups)
    total: Tensor | None = None
    for group in groups:
        cosines = [_exact_cosine_maps(maps[name], targets[name]) for name in group.encoders]
        part = torch.stack(cosines).sum(0) if len(cosines) > 1 else cosines[0]
        part = part if group.identity else resize_maps(part, group.operator)
        total = part if total is None else total.add_(part)
    assert total is not None  # there is at least one group
    return total.div_(count)


def best_points(
    maps: Mapping[str, Tensor], targets: Mapping[str, Tensor], groups: Sequence[OperatorGroup]
) -> Tensor:
    """Return the best-matching pixel of very many targets on one image.

    The same as the maxima of ``similarity_maps``, but the cells are normalised once and encoders that share
    an operator are joined along their channels: a slice of targets costs one product and one resize.

    Args:
        maps: encoder -> float (1, C_e, G_e, G_e), raw features of one image.
        targets: encoder -> float (T, C_e), rows of length 1.
        groups: from ``operator_groups``.

    Returns:
        int64 (T,), row-major pixel index.
    """
    joined = []
    for group in groups:
        cells = [F.normalize(maps[name][0].double(), dim=0) for name in group.encoders]
        rows = [targets[name].double() for name in group.encoders]
        joined.append((torch.cat(rows, dim=1), torch.cat(cells), group.operator))
    found = []
    for start in range(0, len(joined[0][0]), _TARGETS_AT_ONCE):
        stop = start + _TARGETS_AT_ONCE
        parts = [
            resize_maps((rows[start:stop] @ cells.flatten(1)).unflatten(1, cells.shape[1:]), operator)
            for rows, cells, operator in joined
        ]
        total = torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]
        found.append(total.flatten(1).argmax(1))
    return torch.cat(found)
