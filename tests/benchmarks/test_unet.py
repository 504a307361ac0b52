"""The U-Net yardstick: its size, what it is taught, that it learns, and its files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from benchmarks.unet import ARCHITECTURE, UNet, load_unet, predict, save_unet, targets, train
from common.errors import ConfigError, InputError
from common.files import read_json
from samg.pretraining.backgrounds import background
from samg.pretraining.composites import Banks, Compositor
from samg.pretraining.data import PART, build_bank
from samg.pretraining.objects import object_views


def squares(colour: tuple[int, int, int], seed: int, count: int = 6) -> dict[str, np.ndarray]:
    """Frames of one coloured square at random places on a grey ground."""
    rng = np.random.default_rng(seed)
    frames = np.full((count, 84, 84, 3), 90, np.uint8)
    labels = np.zeros((count, 84, 84), np.uint8)
    for index, (x, y) in enumerate(rng.integers(10, 50, (count, 2))):
        frames[index, y : y + 24, x : x + 24] = colour
        labels[index, y : y + 24, x : x + 24] = PART
    return {"clean": frames, "labels": labels}


@pytest.fixture(scope="module")
def banks() -> Banks:
    bank = build_bank({"one": squares((250, 30, 20), 0), "two": squares((20, 240, 220), 1)})
    scenes = torch.from_numpy(np.stack([background(0, index) for index in range(3)]))
    objects = torch.from_numpy(np.stack([object_views(0, index, 3) for index in range(4)]))
    return Banks(bank, scenes, objects)


@pytest.fixture(scope="module")
def trained(banks: Banks) -> tuple[UNet, list[str]]:
    lines: list[str] = []
    return train(banks, steps=40, seed=3, show=lines.append, composites=4), lines


def test_size_and_grid() -> None:
    net = UNet()
    assert 200_000 < sum(parameter.numel() for parameter in net.parameters()) < 260_000
    assert net(torch.zeros(2, 84, 84, 3, dtype=torch.uint8)).shape == (2, 84, 84)


def test_agents_are_wanted_and_random_objects_are_not(banks: Banks) -> None:
    batch = Compositor(banks, 12).batch(torch.Generator().manual_seed(1))
    wanted = targets(batch, domains=2)
    assert wanted.shape == batch.frames.shape[:3] and wanted.dtype == torch.bool
    assert torch.equal(wanted[:2], batch.reference_masks[:2, 0]) and wanted[:2].any()
    assert batch.reference_masks[2:, 0].any() and not wanted[2:4].any()
    for shown, classes in zip(wanted[4:], batch.classes, strict=True):
        assert torch.equal(shown, torch.isin(classes, torch.tensor([1, 2])))
    assert (batch.classes > 2).any(), "no random object in the batch: the case is not tested"


@pytest.mark.slow
def test_it_learns(trained: tuple[UNet, list[str]]) -> None:
    net, lines = trained
    assert net.record["last_loss"] < 0.75 * net.record["first_loss"], net.record
    assert net.record["steps"] == 40 and net.record["seed"] == 3 and not net.training
    assert "100.0 %  step 40" in lines[-1]
    frames = squares((250, 30, 20), 9)
    found, truth = predict(net, frames["clean"]), frames["labels"] == PART
    overlap = (found & truth).sum() / (found | truth).sum()
    assert overlap > 0.5, overlap


@pytest.mark.slow
def test_training_is_seeded(banks: Banks) -> None:
    weights = [
        torch.cat([p.flatten() for p in train(banks, 2, seed=seed, show=str, composites=2).parameters()])
        for seed in (0, 0, 1)
    ]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


@pytest.mark.slow
def test_prediction_is_the_sign_of_the_logits(trained: tuple[UNet, list[str]]) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (70, 84, 84, 3), np.uint8)  # more than one chunk
    found = predict(trained[0], frames)
    assert found.shape == (70, 84, 84) and found.dtype == bool
    with torch.no_grad():
        alone = trained[0](torch.from_numpy(frames[68:69]))[0].numpy()
    clear = np.abs(alone) > 1e-3  # another batch size may round differently
    assert np.array_equal(found[68][clear], (alone > 0)[clear]) and clear.mean() > 0.9
    assert predict(trained[0], frames[:0]).shape == (0, 84, 84)
    with pytest.raises(ValueError, match="expected uint8"):
        predict(trained[0], frames[:, :80])


@pytest.mark.slow
def test_files_keep_masks_and_record(trained: tuple[UNet, list[str]], tmp_path: Path) -> None:
    path = tmp_path / "unet.safetensors"
    record = save_unet(trained[0], path)
    again = load_unet(path)
    frames = np.random.default_rng(1).integers(0, 256, (5, 84, 84, 3), np.uint8)
    assert np.array_equal(predict(trained[0], frames), predict(again, frames))
    assert again.record == trained[0].record and read_json(path.with_suffix(".json")) == record
    assert {"seed", "steps", "minutes", "versions", "sha256"} <= record.keys()


@pytest.mark.slow
def test_unusable_files_are_refused(trained: tuple[UNet, list[str]], tmp_path: Path) -> None:
    path = tmp_path / "unet.safetensors"
    with pytest.raises(InputError, match="cannot be read"):
        load_unet(path)
    save_unet(trained[0], path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match="cannot be read"):
        load_unet(path)
    save_file({"head.bias": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="does not hold weights"):
        load_unet(path)
    record = f'{{"architecture": "{ARCHITECTURE}"}}'
    save_file({"head.bias": torch.zeros(1)}, path, metadata={"record": record})
    with pytest.raises(InputError, match="do not fit"):
        load_unet(path)


def test_training_wants_a_budget(banks: Banks) -> None:
    with pytest.raises(ConfigError, match="budget"):
        train(banks)
