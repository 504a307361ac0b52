"""References that a user can get wrong, as the command meets them: before any network is loaded."""

import io
import logging

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

import samg
from common.errors import InputError
from common.paths import PROJECT_ROOT
from evaluation.run_directory import RunDirectory
from samg.compat import CompatRules
from samg.reference import Reference
from samg.rules import FixedRules
from train import prepare_masker
from training.config import compose_config

CONFIG = compose_config(["masker=tiny", "device=cpu"])
REFERENCES = PROJECT_ROOT / "reference_images"
WALKER = np.asarray(Image.open(REFERENCES / "walker_0.png"))
MASK = np.asarray(Image.open(REFERENCES / "walker_masked_0.png").convert("L"))


def refused(tmp_path, monkeypatch, **override):
    """Return what the assembly of train.py says to a reference; it must not get as far as the weights."""
    loads = []
    monkeypatch.setattr(samg.build, "load_networks", lambda *_: loads.append("weights"))
    given = OmegaConf.from_dotlist([f"{key}={value}" for key, value in override.items()])
    run = RunDirectory(tmp_path / "run", OmegaConf.merge(CONFIG, given))
    with pytest.raises(InputError) as caught:
        prepare_masker(run, torch.device("cpu"))
    assert not loads and caught.value.exit_code == 3 and caught.value.hint
    return caught.value.message


def png(path, pixels, mode=None):
    Image.fromarray(pixels).convert(mode).save(path)
    return path


@pytest.mark.reliability("10", "a reference of the wrong size stops train.py before any network is loaded")
@pytest.mark.parametrize("shape", [(64, 64), (84, 85), (1, 1), (168, 168)])
def test_sizes(shape, tmp_path, monkeypatch):
    image = png(tmp_path / "ours.png", np.full((*shape, 3), 99, np.uint8))
    mask = np.zeros(shape, np.uint8)
    mask[: shape[0] // 2] = 255
    message = refused(tmp_path, monkeypatch, original_image=image, masked_image=png(tmp_path / "m.png", mask))
    assert f"ours.png is {shape[1]} x {shape[0]} pixels" in message and "renders 84 x 84" in message


@pytest.mark.reliability(
    "11", "a 64 x 64 mask of an 84 x 84 image stops train.py; nothing is resized in silence"
)
def test_mask_of_another_size(tmp_path, monkeypatch):
    mask = png(tmp_path / "m.png", np.pad(np.full((20, 20), 255, np.uint8), 22))
    message = refused(tmp_path, monkeypatch, masked_image=mask)
    assert "m.png is 64 x 64" in message and "walker_0.png is 84 x 84" in message


@pytest.mark.reliability("12", "an all-black mask stops train.py")
@pytest.mark.parametrize("level", [0, 16])
def test_black_masks(level, tmp_path, monkeypatch):
    mask = png(tmp_path / "black.png", np.full((84, 84, 3), level, np.uint8))
    assert "black.png is empty" in refused(tmp_path, monkeypatch, masked_image=mask)


@pytest.mark.reliability("13", "an all-white mask stops train.py")
def test_white_mask(tmp_path, monkeypatch):
    mask = png(tmp_path / "white.png", np.full((84, 84), 255, np.uint8))
    assert "white.png covers 100%" in refused(tmp_path, monkeypatch, masked_image=mask)


@pytest.mark.reliability("14", "our masks saved as JPEG keep their pixels: IoU of at least 0.9")
@pytest.mark.parametrize("quality", [85, 95])
def test_jpeg_masks(quality, tmp_path):
    for path in sorted(REFERENCES.glob("*_masked_0.png")):
        saved = tmp_path / f"{path.stem}.jpg"
        Image.open(path).convert("L").save(saved, quality=quality)
        image = REFERENCES / path.name.replace("_masked", "")
        exact, found = (Reference.load(image, file).mask for file in (path, saved))
        assert (exact & found).sum() / (exact | found).sum() >= 0.9, path.name


@pytest.mark.reliability("15", "the last pixel is a point like any other, in both sets of rules")
@pytest.mark.parametrize("rules", [FixedRules(), CompatRules()])
def test_the_last_pixel(rules):
    reference = Reference.load(
        REFERENCES / "walker_0.png", REFERENCES / "walker_masked_0.png", [[83, 83], [0, 0], [82.5, 3]]
    )
    generator = torch.Generator().manual_seed(0)
    feature_map = torch.randn(8, 64, 64, generator=generator)
    found = rules.point_features(feature_map, torch.from_numpy(reference.points), (84, 84))
    assert found.isfinite().all()
    corner = torch.nn.functional.normalize(feature_map[:, -1, -1], dim=0)
    assert torch.allclose(found[0], corner, atol=1e-6)


@pytest.mark.slow
@pytest.mark.reliability("15", "a masker is fitted with a point on the last pixel")
def test_a_masker_with_a_point_on_the_last_pixel():
    reference = Reference.load(
        REFERENCES / "walker_0.png", REFERENCES / "walker_masked_0.png", [[83, 83], [40, 24]]
    )
    masker = samg.build_masker("tiny").fit(reference)
    assert masker.mask(torch.from_numpy(WALKER.copy())[None]).shape == (1, 84, 84)


@pytest.mark.reliability("15", "a point outside the image stops train.py, with its number")
@pytest.mark.parametrize(
    ("points", "says"),
    [
        ("[[40,24],[84,10]]", "Point 1 of extra_points_list, (84, 10), lies outside the 84 x 84"),
        ("[[-1,5]]", "(-1, 5), lies outside"),
        ("[[83.2,5]]", "(83.2, 5), lies outside"),
        ("[[1,2,3]]", "not an x, y pair"),
        ("[1,2,3]", "3 numbers"),
        ("[[a,2]]", "not a number"),
        ("7", "expected a list of points"),
    ],
)
def test_points(points, says, tmp_path, monkeypatch):
    assert says in refused(tmp_path, monkeypatch, extra_points_list=points)


def truncated(path, kind):
    buffer = io.BytesIO()
    Image.fromarray(WALKER).save(buffer, kind)
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    return path


@pytest.mark.reliability(
    "16", "text, empty, truncated and missing files and folders stop train.py, with their name"
)
def test_unreadable_images(tmp_path, monkeypatch):
    text, empty = tmp_path / "text.png", tmp_path / "empty.png"
    text.write_text("no pixels")
    empty.write_bytes(b"")
    for path, says in (
        (text, "text.png is not an image"),
        (empty, "empty.png is an empty file"),
        (truncated(tmp_path / "half.png", "PNG"), "half.png is damaged"),
        (truncated(tmp_path / "half.jpg", "JPEG"), "half.jpg is damaged"),
        (tmp_path / "nowhere.png", "nowhere.png does not exist"),
        (tmp_path, "is not a file"),
    ):
        for key in ("original_image", "masked_image"):
            assert says in refused(tmp_path, monkeypatch, **{key: path})
        assert says in refused(tmp_path, monkeypatch, extra_masked_images_list=f"[{path}]")


@pytest.mark.reliability("10", "a 16-bit image keeps its top eight bits, with a notice")
def test_sixteen_bit_image(tmp_path, caplog):
    wide = tmp_path / "wide.png"
    Image.fromarray(WALKER[..., 0].astype(np.uint16) * 257).save(wide)
    with caplog.at_level(logging.WARNING):
        found = Reference.load(wide, REFERENCES / "walker_masked_0.png").image
    assert np.array_equal(found, np.repeat(WALKER[..., :1], 3, axis=2))
    assert "wide.png is of mode I;16; converted to RGB" in caplog.text


def test_the_shipped_reference_passes(tmp_path):
    assert callable(prepare_masker(RunDirectory(tmp_path, CONFIG), torch.device("cpu")))
