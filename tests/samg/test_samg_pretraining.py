"""Pretraining: seeded pictures, exact labels, formulas against brute force, resuming, bad input."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from common.errors import ConfigError, InputError
from samg.pretraining.backgrounds import background
from samg.pretraining.composites import RANDOM_OBJECTS, Banks, Compositor
from samg.pretraining.data import PART, build_bank, cached_stack, load_domain, save_domain
from samg.pretraining.loop import COLUMNS, Schedule, Trainer
from samg.pretraining.losses import _presence_loss, dice_loss, mask_loss, prototypes, random_pixels
from samg.pretraining.objects import object_views
from samg.tiny_modules import unit_vectors


def domain_arrays(seed: int, two_parts: bool, count: int = 4) -> dict[str, np.ndarray]:
    """Frames of a coloured square (and a smaller one as second part) on a grey ground."""
    rng = np.random.default_rng(seed)
    frames = np.full((count, 84, 84, 3), 90, np.uint8)
    labels = np.zeros((count, 84, 84), np.uint8)
    colour = rng.integers(0, 256, 3)
    for index in range(count):
        x, y = rng.integers(10, 50, 2)
        frames[index, y : y + 20, x : x + 12] = colour
        labels[index, y : y + 20, x : x + 12] = PART
        if two_parts:
            frames[index, y : y + 8, x + 14 : x + 22] = 255 - colour
            labels[index, y : y + 8, x + 14 : x + 22] = PART + 1
    return {"clean": frames, "labels": labels}


@pytest.fixture(scope="module")
def banks() -> Banks:
    bank = build_bank(
        {"one": domain_arrays(0, False), "two": domain_arrays(1, True), "three": domain_arrays(2, False)}
    )
    scenes = torch.from_numpy(np.stack([background(0, index) for index in range(3)]))
    objects = torch.from_numpy(np.stack([object_views(0, index, 3) for index in range(4)]))
    return Banks(bank, scenes, objects)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_generators_are_functions_of_seed_and_index() -> None:
    assert np.array_equal(background(3, 5), background(3, 5))
    assert not np.array_equal(background(3, 5), background(4, 5))
    assert np.array_equal(object_views(3, 5), object_views(3, 5))
    views = object_views(0, 1)
    assert views.shape == (5, 84, 84, 4) and views.dtype == np.uint8
    assert all((view[..., 3] > 127).sum() >= 8 for view in views)


def test_batches_are_seeded_and_shaped(banks: Banks) -> None:
    compositor = Compositor(banks, 6)
    one, again, other = (compositor.batch(generator(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not torch.equal(one.frames, other.frames)
    c = 3 + RANDOM_OBJECTS
    assert one.frames.shape == (c + 6, 84, 84, 3) and one.frames.dtype == torch.uint8
    assert one.reference_masks.shape == (c, 3, 84, 84)
    assert int(one.classes.min()) >= 0 and int(one.classes.max()) <= c
    # The reference of the divided domain shows two parts that make up the whole and do not overlap.
    whole, first, second = one.reference_masks[1]
    assert torch.equal(whole, first | second) and not (first & second).any() and second.any()
    assert not one.second[one.classes == 0].any()


def test_domains_with_the_same_robot_take_turns_as_one_class(banks: Banks) -> None:
    arrays = {name: domain_arrays(seed, seed == 1) for seed, name in enumerate(("one", "two", "three"))}
    shared = build_bank(arrays, {"one": "hand", "two": "two", "three": "hand"})
    assert shared.slots == ((0, 2), (1,)) and shared.two_parts == (False, True)
    assert banks.frames.slots == ((0,), (1,), (2,))
    shapes = {name: torch.from_numpy(arrays[name]["labels"] > 0) for name in arrays}
    compositor, seen, own = Compositor(replace(banks, frames=shared), 6), set(), []
    for seed in range(12):
        batch = compositor.batch(generator(seed))
        assert batch.reference_masks.shape[0] == 2 + RANDOM_OBJECTS
        seen |= {
            name for name in shapes if (shapes[name] == batch.reference_masks[0, 0]).flatten(1).all(1).any()
        }
        own.append((batch.own == 0).float().mean().item())
    assert seen == {"one", "three"}  # both have been the class's reference
    assert np.mean(own) == pytest.approx(2 / 3, abs=0.05)  # two of three domains


def test_labels_are_where_the_objects_are(banks: Banks) -> None:
    """Without rivals and in true colours, the labelled pixels have the colour of the domain's square."""
    compositor = Compositor(banks, 30)
    batch = compositor.batch(generator(5))
    checked = 0
    for index in range(30):
        frame = batch.frames[len(batch.reference_masks) + index]
        if not torch.equal(frame[0, 0], torch.tensor([90, 90, 90], dtype=torch.uint8)):
            continue  # another mode than the clean one
        own = int(batch.own[index])
        seen = (batch.classes[index] == own + 1) & ~batch.second[index]
        if seen.any():
            values = frame[seen].float()
            near = (values - values.median(0).values).abs().amax(1) <= 2
            assert near.float().mean() > 0.85, "labelled pixels of one square differ in colour"
            checked += 1
    assert checked >= 2


def test_prototypes_against_brute_force() -> None:
    features = torch.randn(2, 5, 84, 84, requires_grad=True)
    masks = torch.rand(5, 84, 84) < 0.1
    masks[3] = False
    owners = torch.tensor([0, 1, 1, 0, 0])
    found = prototypes(features, owners, masks)
    wanted = []
    for owner, mask in zip(owners.tolist(), masks, strict=True):
        inside = features[owner][:, mask] if mask.any() else torch.zeros(5, 1)
        pooled = 0.5 * inside.mean(1) + 0.5 * inside.max(1).values
        wanted.append(pooled / pooled.norm().clamp(min=1e-12))
    torch.testing.assert_close(found, torch.stack(wanted))
    towards = torch.randn(5, 5)
    gradients = [
        torch.autograd.grad((rows * towards).sum(), features)[0] for rows in (found, torch.stack(wanted))
    ]
    torch.testing.assert_close(*gradients)


def test_small_objects_are_pooled_on_a_coarse_grid() -> None:
    features = torch.randn(2, 5, 42, 42)
    masks = torch.zeros(1, 84, 84, dtype=torch.bool)
    masks[0, 11, 21] = True  # a quarter of cell (5, 10)
    wanted = features[1, :, 5, 10]
    torch.testing.assert_close(prototypes(features, torch.tensor([1]), masks)[0], wanted / wanted.norm())


def test_unit_vectors_against_normalize() -> None:
    x = torch.randn(2, 7, 4, 3, requires_grad=True)
    towards = torch.randn(2, 7, 4, 3)
    found, wanted = unit_vectors(x), torch.nn.functional.normalize(x, dim=1)
    torch.testing.assert_close(found, wanted)
    gradients = [torch.autograd.grad((y * towards).sum(), x)[0] for y in (found, wanted)]
    torch.testing.assert_close(*gradients)
    half = torch.randn(1, 3, 2, 2).bfloat16()
    assert unit_vectors(half).dtype == torch.float32
    assert unit_vectors(torch.zeros(1, 3, 2, 2)).isfinite().all()


def test_presence_loss_against_a_loop() -> None:
    logits = torch.randn(3, 2, 6, 6)
    visible = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    losses: dict[bool, list[float]] = {True: [], False: []}
    for frame in range(3):
        for column in range(2):
            there = bool(visible[frame, column])
            share = torch.sigmoid(logits[frame, column].max())
            losses[there].append(-float(torch.log(share if there else 1 - share)))
    wanted = sum(float(np.mean(values)) for values in losses.values())
    assert float(_presence_loss(logits, visible)) == pytest.approx(wanted, rel=1e-5)
    # A batch in which every object is visible has nothing to say about absent ones.
    alone = _presence_loss(logits, torch.ones(3, 2))
    assert float(alone) == pytest.approx(
        float(-torch.sigmoid(logits.flatten(2).amax(-1)).log().mean()), rel=1e-5
    )


def test_random_pixels_are_inside() -> None:
    masks = torch.rand(50, 84, 84) < 0.01
    masks[:, 3, 4] = True
    index = random_pixels(masks, generator(0))
    assert masks.flatten(1).gather(1, index.unsqueeze(1)).all()
    assert len(index.unique()) > 25


def test_mask_loss_prefers_the_wanted_object() -> None:
    mask = torch.zeros(1, 84, 84, dtype=torch.bool)
    mask[:, 10:40, 10:30] = True
    rival = torch.zeros_like(mask)
    rival[:, 50:80, 50:70] = True
    scores = torch.ones(1, 3)

    def loss(taken: torch.Tensor) -> float:
        logits = (8.0 * taken.float() - 4).unsqueeze(1).expand(-1, 3, -1, -1)
        return float(mask_loss(logits, scores, mask, rival)[0])

    ground = torch.zeros_like(mask)
    ground[:, 50:80, 10:30] = True
    assert loss(mask) < loss(mask | ground) < loss(mask | rival) < loss(rival)
    assert float(dice_loss(20 * mask.float() - 10, mask.float())) < 0.01


@pytest.mark.slow
def test_resuming_gives_the_same_curve(banks: Banks, tmp_path: Path) -> None:
    schedule = Schedule(steps=4, composites=4, decoded=4, save_every=2, warm=0.0)
    whole = Trainer(banks, schedule, tmp_path / "whole")
    whole.run()
    halted = Trainer(banks, schedule, tmp_path / "parts")
    halted.networks.train()
    for _ in range(3):  # stops after the checkpoint of step 2, in the middle of the budget
        halted._record(halted.train_step())
        if halted.step == 2:
            halted.save()
    resumed = Trainer(banks, schedule, tmp_path / "parts")
    assert resumed.step == 2
    resumed.run()
    curves = [
        [
            [value for key, value in enumerate(line.split(",")) if key != 1]
            for line in path.read_text().split()
        ]
        for path in (tmp_path / "whole" / "curves.csv", tmp_path / "parts" / "curves.csv")
    ]
    assert curves[0] == curves[1] and len(curves[0]) == 5
    for key, value in whole.networks.state_dict().items():
        assert torch.equal(value, resumed.networks.state_dict()[key]), key


def test_foreign_checkpoints_are_refused(banks: Banks, tmp_path: Path) -> None:
    Trainer(banks, Schedule(steps=4, composites=4), tmp_path).save()
    with pytest.raises(InputError, match="another seed"):
        Trainer(banks, Schedule(steps=4, composites=4, seed=1), tmp_path)
    Trainer(banks, Schedule(steps=9, composites=4), tmp_path)  # a longer budget may continue
    fewer = Banks(banks.frames, banks.backgrounds[:2], banks.objects)
    with pytest.raises(InputError, match="another backgrounds: 3, not 2"):
        Trainer(fewer, Schedule(steps=4, composites=4), tmp_path)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    torch.save({key: value for key, value in state.items() if key != "data"}, tmp_path / "checkpoint.pt")
    Trainer(fewer, Schedule(steps=4, composites=4), tmp_path)  # earlier versions did not note the data
    torch.save({**state, "architecture": "unet"}, tmp_path / "checkpoint.pt")
    with pytest.raises(InputError, match="another architecture: unet"):
        Trainer(banks, Schedule(steps=4, composites=4), tmp_path)
    torch.save({"step": 3}, tmp_path / "checkpoint.pt")
    with pytest.raises(InputError, match="cannot be read"):
        Trainer(banks, Schedule(steps=4, composites=4), tmp_path)
    (tmp_path / "checkpoint.pt").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read"):
        Trainer(banks, Schedule(steps=4, composites=4), tmp_path)


def test_training_starts_from_given_weights_with_its_decoder(banks: Banks, tmp_path: Path) -> None:
    first = Trainer(banks, Schedule(steps=1, composites=4), tmp_path / "first")
    weights = {name: value + value.new_ones(()) for name, value in first.networks.state_dict().items()}
    schedule = Schedule(steps=40, composites=4, start="a" * 64)
    trainer = Trainer(banks, schedule, tmp_path / "next", weights)
    assert all(torch.equal(value, weights[name]) for name, value in trainer.networks.state_dict().items())
    assert all("mask" in trainer.train_step() for _ in range(3))  # fresh ones: every third step
    trainer.save()
    with pytest.raises(InputError, match=r"another start: a+, not b+"):
        Trainer(banks, replace(schedule, start="b" * 64), tmp_path / "next", weights)


def test_rows_that_a_crash_tore_are_dropped(banks: Banks, tmp_path: Path) -> None:
    trainer = Trainer(banks, Schedule(steps=9, composites=4), tmp_path)
    trainer.step = 2
    trainer.save()
    whole = [",".join(COLUMNS), "1,0.5,3.1,0.2,1.0,0.1", "2,0.9,3.0,0.3,,"]
    (tmp_path / "curves.csv").write_text("\n".join([*whole, "3,1.2,2.9,0.4,,", "1", ""]))
    (tmp_path / ".stage-left.pt").write_bytes(b"half a checkpoint")
    Trainer(banks, Schedule(steps=9, composites=4), tmp_path)
    assert (tmp_path / "curves.csv").read_text().splitlines() == whole
    assert not (tmp_path / ".stage-left.pt").exists()


def test_unusable_frames_are_named() -> None:
    good = domain_arrays(0, False)
    with pytest.raises(InputError, match="without masks"):
        build_bank({"a": {"clean": good["clean"]}, "b": good})
    with pytest.raises(InputError, match="Frame 2 of domain 'a' shows 0 pixels"):
        hidden = {key: value.copy() for key, value in good.items()}
        hidden["labels"][2] = 0
        build_bank({"a": hidden, "b": good})
    with pytest.raises(InputError, match="no frames"):
        build_bank({"a": {key: value[:0] for key, value in good.items()}, "b": good})
    with pytest.raises(InputError, match="expected uint8"):
        build_bank({"a": {"clean": good["clean"][:, :80], "labels": good["labels"]}, "b": good})
    with pytest.raises(InputError, match="Only 1 domain"):
        build_bank({"a": good})


def test_cached_data_are_read_again(tmp_path: Path) -> None:
    made = []

    def make(index: int) -> np.ndarray:
        made.append(index)
        return np.full((2, 2), index, np.uint8)

    first = cached_stack(tmp_path / "items.npz", 3, make)
    assert torch.equal(cached_stack(tmp_path / "items.npz", 2, make), first[:2]) and made == [0, 1, 2]
    save_domain(tmp_path / "domain.npz", domain_arrays(0, True))
    assert np.array_equal(load_domain(tmp_path / "domain.npz")["labels"], domain_arrays(0, True)["labels"])
    whole = (tmp_path / "domain.npz").read_bytes()
    for damaged in (b"PK nothing", b"", whole[: len(whole) // 2], whole[:200] + b"?" + whole[201:]):
        (tmp_path / "domain.npz").write_bytes(damaged)
        with pytest.raises(InputError, match="cannot be read"):
            load_domain(tmp_path / "domain.npz")


def test_poses_are_seeded_and_labelled() -> None:
    from envs.pretraining_frames import collect_domain

    one, again = (collect_domain("ball_in_cup", 3, seed=5) for _ in range(2))
    assert all(np.array_equal(one[key], again[key]) for key in one)
    assert set(np.unique(one["labels"])) >= {0, 1, PART, PART + 1}
    build_bank({"a": one, "b": again})
    with pytest.raises(ConfigError, match="pretraining domain"):
        collect_domain("unicycle", 3, seed=0)


def test_adroit_poses_are_seeded_and_labelled() -> None:
    from envs.pretraining_adroit import collect_adroit

    arrays = collect_adroit("relocate", 3, 1)
    assert np.array_equal(arrays["labels"], collect_adroit("relocate", 3, 1)["labels"])
    assert all(arrays[key].shape == (3, 84, 84, 3) for key in ("clean", "recoloured", "keyed"))
    labels, key = arrays["labels"], arrays["key_mask"]
    assert set(np.unique(labels)) == {0, PART, PART + 1}  # no table, no ground: sky, hand and ball, target
    # The sky is one colour in each paint, and what the key takes is the sky.
    for name in ("clean", "recoloured", "keyed"):
        for frame, label in zip(arrays[name], labels, strict=True):
            sky = frame[(label == 0) & ~_near(label > 0)]
            assert (sky == sky[0]).all(), name
    assert (key & (labels > 0)).sum() < 0.1 * (labels > 0).sum()
    assert key[(labels == 0)].mean() > 0.9
    assert not np.array_equal(arrays["clean"][0], arrays["recoloured"][0])


def _near(mask: np.ndarray) -> np.ndarray:
    """Return a mask grown by one pixel on all sides."""
    grown = np.pad(mask, 1)
    return np.any([grown[1 + y : 85 + y, 1 + x : 85 + x] for y in (-1, 0, 1) for x in (-1, 0, 1)], axis=0)
