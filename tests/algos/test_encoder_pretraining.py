"""VRL3's first stage through the real script: learns, goes on to the last bit, refuses, and VRL3 loads it."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pretrain_encoder
from algos.pretraining.arguments import parse
from algos.pretraining.batches import Batches
from algos.pretraining.images import find_folder
from algos.pretraining.loop import EncoderTrainer
from algos.resnet6 import MEAN, STD, resnet6
from algos.weight_files import read_state
from common.errors import ConfigError, InputError, NonFiniteError
from common.files import sha256_file
from tests.support.agents import make_agent

pytestmark = pytest.mark.usefixtures("one_thread")
PER_CLASS = 12
SMALL = ["--size", "32", "--batch-size", "9", "--learning-rate", "0.05", "--device", "cpu", "--workers", "2"]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes: light discs, dark discs, stripes, each on its own noise and off the middle."""
    root, rng = tmp_path_factory.mktemp("drawn"), np.random.default_rng(0)
    rows, columns = np.mgrid[0:40, 0:48]
    for name in ("dark", "light", "stripes"):
        (root / name / "deep").mkdir(parents=True)
        for number in range(PER_CLASS):
            picture = rng.integers(90, 150, (40, 48, 3))
            disc = (rows - rng.integers(15, 25)) ** 2 + (columns - rng.integers(18, 30)) ** 2 < 100
            if name == "stripes":
                picture[(columns // 4) % 2 == 0] = (200, 40, 40)
            else:
                picture[disc] = 10 if name == "dark" else 245
            kind, folder = ("jpg", "deep") if number % 4 == 0 else ("png", "")
            Image.fromarray(picture.astype(np.uint8)).save(root / name / folder / f"{number}.{kind}")
    return root


def run(images: Path, out: Path, *more: str, code: int = 0) -> dict:
    assert pretrain_encoder.main([str(images), "--out", str(out), *SMALL, *more]) == code
    return json.loads((out / "accuracy.json").read_text()) if (out / "accuracy.json").exists() else {}


def test_it_learns_and_vrl3_loads_what_it_learnt(
    drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run(drawn, tmp_path, "--epochs", "6", "--val-share", "0.25", "--decay-every", "4")
    curve, said = found["curve"], capsys.readouterr().out
    assert [row["epoch"] for row in curve] == [1, 2, 3, 4, 5, 6]
    assert [row["learning_rate"] for row in curve] == pytest.approx([0.05] * 4 + [0.005] * 2)
    assert curve[-1]["train_accuracy"] > max(0.75, curve[0]["train_accuracy"])
    assert curve[-1]["train_loss"] < curve[0]["train_loss"] and found["val_accuracy"] > 0.6
    assert f"validation {100 * found['val_accuracy']:.2f} %" in said and "27 images, 9 to validate" in said
    assert Image.open(tmp_path / "accuracy.png").size == (768, 432)

    file, record = tmp_path / "resnet6.safetensors", json.loads((tmp_path / "resnet6.json").read_text())
    assert record["sha256"] == sha256_file(file) and record["val_accuracy"] == found["val_accuracy"]
    agent = make_agent("vrl3", encoder_weights=str(file))
    assert agent.prepare()["encoder_sha256"] == record["sha256"]
    network = resnet6().eval()
    network.load_state_dict(read_state(file, "weights", ""))
    assert int(network.stem.bn.num_batches_tracked) == 6 * 3
    picture = torch.randint(0, 256, (2, 3, *agent.obs_shape[1:]), dtype=torch.uint8)
    normal = (picture / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    agent.encoder.eval()
    with torch.no_grad():
        seen = agent.encoder(picture.repeat(1, agent.obs_shape[0] // 3, 1, 1))
        assert torch.allclose(seen, network(normal), atol=1e-4)


@pytest.mark.parametrize(("at", "number", "code"), [(4, signal.SIGINT, 130), (6, signal.SIGTERM, 143)])
def test_stopped_anywhere_it_ends_with_the_same_file(
    at: int,
    number: int,
    code: int,
    drawn: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole, parts, more = tmp_path / "whole", tmp_path / "parts", ("--epochs", "3")
    step, seen = EncoderTrainer._step, []

    def interrupted(trainer: EncoderTrainer, *batch: torch.Tensor) -> None:
        step(trainer, *batch)
        seen.append(batch)
        if len(seen) == at:  # 4 batches in an epoch: after its last one, or in its middle
            os.kill(os.getpid(), number)

    expected = run(drawn, whole, *more)
    with monkeypatch.context() as patch:
        patch.setattr(EncoderTrainer, "_step", interrupted)
        run(drawn, parts, *more, code=code)
    assert len(seen) == at and not (parts / "resnet6.safetensors").exists()
    assert capsys.readouterr().out.splitlines()[-1].startswith("Stopped. To continue: python pretrain_enc")
    found = run(drawn, parts, *more, "--workers", "1")
    assert "Continuing in epoch" in capsys.readouterr().out
    assert found["curve"] == expected["curve"]
    files = [(folder / "resnet6.safetensors").read_bytes() for folder in (whole, parts)]
    assert files[0] == files[1] and not list(parts.glob(".stage-*"))
    longer = run(drawn, parts, "--epochs", "4")
    assert longer["curve"][:3] == expected["curve"] and len(longer["curve"]) == 4


def test_other_recipes_and_pictures_are_refused(drawn: Path, tmp_path: Path) -> None:
    out, images = tmp_path / "out", tmp_path / "images"
    shutil.copytree(drawn, images)
    run(images, out, "--epochs", "1")
    for flag, value in (("--learning-rate", "0.01"), ("--seed", "1"), ("--size", "40")):
        with pytest.raises(InputError, match=f"another {flag[2:].replace('-', '_')}"):
            run(images, out, "--epochs", "1", flag, value)
    (images / "dark" / "1.png").unlink()
    with pytest.raises(InputError, match=r"another (train|val)_images"):
        run(images, out, "--epochs", "1")
    (out / "checkpoint.pt").write_bytes((out / "checkpoint.pt").read_bytes()[:999])
    with pytest.raises(InputError, match="cannot be read"):
        run(drawn, out, "--epochs", "1")
    with pytest.raises(NonFiniteError, match="loss of epoch 1"):
        run(drawn, tmp_path / "wild", "--epochs", "1", "--learning-rate", "1e30")


def damage(root: Path, how: str) -> None:
    first = root / "dark" / "1.png"
    if how == "torn":
        first.write_bytes(first.read_bytes()[:200])
    elif how == "text":
        first.write_text("no image")
    elif how == "small":
        Image.new("RGB", (90, 20)).save(first)
    elif how == "one class":
        shutil.rmtree(root / "dark")
        shutil.rmtree(root / "stripes")
    elif how == "empty class":
        shutil.rmtree(root / "dark")
        (root / "dark").mkdir()
    elif how == "flat":
        for folder in list(root.iterdir()):
            shutil.rmtree(folder)
        Image.new("RGB", (90, 90)).save(root / "0.png")
    elif how == "gone":
        shutil.rmtree(root)


@pytest.mark.parametrize(
    ("how", "said", "cure"),
    [
        ("torn", r"1 of 36 images are unusable: .*1\.png cannot be read", "--skip-unusable"),
        ("text", r"1\.png cannot be read", "Remove or replace"),
        ("small", "is 90 x 20 pixels, expected at least 32", "--skip-unusable"),
        ("one class", r"one class only \(light\)", "sub-folder"),
        ("empty class", "dark holds no images", r"\.jpg"),
        ("flat", "has no sub-folders", "for every class"),
        ("gone", "does not exist", "Give a folder"),
    ],
)
def test_what_cannot_be_learnt_from_is_one_error_and_nothing_is_written(
    how: str, said: str, cure: str, drawn: Path, tmp_path: Path
) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    shutil.copytree(drawn, images)
    damage(images, how)
    with pytest.raises(InputError, match=said) as caught:
        run(images, out, "--epochs", "1")
    assert cure.replace("\\", "") in caught.value.hint and not out.exists()
    if how in ("torn", "small"):
        found = run(images, out, "--epochs", "1", "--skip-unusable")
        assert found["data"]["skipped"] == 1
        assert found["data"]["train_images"] + found["data"]["val_images"] == 35


def test_validation_has_the_same_classes_or_is_held_out(drawn: Path, tmp_path: Path) -> None:
    held = find_folder(str(drawn), None, 0.25, seed=0)
    again, other = (find_folder(str(drawn), None, 0.25, seed) for seed in (0, 1))
    assert held == again and held.val != other.val
    assert Counter(held.val.labels) == {0: 3, 1: 3, 2: 3} and not set(held.val.paths) & set(held.train.paths)
    assert len({*held.val.paths, *held.train.paths}) == 3 * PER_CLASS
    assert all(held.classes[n] in path.parts for path, n in zip(held.val.paths, held.val.labels, strict=True))
    shutil.copytree(drawn, tmp_path / "train")
    shutil.copytree(drawn / "light", tmp_path / "val" / "light")
    found = find_folder(str(tmp_path), None, 0.1, seed=0)  # ImageNet's layout
    assert len(found.train) == 3 * PER_CLASS and set(found.val.labels) == {1}
    (tmp_path / "val" / "light").rename(tmp_path / "val" / "lihgt")
    with pytest.raises(InputError, match="a class that training has not: lihgt"):
        find_folder(str(drawn), str(tmp_path / "val"), 0.1, seed=0)


def test_every_epoch_sees_every_picture_once_in_another_order(drawn: Path) -> None:
    pictures = find_folder(str(drawn), None, 0.1, seed=0).train
    with Batches(32, 7, 3, 1) as one, Batches(32, 7, 3, 4) as many:
        epochs = [list(one.training(pictures, epoch)) for epoch in (0, 1)]
        same, tail = list(many.training(pictures, 0)), list(many.training(pictures, 1, first=2))
        middle = next(one.validation(pictures)).images
    for epoch in epochs:
        assert [len(batch.labels) for batch in epoch] == [7, 7, 7, 7, 5]
        assert Counter(torch.cat([batch.labels for batch in epoch]).tolist()) == Counter(pictures.labels)
    for a, b in zip([*epochs[0], *epochs[1][2:]], [*same, *tail], strict=True):
        assert torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)
    assert not torch.equal(epochs[0][0].images, epochs[1][0].images)
    with Image.open(pictures.paths[0]) as image:  # 48 x 40: the shorter side to 38, then the middle 32
        wanted = image.convert("RGB").resize((46, 38), Image.Resampling.BILINEAR).crop((7, 3, 39, 35))
    assert np.array_equal(middle[0].permute(1, 2, 0).numpy(), np.asarray(wanted))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--epochs", "0"], "--epochs is 0, expected at least 1"),
        (["--batch-size", "1"], "--batch-size is 1"),
        (["--size", "16"], "--size is 16, expected at least 32"),
        (["--learning-rate", "0"], "--learning-rate is 0"),
        (["--learning-rate", "nan"], "--learning-rate is nan"),
        (["--val-share", "1"], "--val-share is 1, expected more than 0 and less than 1"),
        (["--momentum", "1"], "--momentum is 1"),
        (["--out", __file__], "is a file"),
    ],
)
def test_impossible_flags_are_refused(given: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse(["folder", *given])


def test_the_defaults_are_vrl3s() -> None:
    recipe = parse(["folder"]).recipe
    assert (recipe.epochs, recipe.batch_size, recipe.size, recipe.decay_every) == (90, 256, 84, 30)
    assert (recipe.learning_rate, recipe.momentum, recipe.weight_decay) == (0.1, 0.9, 1e-4)
