"""Masks from the features alone, and extra points by number: formulas, options, saving."""

import numpy as np
import pytest
import torch

from common.errors import ConfigError
from samg import SamgOptions, build_masker, load_masker
from samg.extra_points import choose_extra_points, spread_points
from samg.map_mask import best_level, fit_map_mask
from tests.support.maskers import fake_reference, register_fake, scenes


@pytest.fixture(autouse=True)
def _fake(monkeypatch):
    register_fake(monkeypatch)


def fitted(reference=None, **options):
    return build_masker("fake", **options).fit(reference or fake_reference())


@pytest.mark.parametrize("seed", range(6))
def test_the_level_is_the_best_of_all(seed):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(9, 11, generator=generator) < 0.3
    # Few distinct values in half of the cases: equal pixels can only be kept together.
    noise = torch.rand(9, 11, generator=generator)
    similarity = (mask * 0.4 + noise).mul(4).round() if seed % 2 else mask * 0.4 + noise

    def iou(level):
        kept = similarity > level
        return float((kept & mask).sum() / (kept | mask).sum())

    every = [-1.0, *similarity.flatten().tolist()]
    assert iou(best_level(similarity, mask)) == pytest.approx(max(map(iou, every)))


def test_the_factor_sets_inside_and_outside_ten_logits_apart():
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[2:5, 2:5] = True
    similarity = torch.where(mask, 0.7, 0.2)
    level, factor = fit_map_mask(similarity, mask).tolist()
    assert 0.2 < level < 0.7
    assert factor * (0.7 - 0.2) == pytest.approx(10)


def test_map_masks_are_the_map_above_its_level_and_need_no_decoder():
    masker, (frames, _) = fitted(mask_from="map"), scenes(5)
    masker.networks.decodes = 0
    explained = masker.explain(frames)
    level = masker.fit.map_scale[0]
    assert torch.equal(masker.mask(frames), explained.similarity.double() > level)
    assert torch.equal(explained.mask, masker.mask(frames))
    assert masker.networks.decodes == 0
    assert len(explained.passes) == 1 and explained.boxes is None
    assert explained.points.shape == (5, 3, 2), "the map's best and worst points remain known"


def test_soft_masks_weigh_by_the_map_and_agree_with_the_hard_ones_at_one_half():
    soft, hard, (frames, _) = fitted(mask_from="soft_map"), fitted(mask_from="map"), scenes(5)
    found = soft.mask(frames)
    assert found.dtype == torch.float32 and 0 <= found.min() and found.max() <= 1
    assert ((found > 0.01) & (found < 0.99)).any(), "not just two values"
    assert torch.equal(found > 0.5, hard.mask(frames))
    assert soft.mask(frames[:0]).dtype == torch.float32


@pytest.mark.parametrize(("policy", "value"), [("keep", 0.0), ("raw", 1.0)])
def test_an_absent_target_has_no_soft_mask(policy, value):
    masker = fitted(mask_from="soft_map", presence=0.9999, on_empty=policy)
    frames, _ = scenes(3)
    assert (masker.mask(frames) == value).all()
    assert masker.last_empty.all() and masker.statistics()["empty_pass1"] == 3


@pytest.mark.parametrize("source", ["map", "soft_map"])
def test_maskers_without_a_decoder_survive_saving(tmp_path, source):
    masker, (frames, _) = fitted(mask_from=source), scenes(4)
    masker.save(tmp_path / "masker")
    again = load_masker(tmp_path / "masker")
    assert again.info == masker.info and again.options.mask_from == source
    assert torch.equal(again.mask(frames), masker.mask(frames))


def test_options_are_part_of_the_fingerprint_and_leave_old_ones_alone():
    reference = fake_reference(points=((24, 20), (22, 22)))
    variants = [{}, {"mask_from": "map"}, {"mask_from": "soft_map"}, {"extra_points": 1}, {"extra_points": 4}]
    prints = [fitted(reference, persam=False, **options).info.fingerprint for options in variants]
    assert len(set(prints)) == len(variants)
    named = fitted(reference, persam=False, mask_from="decoder").info
    assert named.fingerprint == prints[0] and named.method["mask_from"] == "decoder"
    none = [fitted(reference, persam=False, extra_points=value).info.fingerprint for value in (0, False)]
    assert none[0] == none[1], "no point is no point"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"extra_points": -1}, "whole number from 0 on"),
        ({"extra_points": 2.0}, "whole number from 0 on"),
        ({"extra_points": None}, "whole number from 0 on"),
        ({"mask_from": "mapp"}, "Did you mean map"),
    ],
)
def test_impossible_values_are_refused(options, words):
    with pytest.raises(ConfigError) as caught:
        SamgOptions.parse(options)
    assert words in str(caught.value)


def test_listed_points_come_first_and_missing_ones_are_spread():
    reference = fake_reference(points=((24, 20), (22, 22)))
    assert choose_extra_points(reference, True).tolist() == [[24, 20], [22, 22]]
    assert choose_extra_points(reference, False).shape == (0, 2)
    assert choose_extra_points(reference, 1).tolist() == [[24, 20]]
    five = choose_extra_points(reference, 5)
    assert five[:2].tolist() == [[24, 20], [22, 22]] and len({tuple(point) for point in five}) == 5
    assert all(reference.mask[int(y), int(x)] for x, y in five)
    assert fitted(reference, persam=False, extra_points=5).fit.report["points"] == 5


def test_each_spread_point_is_the_farthest_from_those_before():
    mask = np.zeros((20, 30), bool)
    mask[3:15, 4:26] = True
    inside = [(x, y) for y in range(4, 14) for x in range(5, 25)]
    found = spread_points(mask, np.array([[7.0, 8.0]]), 4)
    before = [np.array([7.0, 8.0])]
    for point in found:
        reach = [min(np.hypot(*(np.array(pixel) - other)) for other in before) for pixel in inside]
        own = min(np.hypot(*(point - other)) for other in before)
        assert own == pytest.approx(max(reach)) and tuple(point) in inside
        before.append(point)
    first = spread_points(mask, np.zeros((0, 2)), 1)[0]
    assert np.hypot(*(first - [14.5, 8.5])) <= 1


def test_small_masks_give_their_edge_and_then_an_error():
    mask = np.zeros((6, 6), bool)
    mask[2, 1:5] = True  # nothing of it lies inside
    assert len({tuple(p) for p in spread_points(mask, np.zeros((0, 2)), 4)}) == 4
    with pytest.raises(ConfigError, match="only 4 pixels"):
        spread_points(mask, np.zeros((0, 2)), 5)
