"""What the tiny networks are asked for: maps that find the reference's object, masks that obey prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from samg.pretraining.composites import SIZE, Batch
from samg.tiny import TinyNetworks
from samg.tiny_modules import unit_vectors

RIVAL_WEIGHT = 4.0  # of a rival's pixels in every mask loss
MAP_SHARES = {"dino": 1.0, "sam": 0.4}


class Columns(NamedTuple):
    """Similarity maps of all composites with all prototypes of the batch.

    A column is a prototype: the C whole objects first, then two parts of each divided class.

    Attributes:
        cosine: encoder -> float (K, P, G, G) on the encoder's own grid.
        single: encoder -> (K-less) unit prototypes (C, D) of one random pixel of each reference.
        unit: encoder -> float (K, D, G, G), unit features of the composites.
        truth: bool (K, P, 84, 84), where each prototype's object is visible.
        parts: int64 (C, 2), the columns of a class's parts (its own column where it is undivided).
        whole: float (C, D), unit ``dino`` prototypes.
    """

    cosine: dict[str, Tensor]
    single: dict[str, Tensor]
    unit: dict[str, Tensor]
    truth: Tensor
    parts: Tensor
    whole: Tensor


class Targets(NamedTuple):
    """Two wanted objects per composite: R = 2K rows, the own objects first.

    Attributes:
        row: (R,) which composite.
        column: (R,) which prototype.
        owner: (R,) its class.
        mask: bool (R, 84, 84), what is wanted.
        rival: bool (R, 84, 84), pixels of other objects.
        parts: bool (R, 2, 84, 84), the two parts where a divided object is wanted whole, else empty.
        average: float (R, 84, 84), the map of the mean cosine; carries gradients.
        extra: float (R, 84, 84), the same for one random reference pixel.
    """

    row: Tensor
    column: Tensor
    owner: Tensor
    mask: Tensor
    rival: Tensor
    parts: Tensor
    average: Tensor
    extra: Tensor


def prototypes(features: Tensor, owners: Tensor, masks: Tensor) -> Tensor:
    """Pool half mean, half channel-wise maximum of raw features, and normalise (SAM-G, "Identify").

    Args:
        features: float (C, D, G, G).
        owners: int64 (P,), which of the C maps each mask belongs to.
        masks: bool (P, 84, 84); a cell counts when it is covered as much as the best one, at most half.

    Returns:
        float (P, D).
    """
    p, d = len(owners), features.shape[1]
    share = _to_grid(masks.unsqueeze(1).float(), features.shape[-1]).flatten(1)
    cells = share >= share.amax(-1, keepdim=True).clamp(max=0.5, min=1e-6)
    row, cell = cells.nonzero(as_tuple=True)
    # Few cells belong to an object: picking them costs a fraction of masking whole maps.
    inside = features.flatten(2)[owners[row], :, cell]
    mean = features.new_zeros(p, d).index_add(0, row, inside) / cells.sum(1, keepdim=True).clamp(min=1)
    index = row.unsqueeze(1).expand_as(inside)
    highest = features.new_zeros(p, d).scatter_reduce(0, index, inside, "amax", include_self=False)
    return F.normalize(0.5 * mean + 0.5 * highest, dim=-1)


def _to_grid(x: Tensor, grid: int) -> Tensor:
    """Average float (N, C, 84, 84) over the cells of a coarser grid."""
    return x if x.shape[-1] == grid else F.interpolate(x, size=(grid, grid), mode="area")


def build_columns(
    encoded: Mapping[str, Tensor], batch: Batch, divided: Sequence[int], generator: Generator
) -> Columns:
    """Compare all composites with all references of the batch.

    Args:
        encoded: feature maps by encoder, of references first, then of composites.
        batch: what was encoded.
        divided: classes with two parts.
        generator: draws the single reference pixels.
    """
    c, device = batch.reference_masks.shape[0], batch.classes.device
    cosine, single, unit = {}, {}, {}
    index = random_pixels(batch.reference_masks[:, 0], generator)
    whole = encoded["dino"]
    owners = torch.tensor([*range(c), *(which for which in divided for _ in (1, 2))], device=device)
    sides = torch.tensor([0] * c + [1, 2] * len(divided), device=device)
    for name, maps in encoded.items():
        grid = maps.shape[-1]
        plain = maps.to(torch.float32, memory_format=torch.contiguous_format)
        references, pictures = plain.split([c, len(plain) - c])
        targets = prototypes(references, owners, batch.reference_masks[owners, sides])
        unit[name] = unit_vectors(pictures)
        cosine[name] = torch.einsum("pd,kdhw->kphw", targets, unit[name])
        cell = (index // SIZE * grid // SIZE) * grid + index % SIZE * grid // SIZE
        pixel = references.flatten(2)[torch.arange(c, device=device), :, cell]
        single[name] = F.normalize(pixel, dim=1)
        whole = targets[:c] if name == "dino" else whole
    present = batch.classes.unsqueeze(1) == torch.arange(1, c + 1, device=device).view(1, -1, 1, 1)
    truth = [present]
    parts = torch.arange(c, device=device).unsqueeze(1).repeat(1, 2)
    for number, which in enumerate(divided):
        second = batch.second.unsqueeze(1)
        mine = present[:, which : which + 1]
        truth += [mine & ~second, mine & second]
        parts[which, 0], parts[which, 1] = c + 2 * number, c + 2 * number + 1
    return Columns(cosine, single, unit, torch.cat(truth, 1), parts, whole)


def random_pixels(masks: Tensor, generator: Generator) -> Tensor:
    """Draw a pixel index of every mask bool (..., 84, 84); any pixel where a mask is empty."""
    noise = torch.rand(masks.shape, generator=generator, device=masks.device)
    return (noise + masks).flatten(-2).argmax(-1)


def choose_targets(columns: Columns, batch: Batch, generator: Generator) -> Targets:
    """Want the composite's own object and its rival (or the own one twice); some of the time only a part."""
    k, device = len(batch.own), batch.own.device
    rows = torch.arange(k, device=device)
    size = columns.truth.flatten(2).sum(-1)
    rival = torch.where(size[rows, batch.rival] >= 8, batch.rival, batch.own)
    owner, row = torch.cat([batch.own, rival]), rows.repeat(2)
    u = torch.rand(2, 2 * k, generator=generator, device=device)
    part = columns.parts[owner, (u[1] < 0.5).long()]
    divided = part != owner
    use_part = divided & (u[0] < 0.3) & (size[row, part] >= 5)
    column = torch.where(use_part, part, owner)
    mask = columns.truth[row, column]
    other = (batch.classes[row] > 0) & ~mask
    together = (divided & ~use_part).view(-1, 1, 1, 1)
    both = torch.stack([columns.truth[row, columns.parts[owner, side]] for side in (0, 1)], 1) & together
    average = _average({name: cosine[row, column] for name, cosine in columns.cosine.items()})
    extra = {}
    for name, unit in columns.unit.items():
        vectors = columns.single[name][owner].view(2, k, -1).transpose(0, 1)
        maps = (vectors @ unit.flatten(2)).transpose(0, 1)
        extra[name] = maps.reshape(2 * k, unit.shape[-2], unit.shape[-1])
    return Targets(row, column, owner, mask, other, both, average, _average(extra))


def _average(maps: dict[str, Tensor]) -> Tensor:
    """Mean of maps (R, G, G) of different grids, on the 84-pixel grid."""
    sized = [
        m
        if m.shape[-1] == SIZE
        else F.interpolate(m.unsqueeze(1), size=(SIZE, SIZE), mode="bilinear").squeeze(1)
        for m in maps.values()
    ]
    return torch.stack(sized).mean(0)


def map_loss(
    networks: TinyNetworks, columns: Columns, targets: Targets, batch: Batch
) -> tuple[Tensor, Tensor]:
    """Return the loss on the maps, and the share of object pixels that ``dino`` gives to the right class.

    Per map: cross-entropy (rivals' pixels count four times) and dice against the visible object, "nothing"
    for absent objects; over maps: every object pixel belongs to its own class; best and worst pixel; the
    prototypes of different classes apart.
    """
    c = batch.reference_masks.shape[0]
    total = columns.whole.new_zeros(())
    object_pixels = (batch.classes > 0).float().unsqueeze(1)
    rows, ys, xs = torch.nonzero(batch.classes > 0, as_tuple=True)
    wanted = batch.classes[rows, ys, xs] - 1
    for number, (name, share) in enumerate(MAP_SHARES.items()):
        cosine = columns.cosine[name]
        grid = cosine.shape[-1]
        truth, objects = _to_grid(columns.truth.float(), grid), _to_grid(object_pixels, grid)
        weight = 1 + (RIVAL_WEIGHT - 1) * (objects - truth)
        logits = networks.map_scale[number] * (cosine - networks.map_offset[number])
        bce = (
            (weight * F.binary_cross_entropy_with_logits(logits, truth, reduction="none")).flatten(2).mean(-1)
        )
        visible = (columns.truth.flatten(2).sum(-1) >= 4).float()
        seen = ((3 * bce + dice_loss(logits, truth)) * visible).sum() / visible.sum().clamp(min=1)
        unseen = (bce * (1 - visible)).sum() / (1 - visible).sum().clamp(min=1)
        presence = _presence_loss(logits, visible)
        scores = 15 * cosine[rows, :c, ys * grid // SIZE, xs * grid // SIZE]
        total = total + share * (seen + 1.5 * unseen + 0.5 * F.cross_entropy(scores, wanted) + 0.2 * presence)
        if name == "dino":
            right = (scores.argmax(1) == wanted).float().mean()
    total = total + 0.3 * (
        _peak_loss(targets.average, targets.mask) + 0.5 * _peak_loss(targets.extra, targets.mask)
    )
    rest = columns.whole @ columns.whole.T - torch.eye(c, device=wanted.device)
    return total + 0.3 * F.relu(rest - 0.2).sum() / (c * (c - 1)), right


def _presence_loss(logits: Tensor, visible: Tensor) -> Tensor:
    """The best pixel of maps (K, P, G, G) says whether the object is in the picture, ``visible`` (K, P)."""
    peak = logits.flatten(2).amax(-1)
    right = F.binary_cross_entropy_with_logits(peak, visible, reduction="none")
    there, absent = visible, 1 - visible
    return (right * there).sum() / there.sum().clamp(min=1) + (right * absent).sum() / absent.sum().clamp(
        min=1
    )


def _peak_loss(maps: Tensor, inside: Tensor) -> Tensor:
    """The best pixel of maps (R, 84, 84) must be inside, the worst outside."""
    flat, inside = 20 * maps.flatten(1), inside.flatten(1)
    best = torch.logsumexp(flat, 1) - torch.logsumexp(flat.masked_fill(~inside, -60.0), 1)
    worst = torch.logsumexp(-flat, 1) - torch.logsumexp((-flat).masked_fill(inside, -60.0), 1)
    used = inside.any(1).float()
    return ((best + 0.3 * worst) * used).sum() / used.sum().clamp(min=1)


def dice_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Return 1 - dice of sigmoid(logits) and truth over the last two axes."""
    p, t = logits.sigmoid().flatten(-2), truth.flatten(-2)
    return 1 - (2 * (p * t).sum(-1) + 1) / (p.sum(-1) + t.sum(-1) + 1)


def first_prompts(columns: Columns, targets: Targets, generator: Generator) -> tuple[Tensor, Tensor]:
    """Draw the points of pass 1: two thirds from the maps as in the pipeline, one third from the truth.

    Returns:
        points float (R, 6, 2) and labels (R, 6): target, background, two parts, two extra ones.
    """
    n, device = len(targets.row), targets.row.device
    u = torch.rand(n, 8, generator=generator, device=device)
    two = targets.parts.flatten(2).any(-1)
    whole = (targets.column == targets.owner).unsqueeze(1)
    mine = targets.average.detach().flatten(1)
    with torch.no_grad():
        sides = [
            _average(
                {
                    name: m[targets.row, columns.parts[targets.owner, side]]
                    for name, m in columns.cosine.items()
                }
            )
            for side in (0, 1)
        ]
    best = [m.flatten(1).argmax(1) for m in (*sides, targets.extra.detach())]
    one = random_pixels(targets.mask, generator)
    from_map = torch.stack([mine.argmax(1), mine.argmin(1), *best, one], 1)
    some = whole & (u[:, 6:8] < torch.tensor([0.5, 0.1], device=device))
    true = torch.ones_like(whole)
    map_on = torch.cat([true, true, two, some], 1)
    near_rival = (u[:, 0] < 0.4) & targets.rival.flatten(1).any(1)
    outside = torch.where(near_rival.view(-1, 1, 1), targets.rival, ~targets.mask)
    wanted = torch.stack([targets.mask, outside, *targets.parts.unbind(1), targets.mask], 1)
    from_truth = torch.cat([random_pixels(wanted, generator), one.unsqueeze(1)], 1)
    truth_on = torch.cat([true, (u[:, 2:3] > 0.15), two, whole & (u[:, 4:6] < 0.3)], 1)
    use_map = (u[:, 1] < 0.66).unsqueeze(1)
    index = torch.where(use_map, from_map, from_truth)
    sign = torch.ones(6, dtype=torch.long, device=device)
    sign[1] = 0
    labels = torch.where(torch.where(use_map, map_on, truth_on), sign, -1)
    return torch.stack([index % SIZE, index // SIZE], -1).float(), labels


def nothing_prompts(
    targets: Targets, classes: Tensor, points: Tensor, labels: Tensor, generator: Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Let every 20th row point at empty background: the answer is an empty mask."""
    n = len(targets.row)
    chosen = torch.rand(n, generator=generator, device=points.device) < 0.05
    index = random_pixels(classes[targets.row] == 0, generator)
    away = torch.stack([index % SIZE, index // SIZE], -1).float()
    points = points.clone()
    points[:, 0] = torch.where(chosen.unsqueeze(1), away, points[:, 0])
    keep = torch.arange(labels.shape[1], device=labels.device) < 2
    labels = torch.where(chosen.unsqueeze(1) & ~keep, -1, labels)
    return points, labels, targets.mask & ~chosen.view(-1, 1, 1)


def mask_loss(logits: Tensor, iou: Tensor, mask: Tensor, rival: Tensor) -> tuple[Tensor, Tensor]:
    """Return the decoder's loss of one pass (all three masks must obey) and the best masks' IoU.

    Args:
        logits: float (R, 3, 84, 84).
        iou: float (R, 3), predicted.
        mask: bool (R, 84, 84), wanted.
        rival: bool (R, 84, 84).
    """
    logits = logits.float()
    truth = mask.float().unsqueeze(1).expand_as(logits)
    weight = (1 + (RIVAL_WEIGHT - 1) * rival.float()).unsqueeze(1)
    bce = (weight * F.binary_cross_entropy_with_logits(logits, truth, reduction="none")).flatten(2).mean(-1)
    each = dice_loss(logits, truth) + 6 * bce
    loss = 0.3 * each.amin(1).mean() + 0.7 * each.mean()
    found, wanted = logits.detach() > 0, mask.unsqueeze(1)
    both = (found & wanted).flatten(2).sum(-1).float()
    true_iou = both / (found | wanted).flatten(2).sum(-1).clamp(min=1)
    return loss + F.mse_loss(iou.float(), true_iou), true_iou.amax(1).mean()
