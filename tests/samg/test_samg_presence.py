"""An absent target: no mask, counted as empty, on request or where the networks are calibrated."""

import json

import numpy as np
import pytest
import torch

from common.errors import ConfigError
from samg import SamGMasker, SamgOptions, build_masker
from samg.pretraining.backgrounds import background
from samg.pretraining.composites import Banks
from samg.pretraining.data import PART, build_bank
from samg.pretraining.export import export_weights
from samg.pretraining.objects import object_views
from samg.pretraining.presence import calibrate_presence
from samg.segment import Pass, hide_absent
from samg.tiny import TinyNetworks, load_tiny_networks
from tests.support.fake_networks import FakeNetworks
from tests.support.maskers import fake_reference, register_fake, scenes


@pytest.fixture(autouse=True)
def _fake(monkeypatch):
    register_fake(monkeypatch)


def fitted(**options):
    return build_masker("fake", persam=False, **options).fit(fake_reference())


def test_only_frames_whose_best_pixel_stays_below_are_emptied():
    logits = torch.full((2, 3, 3), 2.0)
    logits[:, 0, 0] = -4.0
    one = Pass(torch.zeros(2, 1, 2), torch.ones(2, 1), None, logits, logits[:, None], torch.zeros(2, 3))
    similarity = torch.full((2, 3, 3), 0.2)
    similarity[1, 2, 2] = 0.5
    found = hide_absent(one, similarity, 0.5)
    assert not found.masks[0].any() and torch.equal(found.logits[1], logits[1])


def test_a_threshold_between_the_peaks_separates_present_from_absent():
    frames, _ = scenes(4)
    empty_scene = torch.full_like(frames[:2], 40)
    both = torch.cat([frames, empty_scene])
    plain = fitted(presence=None)
    peaks = plain.explain(both).similarity.flatten(1).amax(1)
    assert peaks[:4].min() > peaks[4:].max(), "the fake networks see the square"
    masker = fitted(presence=float((peaks[:4].min() + peaks[4:].max()) / 2))
    masks = masker.mask(both)
    assert torch.equal(masks[:4], plain.mask(frames)) and masks[:4].flatten(1).any(1).all()
    assert not masks[4:].any()
    counts = masker.statistics()
    assert counts["empty"] == counts["empty_pass1"] == 2
    assert masker.last_empty.tolist() == [False] * 4 + [True] * 2
    assert not masker.explain(both).mask[4:].any()


@pytest.mark.parametrize("policy", ["raw", "previous_pass"])
def test_absence_is_an_empty_mask_to_the_policies(policy):
    frames, _ = scenes(2)
    masks = fitted(presence=0.9999999, on_empty=policy).mask(frames)
    assert masks.all() if policy == "raw" else not masks.any()


def test_auto_is_the_networks_own_calibration_and_never_the_published_code(monkeypatch):
    assert fitted().fit.presence is None
    uncalibrated = fitted().info
    monkeypatch.setattr(FakeNetworks, "presence", 0.25)
    assert fitted().fit.presence == 0.25 and fitted().info.method["presence"] == 0.25
    assert fitted(presence=None).fit.presence is None
    assert fitted(presence=0.5).fit.presence == 0.5
    assert fitted(compat=True).fit.presence is None
    prints = {fitted().info.fingerprint, fitted(presence=0.5).info.fingerprint, uncalibrated.fingerprint}
    assert len(prints) == 3
    assert fitted(presence=None).info.fingerprint == uncalibrated.fingerprint, (
        "asking never is the old method"
    )


def test_the_threshold_is_saved_with_the_masker(monkeypatch, tmp_path):
    monkeypatch.setattr(FakeNetworks, "presence", 0.25)
    masker = fitted()
    masker.save(tmp_path / "m")
    monkeypatch.setattr(FakeNetworks, "presence", 0.75)
    loaded = SamGMasker.load(tmp_path / "m")
    assert loaded.fit.presence == 0.25 and loaded.info.fingerprint == masker.info.fingerprint


@pytest.mark.parametrize("value", ["yes", 1.0, -1, True, float("nan")])
def test_impossible_thresholds(value):
    with pytest.raises(ConfigError, match=r"masker\.presence"):
        SamgOptions.parse({"presence": value})


@pytest.fixture(scope="module")
def banks() -> Banks:
    """Two domains of squares in colours of their own."""

    def squares(colour):
        rng = np.random.default_rng(colour[0])
        frames = np.full((3, 84, 84, 3), 90, np.uint8)
        labels = np.zeros((3, 84, 84), np.uint8)
        for index in range(3):
            x, y = rng.integers(10, 50, 2)
            frames[index, y : y + 20, x : x + 20] = colour
            labels[index, y : y + 20, x : x + 20] = PART
        return {"clean": frames, "labels": labels}

    bank = build_bank({"one": squares((200, 30, 30)), "two": squares((30, 30, 200))})
    views = torch.from_numpy(np.stack([object_views(0, i, 2) for i in range(2)]))
    return Banks(bank, torch.from_numpy(np.stack([background(0, i) for i in range(2)])), views)


def test_calibration_lies_below_nearly_all_visible_objects_and_travels_with_the_weights(banks, tmp_path):
    torch.manual_seed(0)
    networks = TinyNetworks()
    found = calibrate_presence(networks, banks, seed=3, batches=3, composites=4)
    assert found == calibrate_presence(networks, banks, seed=3, batches=3, composites=4)
    assert set(found) == {"dino", "sam", "dino+sam"} and all(-1 < value < 1 for value in found.values())
    assert not networks.training
    networks.presence = found
    record = export_weights(networks, tmp_path / "own.safetensors", {})
    loaded, _ = load_tiny_networks(weights=tmp_path / "own.safetensors")
    assert record["presence"] == found == json.loads(json.dumps(loaded.presence))
    assert loaded.presence_threshold(["sam", "dino"]) == found["dino+sam"]
    assert loaded.presence_threshold(["sam"]) == found["sam"]
    assert TinyNetworks().presence_threshold(["sam"]) is None
