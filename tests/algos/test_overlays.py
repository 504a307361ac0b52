"""Images for overlays: folders good and bad, generated textures, drawing; crops, blends and rings."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from algos.augmentations import (
    crop_shift,
    erase_frequencies,
    random_frequency_mask,
    random_overlay,
    random_shift,
)
from algos.overlays import TEXTURES, OverlaySource
from algos.textures import generate_textures
from common.errors import InputError
from tests.support.agents import make_agent, make_batch


def source(directory: Path | str | None, images: int = 12, seed: int = 0, size: int = 20) -> OverlaySource:
    return OverlaySource(directory and str(directory), images, size, size, seed, torch.device("cpu"))


def fill(folder: Path, count: int = 5, suffix: str = "png") -> list[tuple[int, int, int]]:
    """Write flat images and return their colours."""
    folder.mkdir(parents=True, exist_ok=True)
    colours = [(40 * i + 20, 255 - 40 * i, 10 * i) for i in range(count)]
    for i, colour in enumerate(colours):
        Image.new("RGB", (30 + i, 50), colour).save(folder / f"{i}.{suffix}")
    return colours


def colours_of(bank: torch.Tensor) -> list[tuple[int, ...]]:
    assert (bank.flatten(2) == bank.flatten(2)[..., :1]).all(), "an image is not flat"
    return [tuple(image[:, 0, 0].tolist()) for image in bank]


def test_a_folder_is_read_with_its_subfolders_and_every_image_is_used(tmp_path: Path) -> None:
    colours = fill(tmp_path / "a" / "b")
    (tmp_path / "notes.txt").write_text("no image")
    Image.new("L", (9, 9), 77).save(tmp_path / "grey.png")
    Image.new("RGBA", (9, 9), (1, 2, 3, 4)).save(tmp_path / "clear.PNG")
    images = source(tmp_path)
    assert images.bank.shape == (12, 3, 20, 20) and images.bank.dtype == torch.uint8
    assert set(colours_of(images.bank)) == {*colours, (77, 77, 77), (1, 2, 3)}
    record = images.record
    assert record["name"] == str(tmp_path) and record["files"] == 7 and record["images"] == 12
    assert record["sha256"] == source(tmp_path).record["sha256"] and len(record["sha256"]) == 64


def test_of_many_files_a_choice_by_seed_is_read(tmp_path: Path) -> None:
    colours = fill(tmp_path, 6)
    first, again, other = (source(tmp_path, images=3, seed=seed) for seed in (0, 0, 2))
    assert len(set(colours_of(first.bank)) & set(colours)) == 3
    assert torch.equal(first.bank, again.bank) and not torch.equal(first.bank, other.bank)


def test_crops_are_random_parts_of_the_picture(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 300).round().astype(np.uint8)
    picture = np.stack([np.tile(ramp, (200, 1)), np.zeros((200, 300), np.uint8)] * 2, -1)[..., :3]
    Image.fromarray(picture).save(tmp_path / "ramp.png")
    bank = source(tmp_path, images=40, size=24).bank.numpy().astype(int)
    widths = (bank[:, 0, 0, -1] - bank[:, 0, 0, 0]) / 255
    starts = bank[:, 0, 0, 0] / 255
    assert (np.diff(bank[:, 0], axis=2) >= 0).all() and (bank[:, 1] == 0).all()
    assert 0.15 < widths.min() < 0.45 and 0.7 < widths.max() <= 1 and starts.std() > 0.05
    assert len({image.tobytes() for image in bank}) > 35


def test_places_layout_means_its_training_part(tmp_path: Path) -> None:
    colours = fill(tmp_path / "places365_standard" / "train" / "abbey", 3)
    fill(tmp_path / "places365_standard" / "val" / "abbey", 5)
    images = source(tmp_path)
    assert set(colours_of(images.bank)) == set(colours) and images.record["files"] == 3


def test_jpegs_larger_than_needed_are_read(tmp_path: Path) -> None:
    Image.new("RGB", (1600, 1200), (200, 30, 90)).save(tmp_path / "a.jpg", quality=95)
    bank = source(tmp_path, images=4).bank.float()
    assert (bank - torch.tensor([200.0, 30.0, 90.0]).view(3, 1, 1)).abs().max() <= 3


def test_all_unreadable_files_are_named_at_once(tmp_path: Path) -> None:
    fill(tmp_path)
    whole = (tmp_path / "0.png").read_bytes()
    bad = {
        "cut.png": whole[: len(whole) // 2],
        "empty.jpg": b"",
        "text.jpeg": b"hello",
        "deep/noise.bmp": b"BM" + bytes(20),
    }
    (tmp_path / "deep").mkdir()
    for name, data in bad.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError) as caught:
        _ = source(tmp_path).bank
    assert "4 of 9" in caught.value.message and "data.overlay_dir" in caught.value.message
    assert all(str(tmp_path / name) in caught.value.message for name in bad)
    assert "0.png," not in caught.value.message


def test_missing_empty_and_wrong_folders_are_one_error(tmp_path: Path) -> None:
    (tmp_path / "file.png").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("absent", "does not exist"),
        ("file.png", "is not a folder"),
        ("empty", "holds no images"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            make_agent("svea", overlay_dir=str(tmp_path / name)).prepare()
        assert "data.overlay_dir" in caught.value.message and "null" in caught.value.hint
        # An evaluation, which learns nothing, needs no images.
        make_agent("svea", overlay_dir=str(tmp_path / name)).act(make_batch().obs, 0, eval_mode=True)


def test_textures_are_a_function_of_the_seed_and_all_different() -> None:
    first = generate_textures(140, 20, 24, seed=1)
    torch.manual_seed(0)
    assert first.shape == (140, 3, 20, 24) and first.dtype == torch.uint8
    assert torch.equal(first, generate_textures(140, 20, 24, seed=1))
    assert not torch.equal(first, generate_textures(140, 20, 24, seed=2))
    assert len({image.numpy().tobytes() for image in first}) == 140
    values = first.float()
    assert 60 < values.mean() < 190 and values.mean((1, 2, 3)).std() > 15
    assert values.flatten(1).std(1).min() > 3, "a texture is flat"
    assert source(None).record["name"] == TEXTURES == "generated textures"
    assert source(None).record["files"] == 0


def test_drawing_uses_every_image_both_ways_and_the_generator_only() -> None:
    images = source(None, images=4)
    generator = torch.Generator().manual_seed(3)
    state = generator.get_state()
    drawn = images.sample(400, generator)
    generator.set_state(state)
    assert torch.equal(drawn, images.sample(400, generator))
    for image in images.bank:
        for way in (image, image.flip(-1)):
            assert 20 < (drawn == way).flatten(1).all(1).sum() < 90


def test_a_resumed_run_is_told_of_other_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path)
    first = make_agent("svea", overlay_dir=str(tmp_path))
    assert first.state_dict()["overlays"] == []  # none was looked at yet
    first.update(make_batch(), 0)
    photos = first.overlay_source["sha256"]
    same = make_agent("svea", overlay_dir=str(tmp_path))
    with caplog.at_level(logging.WARNING):
        same.load_state_dict(first.state_dict())
        assert not caplog.records and same.overlay_source["earlier_sha256"] == []
        assert torch.equal(first.overlays.bank, same.overlays.bank)
        fill(tmp_path, 6)  # an image more
        changed = make_agent("svea", overlay_dir=str(tmp_path))
        record = changed.prepare()  # before the state is there, as in training
        changed.load_state_dict(first.state_dict())
        assert str(tmp_path) in caplog.text
    assert record["overlay_source"]["earlier_sha256"] == [photos] != [record["overlay_source"]["sha256"]]


def test_every_bank_of_a_run_stays_in_its_record(caplog: pytest.LogCaptureFixture) -> None:
    digests, state = [], {}
    for seed in (0, 0, 1, 0):
        agent = make_agent("svea", seed=seed)
        record = agent.prepare()["overlay_source"]
        if state:
            agent.load_state_dict(state)
        digests.append(record["sha256"])
        state = agent.state_dict()
    assert record["earlier_sha256"] == [digests[0], digests[2]] and state["overlays"][-1] == digests[0]
    old = {**state, "overlays": digests[2]}  # a snapshot from before there was a list
    agent.load_state_dict(old)
    assert agent.overlay_source["earlier_sha256"] == [digests[2]]


def test_the_record_reaches_the_run_through_prepare() -> None:
    assert make_agent("drqv2").prepare() == {}
    for name in ("svea", "srm", "sgqn"):
        agent = make_agent(name)
        assert agent.prepare() == agent.prepare() == {"overlay_source": agent.overlay_source}
        assert agent.overlay_source["name"] == TEXTURES


def test_crop_shift_is_random_shift_without_its_rounding() -> None:
    obs = torch.randint(
        0, 256, (32, 6, 21, 21), generator=torch.Generator().manual_seed(1), dtype=torch.uint8
    )
    first, second = (torch.Generator().manual_seed(5) for _ in range(2))
    shifted, cropped = random_shift(obs.float(), generator=first), crop_shift(obs, generator=second)
    assert torch.equal(first.get_state(), second.get_state()) and cropped.dtype == torch.uint8
    assert (shifted - cropped.float()).abs().max() < 0.005
    for i, (x, y) in enumerate(torch.randint(0, 9, (32, 2), generator=torch.Generator().manual_seed(5))):
        padded = np.pad(obs[i].numpy(), ((0, 0), (4, 4), (4, 4)), mode="edge")
        assert np.array_equal(cropped[i].numpy(), padded[:, y : y + 21, x : x + 21])
    with pytest.raises(ValueError, match="square"):
        crop_shift(obs[:, :, :20])


def test_overlay_blends_one_image_into_all_frames() -> None:
    obs, images = torch.rand(3, 9, 5, 5) * 255, torch.randint(0, 256, (3, 3, 5, 5), dtype=torch.uint8)
    kept = obs.clone()
    found = random_overlay(obs, images, alpha=0.3)
    for frame in range(3):
        part = slice(3 * frame, 3 * frame + 3)
        assert torch.allclose(found[:, part], 0.7 * obs[:, part] + 0.3 * images.float(), atol=1e-3)
    assert torch.equal(obs, kept)


@pytest.mark.parametrize("size", [(12, 12), (9, 14)])
def test_erased_frequencies_are_a_square_ring(size: tuple[int, int]) -> None:
    height, width = size
    rows, columns = np.mgrid[:height, :width]
    for fy in range(height):
        for fx in range(width):
            wave = np.cos(2 * np.pi * (fy * rows / height + fx * columns / width) + 0.4)
            obs = torch.from_numpy(wave).float().view(1, 1, height, width)
            radius = max(min(fy, height - fy) / height, min(fx, width - fx) / width)
            wanted = obs * 0 if 0.2 <= radius < 0.35 else obs
            assert torch.allclose(erase_frequencies(obs, 0.2, 0.15), wanted, atol=1e-5), (fy, fx)


def test_random_rings_come_half_of_the_time_and_leave_the_rest_untouched() -> None:
    obs = torch.rand(2, 3, 20, 20) * 255
    generator = torch.Generator().manual_seed(0)
    results = [random_frequency_mask(obs, generator) for _ in range(300)]
    same = sum(torch.equal(result, obs) for result in results)
    assert 120 < same < 180  # every second update; an empty ring still passes through the transform
    assert all(torch.equal(random_frequency_mask(obs, generator, probability=0.0), obs) for _ in range(5))
    assert not torch.equal(random_frequency_mask(obs, generator, probability=1.0, max_width=0.5), obs)
