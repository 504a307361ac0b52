"""One masker for several cameras: every view is masked by what its own reference taught, in one batch."""

import json

import pytest
import torch

from common.errors import ConfigError, InputError
from samg import ViewMasker, ViewReferences, build_masker, fit_once, load_masker, load_reference
from samg.artefact import RECORD
from tests.support.maskers import fake_reference, register_fake, scenes


@pytest.fixture(autouse=True)
def fake(monkeypatch):
    register_fake(monkeypatch)


def references():
    """Two cameras, of which the second has a point more."""
    return ViewReferences((fake_reference(), fake_reference(points=((24, 20), (30, 26)))))


def fitted(**options):
    return build_masker("fake", **options).fit(references())


def test_each_view_is_masked_as_by_its_own_masker():
    masker, (frames, _) = fitted(), scenes(6)
    encoded, encode = [], masker.networks.encode
    masker.networks.encode = lambda batch: encoded.append(len(batch)) or encode(batch)
    masks, points, empty = masker.mask(frames), masker.last_points, masker.last_empty
    assert encoded == [6], "one batch"
    assert masker.views == 2 and masks.shape == frames.shape[:3] and points.shape == (6, 2, 2)
    for view, reference in enumerate(references().references):
        alone = build_masker("fake").fit(reference)
        assert torch.equal(masks[view::2], alone.mask(frames[view::2]))
        count = len(reference.points)
        assert (
            torch.equal(points[view::2, :count], alone.last_points) and points[view::2, count:].isnan().all()
        )
        assert torch.equal(empty[view::2], alone.last_empty)
    assert masker.statistics()["frames"] == 6
    assert masker.reference_points.shape == (2, 2, 2)


@pytest.mark.parametrize("batch_size", [None, 1, 2])
def test_a_view_does_not_depend_on_the_moments_beside_it(batch_size):
    masker, (frames, _) = fitted(batch_size=batch_size), scenes(8)
    whole = masker.mask(frames)
    assert torch.equal(masker.mask(frames[2:4]), whole[2:4])
    assert masker.mask(frames[:0]).shape == (0, *frames.shape[1:3]) and masker.last_points.shape == (0, 2, 2)
    with pytest.raises(ValueError, match="whole moments of 2 views, got 3"):
        masker.mask(frames[:3])


def test_an_explanation_has_the_views_in_their_order():
    masker, (frames, _) = fitted(), scenes(4)
    told = masker.explain(frames)
    assert torch.equal(told.mask, masker.mask(frames))
    alone = masker.maskers[0].explain(frames[::2])
    assert torch.equal(told.similarity[::2], alone.similarity)
    count = alone.points.shape[1]
    assert told.points.shape[1] == count + 1
    assert (told.labels[::2] == -1).sum() >= 2, "what one view has more is no point of the other"
    assert torch.equal(told.boxes[::2], alone.boxes)


def test_it_survives_saving_and_is_shared(tmp_path):
    masker, (frames, _) = fitted(), scenes(2)
    masker.save(tmp_path / "masker")
    masker.save(tmp_path / "masker")
    again = load_masker(tmp_path / "masker")
    assert isinstance(again, ViewMasker) and again.info == masker.info
    assert again.info.method["views"] == 2
    assert again.maskers[0].networks is again.maskers[1].networks
    assert torch.equal(again.mask(frames), masker.mask(frames))
    builder = build_masker("fake")
    shared = [fit_once(builder, references(), tmp_path / "shared") for _ in range(2)]
    assert all(torch.equal(one.mask(frames), masker.mask(frames)) for one in shared)
    single = builder.fit(references().references[0])
    assert len({single.info.fingerprint, masker.info.fingerprint, fitted(passes=1).info.fingerprint}) == 3
    with pytest.raises(ConfigError, match="another masker"):
        single.save(tmp_path / "masker")


@pytest.mark.parametrize("views", [True, 10**6])
def test_a_damaged_record_is_refused(tmp_path, views):
    fitted().save(tmp_path / "masker")
    path = tmp_path / "masker" / RECORD
    path.write_text(json.dumps({**json.loads(path.read_text()), "views": views}))
    with pytest.raises(InputError, match="damaged"):
        load_masker(tmp_path / "masker")


def test_references_of_cameras_are_read_and_compared(tmp_path):
    for name, size in (("a", 48), ("b", 40)):
        fake_reference(size, points=()).save(tmp_path / name)
    named = {
        n: {"original_image": tmp_path / n / "image.png", "masked_image": tmp_path / n / "mask_0.png"}
        for n in "ab"
    }
    loaded = load_reference([named["a"], named["a"]], image_size=48)
    assert isinstance(loaded, ViewReferences) and loaded.size == 48
    assert loaded.digest() != load_reference(named["a"]).digest()
    with pytest.raises(InputError, match="48 x 48"):
        load_reference([named["a"], named["b"]])
    with pytest.raises(InputError, match="84 x 84"):
        loaded.check_resolution(84)
