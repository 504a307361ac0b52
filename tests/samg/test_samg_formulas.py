"""Each formula of the pipeline against the slow, obvious way to compute it."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from efficientvit.resize import composed_resize
from samg import features, prompts
from samg.compat import CompatRules
from samg.correspondence import best_points, operator_groups, similarity_maps
from samg.rules import FixedRules
from tests.support.fake_networks import FakeNetworks


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(3)


def test_pooled_feature_is_half_mean_half_maximum(rng):
    feature_map = torch.randn(5, 8, 8, generator=rng)
    cells = torch.rand(8, 8, generator=rng) > 0.6
    chosen = [feature_map[:, y, x] for y in range(8) for x in range(8) if cells[y, x]]
    vector = sum(chosen) / len(chosen) / 2 + torch.stack(chosen).max(0).values / 2
    expected = vector / vector.norm()
    torch.testing.assert_close(features.pooled_feature(feature_map, cells), expected)


def test_point_features_mix_the_four_nearest_cell_centres(rng):
    feature_map = torch.randn(4, 8, 8, generator=rng)
    points = torch.tensor([[0.0, 0.0], [41.3, 17.0], [83.0, 83.0], [60.0, 83.0]])
    found = features.point_features(feature_map, points, (84, 84))
    for point, feature in zip(points, found, strict=True):
        x, y = ((value + 0.5) * 8 / 84 - 0.5 for value in point)
        expected = torch.zeros(4)
        for row in range(-1, 9):
            for column in range(-1, 9):
                weight = max(0, 1 - abs(x - column)) * max(0, 1 - abs(y - row))
                expected += weight * feature_map[:, min(max(row, 0), 7), min(max(column, 0), 7)]
        torch.testing.assert_close(feature, expected / expected.norm(), atol=1e-6, rtol=1e-5)


def test_compat_points_lie_half_a_cell_off_and_never_leave_the_grid(rng):
    feature_map = torch.randn(4, 64, 64, generator=rng)
    points = torch.tensor([[10.0, 20.0], [83.0, 83.0]])
    found = CompatRules().point_features(feature_map, points, (84, 84))
    x, y = 10 * 64 / 84, 20 * 64 / 84
    left, top, dx, dy = int(x), int(y), x - int(x), y - int(y)
    expected = (
        feature_map[:, top, left] * (1 - dx) * (1 - dy)
        + feature_map[:, top, left + 1] * dx * (1 - dy)
        + feature_map[:, top + 1, left] * (1 - dx) * dy
        + feature_map[:, top + 1, left + 1] * dx * dy
    )
    torch.testing.assert_close(found[0], F.normalize(expected, dim=0), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found[1], F.normalize(feature_map[:, 63, 63], dim=0))


def test_mask_on_grid_takes_cells_covered_by_half_and_never_none():
    mask = torch.zeros(84, 84, dtype=torch.bool)
    mask[21:63, 42:84] = True
    cells = features.mask_on_grid(mask, 4)
    expected = torch.zeros(4, 4, dtype=torch.bool)
    expected[1:3, 2:] = True
    assert torch.equal(cells, expected)
    speck = torch.zeros(84, 84, dtype=torch.bool)
    speck[30, 70] = True
    assert features.mask_on_grid(speck, 4).nonzero().tolist() == [[1, 3]]


def test_compat_pools_over_the_reddish_part_only():
    cutout = torch.zeros(84, 84, 3, dtype=torch.uint8)
    cutout[:42, :42, 0] = 200
    cutout[42:, 42:, 1:] = 255
    cells = CompatRules().pooling_cells(torch.ones(84, 84, dtype=torch.bool), cutout, 64)
    expected = torch.zeros(64, 64, dtype=torch.bool)
    expected[:32, :32] = True
    assert torch.equal(cells, expected)
    assert int(CompatRules().training_mask(torch.ones(84, 84), cutout).sum()) == 42 * 42


def test_similarity_averages_resized_cosines_over_encoders(rng):
    networks = FakeNetworks()
    frames = torch.randint(0, 256, (2, 40, 40, 3), generator=rng, dtype=torch.uint8)
    maps = networks.encode(frames).maps
    targets = {
        name: F.normalize(torch.randn(3, value.shape[1], generator=rng), dim=1)
        for name, value in maps.items()
    }
    groups = operator_groups(networks, networks.encoders, 40, torch.device("cpu"))
    assert sorted(len(group.encoders) for group in groups) == [1, 2]
    found = similarity_maps(maps, targets, groups)
    for frame in range(2):
        for target in range(3):
            total = torch.zeros(40, 40)
            for name in networks.encoders:
                cells = F.cosine_similarity(maps[name][frame], targets[name][target, :, None, None], dim=0)
                total += F.interpolate(cells[None, None], size=40, mode="bilinear")[0, 0]
            torch.testing.assert_close(found[frame, target], total.double() / 3, atol=1e-5, rtol=1e-5)


def test_best_points_are_those_of_the_similarity_maps(rng):
    networks = FakeNetworks()
    frames = torch.randint(0, 256, (1, 40, 40, 3), generator=rng, dtype=torch.uint8)
    maps = networks.encode(frames).maps
    groups = operator_groups(networks, networks.encoders, 40, torch.device("cpu"))
    targets = {
        name: F.normalize(torch.randn(600, value.shape[1], generator=rng), dim=1)
        for name, value in maps.items()
    }
    expected = similarity_maps(maps, targets, groups)[0].flatten(1).argmax(1)
    assert torch.equal(best_points(maps, targets, groups), expected)


def test_composed_operator_keeps_the_maximum_of_the_published_chain():
    """64 -> 256 -> 1024 -> 84, as the published code resizes, on maps of several smoothnesses."""
    operator = composed_resize((64, 256, 1024), 84).double()
    rng = torch.Generator().manual_seed(0)
    for batch in range(4):
        maps = torch.randn(20, 1, 64, 64, generator=rng, dtype=torch.float64)
        for _ in range(batch % 4):
            maps = F.avg_pool2d(maps, 5, stride=1, padding=2)
        chain = F.interpolate(maps, scale_factor=4, mode="bilinear", align_corners=False)
        chain = F.interpolate(chain, size=(1024, 1024), mode="bilinear", align_corners=False)
        chain = F.interpolate(chain, size=(84, 84), mode="bilinear", align_corners=False)
        found = operator @ maps @ operator.T
        assert torch.equal(found.flatten(1).argmax(1), chain.flatten(1).argmax(1))
        torch.testing.assert_close(found, chain, atol=1e-5, rtol=0)


def brute_lowest(values, rows, columns):
    best, where = np.inf, (0, 0)
    for y in rows:
        for x in columns:
            if values[y, x] < best:
                best, where = values[y, x], (x, y)
    return where


def test_points_are_extremes_in_reading_order(rng):
    maps = torch.randint(0, 20, (3, 4, 9, 9), generator=rng).double()
    found = prompts.highest_points(maps)
    lowest = prompts.lowest_points(maps[:, 0])
    for frame in range(3):
        for target in range(4):
            x, y = brute_lowest(-maps[frame, target].numpy(), range(9), range(9))
            assert found[frame, target].tolist() == [x, y]
        assert tuple(lowest[frame].tolist()) == brute_lowest(maps[frame, 0].numpy(), range(9), range(9))


def test_box_negatives_fixed_and_compat(rng):
    maps = torch.rand(6, 9, 9, generator=rng)
    boxes = torch.tensor(
        [[2, 3, 6, 7], [0, 0, 8, 8], [4, 4, 4, 8], [5, 5, 5, 5], [8, 0, 8, 8], [1, 7, 3, 8]]
    ).float()
    empty = torch.tensor([False, False, False, False, False, True])
    fixed, fixed_labels = FixedRules().box_negative(maps, boxes, empty)
    compat, compat_labels = CompatRules().box_negative(maps, boxes, empty)
    for index, (x0, y0, x1, y1) in enumerate(boxes.int().tolist()):
        values = maps[index].numpy()
        inside = brute_lowest(values, range(y0, y1 + 1), range(x0, x1 + 1))
        assert tuple(fixed[index].tolist()) == inside
        assert tuple(compat[index].tolist()) == brute_lowest(values, range(y0, y1), range(x0, x1))
    assert fixed_labels.tolist() == [0, 0, 0, 0, 0, -1]
    assert compat_labels.tolist() == [0] * 6
    assert compat[3].tolist() == [0, 0]


def test_compat_global_negative_leaves_out_the_last_row_and_column():
    maps = torch.ones(1, 9, 9)
    maps[0, 8, 3] = maps[0, 2, 8] = -1
    maps[0, 5, 6] = 0
    assert CompatRules().global_negative(maps).tolist() == [[6, 5]]
    assert FixedRules().global_negative(maps).tolist() == [[8, 2]]


def test_third_negative_is_a_duplicate_in_compat_only():
    maps = torch.arange(81.0).view(1, 9, 9)
    box, empty = torch.tensor([[3.0, 3.0, 6.0, 6.0]]), torch.tensor([False])
    assert CompatRules().last_negative(maps, box, empty)[0].tolist() == [[0, 0]]
    assert FixedRules().last_negative(maps, box, empty)[0].tolist() == [[3, 3]]


def test_boxes_touch_the_first_and_last_pixel(rng):
    masks = torch.rand(20, 12, 12, generator=rng) > 0.97
    masks[0] = False
    fallback = FixedRules().fallback_box((12, 12))
    boxes, empty = prompts.mask_boxes(masks, fallback)
    for mask, box, none in zip(masks, boxes, empty, strict=True):
        y, x = np.nonzero(mask.numpy())
        assert bool(none) == (len(x) == 0)
        expected = [x.min(), y.min(), x.max(), y.max()] if len(x) else [0, 0, 11, 11]
        assert box.tolist() == expected
    assert CompatRules().fallback_box((84, 84)) == (1, 1, 83, 83)


def test_first_prompts_are_target_background_parts():
    maps = torch.zeros(1, 3, 9, 9)
    maps[0, 0, 4, 2] = maps[0, 1, 1, 7] = maps[0, 2, 8, 8] = 1
    points, labels = prompts.frame_prompts(maps, torch.tensor([[5.0, 6.0]]))
    assert points.tolist() == [[[2, 4], [5, 6], [7, 1], [8, 8]]]
    assert labels.tolist() == [[1, 0, 1, 1]]


def test_similarity_needs_an_encoder():
    with pytest.raises(ValueError, match="at least one encoder"):
        similarity_maps({}, {}, ())
