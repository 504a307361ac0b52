"""The masker as a whole on fake networks: passes, empty masks, padding, options, saving, errors."""

import json

import pytest
import torch

from common.errors import ConfigError, InputError, NonFiniteError, ResourceError, SamgError
from efficientvit.output import SamOutput
from samg import SamGMasker, SamgOptions, build_masker, load_masker
from samg.baselines import GroundTruthMasker
from samg.masker import Source
from samg.reference import Reference
from samg.segment import Pass, best_masks, resolve_empty, weighted_masks
from tests.support.fake_networks import FakeNetworks
from tests.support.maskers import fake_reference, register_fake, scenes
from tests.support.scenes import scene


@pytest.fixture(autouse=True)
def _fake(monkeypatch):
    register_fake(monkeypatch)


def fitted(**options):
    return build_masker("fake", **options).fit(fake_reference())


def iou(found, wanted):
    return float(((found & wanted).flatten(1).sum(1) / (found | wanted).flatten(1).sum(1)).mean())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compat": True},
        {"passes": 1},
        {"passes": 2},
        {"persam": False},
        {"extra_points": False},
        {"encoders": ["fine"]},
        {"encoders": "coarse"},
        {"map_prompt": True},
    ],
    ids=str,
)
def test_finds_the_square_wherever_it_is(options):
    frames, masks = scenes(6)
    assert iou(fitted(**options).mask(frames), masks) > 0.6


def test_batch_equals_single_frames_in_logits():
    masker, (frames, _) = fitted(), scenes(8)
    together = masker.explain(frames)
    for index in range(8):
        alone = masker.explain(frames[index : index + 1])
        for one, many in zip(alone.passes, together.passes, strict=True):
            torch.testing.assert_close(one.logits[0], many.logits[index], atol=1e-4, rtol=0)
            assert torch.equal(one.points[0], many.points[index])


def test_padding_fixes_the_batch_and_is_not_counted(monkeypatch):
    masker, (frames, _) = fitted(batch_size=4), scenes(7)
    seen = []
    encode = masker.networks.encode
    monkeypatch.setattr(masker.networks, "encode", lambda batch: seen.append(len(batch)) or encode(batch))
    expected = fitted().mask(frames)
    assert torch.equal(masker.mask(frames), expected)
    assert seen == [4, 4]
    assert masker.statistics()["frames"] == 7
    assert masker.explain(frames).mask.shape == expected.shape


def test_large_batches_go_through_a_cpu_in_parts(monkeypatch):
    masker, (frames, _) = fitted(), scenes(19)
    seen = []
    encode = masker.networks.encode
    monkeypatch.setattr(masker.networks, "encode", lambda batch: seen.append(len(batch)) or encode(batch))
    masks = masker.mask(frames)
    assert seen == [8, 8, 3] and masker.statistics()["frames"] == 19
    assert len(masker.last_empty) == len(masker.last_points) == 19
    assert torch.equal(masks, torch.cat([masker.mask(frames[i : i + 1]) for i in range(19)]))
    assert [masker.batch_for(count) for count in (0, 3, 64)] == [0, 3, 8]
    assert fitted(batch_size=32).batch_for(64) == 32


def test_explanation_holds_everything_on_the_cpu():
    masker, (frames, _) = fitted(), scenes(3)
    found = masker.explain(frames)
    assert found.similarity.shape == (3, 48, 48) and found.similarity.dtype == torch.float32
    assert found.part_similarity.shape == (3, 1, 48, 48)
    assert [one.points.shape for one in found.passes] == [(3, 3, 2), (3, 4, 2), (3, 5, 2)]
    assert found.points.shape == (3, 5, 2) and found.labels.shape == (3, 5)
    assert found.passes[0].boxes is None and found.boxes.shape == (3, 4)
    assert torch.equal(found.mask, masker.mask(frames))
    assert masker.statistics()["frames"] == 3, "explaining is not masking"
    with pytest.raises(ValueError, match="at least one"):
        masker.explain(frames[:0])


def one_pass(masks):
    count = len(masks)
    logits = torch.where(masks, 1.0, -1.0)
    return Pass(
        torch.zeros(count, 1, 2), torch.zeros(count, 1), None, logits, logits[:, None], torch.zeros(count, 3)
    )


def test_policies_for_empty_masks():
    full, none = torch.ones(4, 4, dtype=torch.bool), torch.zeros(4, 4, dtype=torch.bool)
    one = none.clone()
    one[1, 2] = True
    done = [one_pass(torch.stack((one, one, none))), one_pass(torch.stack((full, full, none)))]
    done.append(one_pass(torch.stack((one, none, none))))
    assert resolve_empty(done, "keep").flatten(1).sum(1).tolist() == [1, 0, 0]
    assert resolve_empty(done, "raw").flatten(1).sum(1).tolist() == [1, 16, 16]
    assert resolve_empty(done, "previous_pass").flatten(1).sum(1).tolist() == [1, 16, 0]


def test_empty_masks_are_counted_per_pass(monkeypatch):
    masker, (frames, _) = fitted(), scenes(5)
    decode = masker.networks.decode

    def blind(embedding, size, points, labels, boxes=None, mask_inputs=None):
        found = decode(embedding, size, points, labels, boxes, mask_inputs)
        return found if boxes is None else found._replace(logits=found.logits.abs() * -1)

    monkeypatch.setattr(masker.networks, "decode", blind)
    assert not masker.mask(frames).any()
    counts = masker.statistics()
    assert (counts["frames"], counts["empty_pass1"], counts["empty_pass2"], counts["empty"]) == (5, 0, 5, 5)
    assert counts["empty_share"] == 1


@pytest.mark.parametrize("policy", ["keep", "raw", "previous_pass"])
def test_last_empty_tells_what_the_policy_hides(monkeypatch, policy):
    masker, (frames, _) = fitted(on_empty=policy, batch_size=2), scenes(3)
    assert masker.last_empty is None
    decode = masker.networks.decode

    def blind_to_the_first(embedding, size, points, labels, boxes=None, mask_inputs=None):
        found = decode(embedding, size, points, labels, boxes, mask_inputs)
        if boxes is None:
            return found
        return found._replace(logits=torch.cat((-found.logits[:1].abs(), found.logits[1:])))

    monkeypatch.setattr(masker.networks, "decode", blind_to_the_first)
    masks = masker.mask(frames)
    assert masker.last_empty.tolist() == [True, False, True]  # the first frame of either batch of two
    assert (not masks[0].any()) == (policy == "keep")
    assert not masker.last_empty.is_inference()
    masker.mask(frames[:0])
    assert masker.last_empty.shape == (0,)


@pytest.mark.parametrize("options", [{}, {"extra_points": False}, {"extra_points": 3}, {"mask_from": "map"}])
def test_last_points_are_where_the_references_points_were_found(options):
    masker, (frames, _) = fitted(batch_size=2, **options), scenes(3)
    assert masker.last_points is None
    masker.mask(frames)
    found, shown = masker.last_points, masker.explain(frames)
    count = len(masker.reference_points)
    assert found.shape == (3, count, 2) and not found.is_inference()
    assert count == {False: 0, 3: 3}.get(options.get("extra_points"), len(masker.reference.points))
    for number in range(count):  # each is the highest pixel of the map of that point
        maps = shown.part_similarity[:, shown.part_similarity.shape[1] - count + number]
        best = maps.flatten(1).argmax(1)
        expected = torch.stack((best % maps.shape[-1], best // maps.shape[-1]), 1)
        assert torch.equal(found[:, number], expected.float())
    masker.mask(frames[:0])
    assert masker.last_points.shape == (0, count, 2)


def test_info_names_method_and_weights():
    info = fitted(compat=True, passes=2, seed=3, weights="1").info
    assert info.method["rules"] == "compat" and info.method["encoders"] == ["coarse", "fine", "other"]
    expected = {"passes": 2, "persam": True, "extra_points": True, "map_prompt": False, "on_empty": "keep"}
    assert expected.items() <= info.method.items() and info.method["seed"] == 3
    assert info.weights["digest"] == "digest-1"


def test_identity_of_weights_has_no_paths():
    record = {"sha256": "a", "files": [{"filename": "l1.pt", "release": "2024-02"}], "folder": "/home/me"}
    identity = Source("paper", "a", "/home/me/weights", {"sam": "l1"}, record).identity()
    assert identity["files"] == record["files"] and identity["settings"] == {"sam": "l1"}
    assert "/home/me" not in json.dumps(identity)


def test_relative_weights_are_found_from_another_directory(tmp_path, monkeypatch):
    from samg.tiny import WEIGHTS

    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "own.safetensors").write_bytes(WEIGHTS.read_bytes())
    monkeypatch.chdir(tmp_path)
    reference = Reference.from_arrays(*scene(size=84))
    masker = build_masker("tiny", weights="own.safetensors", persam=False).fit(reference)
    masker.save("saved")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert SamGMasker.load("../saved").info == masker.info


def test_empty_first_mask_gives_whole_frame_box_and_no_point(monkeypatch):
    masker, (frames, _) = fitted(passes=2), scenes(2)
    decode = masker.networks.decode

    def blind_to_the_second(embedding, size, points, labels, boxes=None, mask_inputs=None):
        found = decode(embedding, size, points, labels, boxes, mask_inputs)
        return found._replace(logits=torch.cat((found.logits[:1], torch.zeros_like(found.logits[1:]))))

    monkeypatch.setattr(masker.networks, "decode", blind_to_the_second)
    second = masker.explain(frames).passes[1]
    assert second.labels[:, -1].tolist() == [0, -1]
    assert second.boxes[0].tolist() != [0, 0, 47, 47]
    assert second.boxes[1].tolist() == [0, 0, 47, 47]


def test_weighted_and_best_masks():
    output = SamOutput(
        torch.randn(2, 3, 6, 6), torch.tensor([[0.1, 0.9, 0.2], [0.3, 0.2, 0.1]]), torch.randn(2, 3, 4, 4)
    )
    logits, low = weighted_masks(output, torch.tensor([0.5, -0.25, 0.75]))
    expected = 0.5 * output.logits[:, 0] - 0.25 * output.logits[:, 1] + 0.75 * output.logits[:, 2]
    torch.testing.assert_close(logits, expected)
    assert low.shape == (2, 1, 4, 4)
    logits, low = best_masks(output)
    assert torch.equal(logits[0], output.logits[0, 1]) and torch.equal(logits[1], output.logits[1, 0])
    assert torch.equal(low[0, 0], output.low_res[0, 1]) and torch.equal(low[1, 0], output.low_res[1, 0])


def test_passes_use_box_mask_prompt_and_one_more_negative_each(monkeypatch):
    masker, (frames, _) = fitted(), scenes(1)
    calls = []
    decode = masker.networks.decode

    def spy(embedding, size, points, labels, boxes=None, mask_inputs=None):
        calls.append((points.shape[1], boxes, mask_inputs))
        return decode(embedding, size, points, labels, boxes, mask_inputs)

    monkeypatch.setattr(masker.networks, "decode", spy)
    found = masker.explain(frames)
    assert [count for count, _, _ in calls] == [3, 4, 5]
    assert calls[0][1] is None and calls[0][2] is None
    for number in (1, 2):
        before = found.passes[number - 1]
        y, x = before.masks[0].nonzero().T
        assert calls[number][1][0].tolist() == [x.min(), y.min(), x.max(), y.max()]
        assert torch.equal(calls[number][2], before.low_res)
        px, py = found.passes[number].points[0, -1].tolist()
        window = found.similarity[0, y.min() : y.max() + 1, x.min() : x.max() + 1]
        assert found.similarity[0, int(py), int(px)] == window.min()


def test_fingerprint_follows_weights_reference_and_method():
    base = fitted(persam=False)
    assert fitted(persam=False).info.fingerprint == base.info.fingerprint
    assert fitted(persam=False, batch_size=8).info.fingerprint == base.info.fingerprint
    others = [
        fitted(persam=False, compat=True),
        fitted(persam=False, passes=2),
        fitted(persam=False, on_empty="raw"),
        fitted(persam=False, encoders=["fine"]),
        fitted(persam=False, weights="1"),
        build_masker("fake", persam=False).fit(fake_reference(points=())),
    ]
    prints = {one.info.fingerprint for one in others} | {base.info.fingerprint}
    assert len(prints) == 7
    assert fitted().info.fingerprint not in prints
    assert SamgOptions.parse({"encoders": None}) == SamgOptions()
    one, other = (
        fitted(persam=False, encoders=["fine", "coarse"]),
        fitted(persam=False, encoders=["coarse", "fine"]),
    )
    assert one.info == other.info, "the order of naming does not matter"
    named = fitted(persam=False, encoders=["other", "coarse", "fine"])
    assert named.info.fingerprint == base.info.fingerprint, "naming all encoders is the default"


def test_networks_are_loaded_once_and_only_when_fitting(monkeypatch):
    from samg import build

    loads = []
    known = build.NETWORKS["fake"]
    counted = build.NetworkSet(lambda *args: loads.append(1) or known.load(*args), known.encoders, ())
    monkeypatch.setitem(build.NETWORKS, "fake", counted)
    builder = build_masker("fake")
    with pytest.raises(ConfigError, match="needs a reference"):
        builder.fit(None)
    assert not loads
    builder.fit(fake_reference())
    builder.fit(fake_reference(points=()))
    assert len(loads) == 1


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: build_masker("tinny"), ConfigError, "Did you mean tiny?"),
        (lambda: build_masker("paper", pases=2), ConfigError, "Did you mean passes?"),
        (lambda: build_masker("paper", presicion="x"), ConfigError, "Did you mean precision?"),
        (lambda: build_masker("tiny", passes=4), ConfigError, "expected 1, 2 or 3"),
        (lambda: build_masker("tiny", passes=True), ConfigError, "expected 1, 2 or 3"),
        (lambda: build_masker("tiny", batch_size=0), ConfigError, "batch_size"),
        (lambda: build_masker("tiny", persam="yes"), ConfigError, "true or false"),
        (lambda: build_masker("tiny", seed=-1), ConfigError, "seed"),
        (lambda: build_masker("tiny", on_empty="kep"), ConfigError, "Did you mean keep?"),
        (lambda: build_masker("tiny", encoders=["dinov2"]), ConfigError, "Did you mean dino?"),
        (lambda: build_masker("tiny", encoders=3), ConfigError, "list of names"),
        (lambda: build_masker("tiny", encoders=[]), ConfigError, "empty list"),
        (lambda: build_masker("none", passes=2), ConfigError, "no setting 'passes'"),
        (lambda: build_masker("groundtruth", compat=True), ConfigError, "no setting 'compat'"),
        (lambda: build_masker("tiny", device="gpu0"), ConfigError, "device=gpu0"),
        (lambda: build_masker("tiny", device="cuda:99"), ResourceError, "cuda:99"),
    ],
)
def test_impossible_settings(call, kind, words):
    with pytest.raises(kind) as error:
        call()
    assert words in str(error.value) and error.value.hint


def test_ground_truth_needs_foreground():
    frames, masks = scenes(2)
    with pytest.raises(ConfigError, match="foreground=True"):
        GroundTruthMasker().mask(frames)
    with pytest.raises(ValueError, match="expected bool"):
        GroundTruthMasker().mask(frames, masks[:1])
    found = GroundTruthMasker().mask(frames, masks)
    assert torch.equal(found, masks) and found.data_ptr() != masks.data_ptr()


def test_broken_networks_are_noticed(monkeypatch):
    encode = FakeNetworks.encode

    def broken(self, frames):
        found = encode(self, frames)
        found.maps["fine"][:] = float("nan")
        return found

    monkeypatch.setattr(FakeNetworks, "encode", broken)
    with pytest.raises(NonFiniteError, match="finite"):
        fitted()


def test_compat_refuses_a_target_without_red():
    image, mask = scene(size=48, colour=(20, 60, 200))
    with pytest.raises(InputError, match="compat=false"):
        build_masker("fake", compat=True).fit(Reference.from_arrays(image, mask))
    build_masker("fake").fit(Reference.from_arrays(image, mask))


def test_saved_masker_refuses_other_weights_and_damage(tmp_path):
    masker = fitted(weights="1")
    masker.save(tmp_path / "m")
    assert SamGMasker.load(tmp_path / "m").info == masker.info
    with pytest.raises(InputError, match="are not those of the masker"):
        SamGMasker.load(tmp_path / "m", weights="2")
    with pytest.raises(ConfigError, match="already holds another masker"):
        fitted().save(tmp_path / "m")
    tensors = tmp_path / "m" / "fit.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-40])
    with pytest.raises(InputError, match="not a whole safetensors file"):
        SamGMasker.load(tmp_path / "m")
    record = json.loads((tmp_path / "m" / "masker.json").read_text())
    (tmp_path / "m" / "masker.json").write_text(json.dumps({**record, "options": {"unknown": 1}}))
    with pytest.raises(InputError, match="damaged"):
        SamGMasker.load(tmp_path / "m")
    (tmp_path / "m" / "masker.json").write_text("{}")
    with pytest.raises(InputError, match="format 1"):
        load_masker(tmp_path / "m")
    with pytest.raises(InputError, match="does not exist"):
        load_masker(tmp_path / "nowhere")


def test_baselines_are_no_samg_maskers(tmp_path):
    build_masker("none").fit(None).save(tmp_path / "m")
    with pytest.raises(InputError, match="'none' masker"):
        SamGMasker.load(tmp_path / "m")
    assert load_masker(tmp_path / "m").info.variant == "none"


def test_options_survive_json():
    options = SamgOptions.parse({"encoders": ["dino"], "passes": 2, "batch_size": 8})
    assert SamgOptions.parse(json.loads(json.dumps(options.to_dict()))) == options


def test_errors_are_the_projects_own():
    assert issubclass(InputError, SamgError)
    with pytest.raises(InputError):
        build_masker("tiny", weights="/nowhere/tiny.safetensors").fit(Reference.from_arrays(*scene(size=84)))
