"""What every masker promises: shape, type, device, determinism, independence of neighbours, refusals."""

import json

import pytest
import torch

from common.masking import MaskerInfo, ObservationMasker
from samg import build_masker
from samg.reference import Reference
from tests.support.maskers import fake_reference, register_fake, scenes
from tests.support.scenes import scene

CASES = {
    "none": ("none", {}),
    "groundtruth": ("groundtruth", {}),
    "samg": ("fake", {}),
    "samg-compat": ("fake", {"compat": True}),
    "samg-padded": ("fake", {"batch_size": 4}),
    "samg-soft-map": ("fake", {"mask_from": "soft_map", "extra_points": 3}),
    "samg-map-prompt": ("fake", {"map_prompt": True, "on_empty": "previous_pass"}),
    "tiny": ("tiny", {}),
}
SIZES = {"tiny": 84}


@pytest.fixture(scope="module", autouse=True)
def _fake():
    with pytest.MonkeyPatch.context() as patch:
        register_fake(patch)
        yield


@pytest.fixture(scope="module", params=CASES)
def case(request):
    """Return a fitted masker, and frames with their foreground."""
    variant, options = CASES[request.param]
    size = SIZES.get(variant, 48)
    if variant == "tiny":
        from samg.tiny import WEIGHTS

        if not WEIGHTS.is_file():
            pytest.skip("the embedded weights are not in this checkout")
    reference = None
    if variant == "fake":
        reference = fake_reference()
    elif variant == "tiny":
        reference = Reference.from_arrays(*scene(seed=1, size=84), points=[[40, 40]])
    return build_masker(variant, **options).fit(reference), *scenes(7, size)


def test_shape_type_and_untouched_input(case):
    masker, frames, foreground = case
    before = frames.clone()
    mask = masker.mask(frames, foreground)
    assert mask.shape == frames.shape[:3]
    assert mask.dtype == torch.bool or (mask.min() >= 0 and mask.max() <= 1)
    assert mask.device == frames.device
    assert torch.equal(frames, before)
    assert not mask.is_inference(), "a mask must be usable in later gradient computations"


def test_no_frames(case):
    masker, frames, foreground = case
    assert masker.mask(frames[:0], foreground[:0]).shape == (0, *frames.shape[1:3])


def test_neighbours_do_not_matter(case):
    masker, frames, foreground = case
    together = masker.mask(frames, foreground)
    for index in (0, 3, 6):
        alone = masker.mask(frames[index : index + 1], foreground[index : index + 1])
        assert torch.equal(alone[0], together[index])
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    assert torch.equal(masker.mask(frames[order], foreground[order]), together[order])


def test_deterministic(case):
    masker, frames, foreground = case
    assert torch.equal(masker.mask(frames, foreground), masker.mask(frames, foreground))


def test_satisfies_the_protocol(case):
    masker, _, _ = case
    assert isinstance(masker, ObservationMasker)
    assert isinstance(masker.info, MaskerInfo)
    assert len(masker.info.fingerprint) == 64
    told = masker.info.to_dict()
    assert json.loads(json.dumps(told)) == told
    assert told["variant"] == masker.info.variant
    fitted = masker.info.name == "samg"
    assert bool(told["method"]) == bool(told["weights"]) == fitted, "baselines have neither"


@pytest.mark.parametrize("change", ["float", "three axes", "channels first", "numpy", "another size"])
def test_wrong_input_is_refused_with_expected_and_got(case, change):
    masker, frames, foreground = case
    if masker.info.variant == "none" and change == "another size":
        pytest.skip("every size has a full mask")
    wrong = {
        "float": frames.float(),
        "three axes": frames[0],
        "channels first": frames.permute(0, 3, 1, 2),
        "numpy": frames.numpy(),
        "another size": frames[:, :20],
    }[change]
    with pytest.raises(ValueError, match=r"expected .* got "):
        masker.mask(wrong, foreground if masker.info.variant == "groundtruth" else None)


def test_counts_frames_and_empty_masks(case):
    masker, frames, foreground = case
    masker.reset_statistics()
    masker.mask(frames, foreground)
    masker.mask(frames[:2], foreground[:2])
    found = masker.statistics()
    assert found["frames"] == 9
    assert 0 <= found["empty"] <= 9 and found["empty_share"] == found["empty"] / 9
    masker.reset_statistics()
    assert masker.statistics()["frames"] == 0


def test_saved_and_loaded_masks_are_the_same(case, tmp_path):
    from samg import load_masker

    masker, frames, foreground = case
    masker.save(tmp_path / "masker")
    again = load_masker(tmp_path / "masker")
    (tmp_path / "empty").mkdir()
    masker.save(tmp_path / "empty")  # a directory without content is as good as none
    assert load_masker(tmp_path / "empty").info == masker.info
    assert again.info == masker.info
    assert torch.equal(again.mask(frames, foreground), masker.mask(frames, foreground))
    masker.save(tmp_path / "masker")  # the same masker again: nothing to do
    assert not any(path.suffix in (".pt", ".pkl", ".pickle") for path in (tmp_path / "masker").rglob("*"))
