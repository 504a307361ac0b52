"""Fitting the mask weights: the cached way against the published loop."""

import math

import pytest
import torch
import torch.nn.functional as F

from samg.correspondence import operator_groups, similarity_maps
from samg.features import unit_noise
from samg.identify import identify
from samg.persam import (
    adapt,
    decode_distinct,
    dice_loss,
    fit_weights,
    focal_loss,
    loss_gradient,
    training_prompts,
)
from samg.prompts import frame_prompts
from samg.reference import Reference
from samg.rules import FixedRules
from tests.support.scenes import scene

CPU = torch.device("cpu")


@pytest.fixture
def found(fake_networks):
    image, mask = scene(seed=1, size=48, texture=20)
    reference = Reference.from_arrays(image, mask, points=[[24, 20], [20, 24]], part_masks=[mask])
    identity = identify(fake_networks, reference, FixedRules(), fake_networks.encoders, CPU)
    return fake_networks, identity, operator_groups(fake_networks, fake_networks.encoders, 48, CPU)


def test_losses_by_hand():
    logits, target = torch.tensor([2.0, -1.0, 0.5]), torch.tensor([1.0, 0.0, 1.0])
    p = [1 / (1 + 2.718281828459045**-z) for z in logits.tolist()]
    overlap, total = p[0] + p[2], sum(p) + 2
    assert float(dice_loss(logits, target)) == pytest.approx(1 - (2 * overlap + 1) / (total + 1), rel=1e-5)
    focal = [
        0.25 * (1 - p[0]) ** 2 * -math.log(p[0]),
        0.75 * p[1] ** 2 * -math.log(1 - p[1]),
        0.25 * (1 - p[2]) ** 2 * -math.log(p[2]),
    ]
    assert float(focal_loss(logits, target)) == pytest.approx(sum(focal) / 3, rel=1e-5)


def test_written_out_gradient_is_that_of_the_losses():
    generator = torch.Generator().manual_seed(1)
    logits = (4 * torch.randn(500, generator=generator, dtype=torch.float64)).requires_grad_()
    target = (torch.rand(500, generator=generator) > 0.7).double()
    (dice_loss(logits, target) + focal_loss(logits, target)).backward()
    torch.testing.assert_close(loss_gradient(logits.detach(), target), logits.grad, atol=1e-12, rtol=1e-9)


def test_gradient_of_extreme_logits_is_that_of_the_losses():
    logits = torch.tensor([-200.0, -60.0, -21.0, 21.0, 60.0, 200.0] * 2).requires_grad_()
    target = torch.tensor([0.0] * 6 + [1.0] * 6)
    (dice_loss(logits, target) + focal_loss(logits, target)).backward()
    torch.testing.assert_close(loss_gradient(logits.detach(), target), logits.grad, atol=1e-7, rtol=1e-6)


def uncached_loop(networks, identity, groups, generator, iterations):
    """Decode in every iteration, as published, with the same noise."""
    names = [name for group in groups for name in group.encoders]
    noise = {name: unit_noise((iterations, 2, identity.targets[name].shape[1]), generator) for name in names}
    free = torch.nn.Parameter(torch.full((2,), 1 / 3))
    optimizer = torch.optim.AdamW([free], lr=1e-3, eps=1e-4, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    target = identity.mask.flatten().float().clone()
    seen = set()
    for step in range(iterations):
        noisy = {}
        for name in names:
            moved = identity.targets[name].clone()
            moved[-2:] = F.normalize(moved[-2:] + 0.01 * noise[name][step], dim=1)
            noisy[name] = moved
        similarity = similarity_maps({k: v.clone() for k, v in identity.maps.items()}, noisy, groups)
        points, labels = frame_prompts(similarity, FixedRules().global_negative(similarity[:, 0]))
        seen.add(tuple(points.flatten().tolist()))
        with torch.no_grad():
            masks = networks.decode(identity.embedding.clone(), (48, 48), points, labels).logits[0].flatten(1)
        weights = torch.cat((1 - free.sum(0, keepdim=True), free))
        logits = (weights[:, None] * masks).sum(0)
        loss = dice_loss(logits, target) + focal_loss(logits, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return torch.cat((1 - free.sum(0, keepdim=True), free)).detach(), seen


def test_cached_fit_equals_the_uncached_loop(found):
    networks, identity, groups = found
    expected, seen = uncached_loop(networks, identity, groups, torch.Generator().manual_seed(5), 150)
    networks.decoded_sets = 0
    adapted = adapt(
        networks, identity, groups, FixedRules(), torch.Generator().manual_seed(5), iterations=150
    )
    torch.testing.assert_close(adapted.weights, expected, atol=2e-6, rtol=0)
    assert adapted.point_sets == len(seen) == networks.decoded_sets
    assert len(seen) > 1, "the scene must be hard enough for the noise to matter"
    assert adapted.weights.sum() == pytest.approx(1, abs=1e-6)


def test_same_seed_same_weights_and_global_generators_untouched(found):
    networks, identity, groups = found
    state = torch.get_rng_state()
    first, second = (
        adapt(networks, identity, groups, FixedRules(), torch.Generator().manual_seed(9), iterations=60)
        for _ in range(2)
    )
    assert torch.equal(first.weights, second.weights)
    assert torch.equal(state, torch.get_rng_state())


def test_only_points_get_noise(found):
    _, identity, groups = found
    points, labels = training_prompts(identity, groups, FixedRules(), torch.Generator().manual_seed(0), 200)
    assert points.shape == (200, 5, 2) and labels.tolist() == [1, 0, 1, 1, 1]
    assert torch.equal(points[:, :3], points[:1, :3].expand(200, -1, -1))
    assert len(torch.unique(points[:, 3:], dim=0)) > 1


def test_distinct_sets_are_decoded_in_batches_and_reassembled(found):
    networks, identity, _ = found
    points = torch.randint(0, 48, (20, 3, 2)).float().repeat(3, 1, 1)
    logits, index = decode_distinct(networks, identity.embedding, (48, 48), points, torch.tensor([1, 0, 1]))
    assert len(logits) == 20 and index.shape == (60,)
    for step in (0, 7, 33, 59):
        alone = networks.decode(
            identity.embedding, (48, 48), points[step : step + 1], torch.tensor([[1, 0, 1]])
        )
        torch.testing.assert_close(logits[index[step]], alone.logits[0], atol=1e-6, rtol=1e-6)


def test_fit_prefers_the_mask_that_matches():
    target = torch.zeros(20, 20, dtype=torch.bool)
    target[5:15, 5:15] = True
    right = torch.where(target, 6.0, -6.0)
    logits = torch.stack((-right, right, torch.zeros(20, 20)))[None]
    weights, losses = fit_weights(logits, torch.zeros(500, dtype=torch.int64), target)
    assert losses[1] < losses[0]
    assert weights[1] > weights[0]
