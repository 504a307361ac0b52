"""Every reference a user can get wrong, and what the message says."""

import logging

import numpy as np
import pytest
import torch
from PIL import Image

from common.errors import InputError
from samg.images import binarise
from samg.reference import Reference, parse_points
from tests.support.scenes import scene


@pytest.fixture
def files(tmp_path):
    image, mask = scene(size=60)
    save(tmp_path / "image.png", image)
    save(tmp_path / "mask.png", mask.astype(np.uint8) * 255)
    save(tmp_path / "cutout.png", image * mask[..., None])
    return tmp_path


def save(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)


def load(files, mask="mask.png", **kwargs):
    return Reference.load(files / "image.png", files / mask, **kwargs)


def test_loads_image_masks_and_points(files):
    found = load(
        files, extra_points_list=[[25, 30], (22, 21)], extra_masked_images_list=[files / "cutout.png"]
    )
    image, mask = scene(size=60)
    assert np.array_equal(found.image, image) and np.array_equal(found.mask, mask)
    assert found.part_masks.shape == (1, 60, 60) and np.array_equal(found.part_masks[0], mask)
    assert found.points.dtype == np.float32 and found.points.tolist() == [[25, 30], [22, 21]]
    assert found.sources == ("image.png", "mask.png", "cutout.png")
    assert found.cutouts.shape == (2, 60, 60, 3)


@pytest.mark.reliability("10", "grey, RGBA, palette, CMYK and 16-bit files are converted, with a notice")
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA", "I;16", "CMYK"])
def test_modes_of_a_mask_file(files, mode, caplog):
    _, mask = scene(size=60)
    path = files / "other.png"
    if mode == "I;16":
        save(path, mask.astype(np.uint16) * 65535)
    elif mode == "CMYK":
        path = files / "other.tif"
        Image.fromarray(mask.astype(np.uint8) * 255).convert("RGB").convert("CMYK").save(path)
    else:
        Image.fromarray(mask.astype(np.uint8) * 255).convert(mode).save(path)
    with caplog.at_level(logging.WARNING):
        found = load(files, path.name)
    assert np.array_equal(found.mask, mask)
    assert ("converted to RGB" in caplog.text) == (mode not in ("1", "L"))  # grey is what a mask should be


def test_transparent_cut_out_is_black_outside(files):
    image, mask = scene(size=60)
    pixels = np.dstack((image, mask.astype(np.uint8) * 255))
    save(files / "alpha.png", pixels)
    assert np.array_equal(load(files, "alpha.png").mask, mask)


@pytest.mark.reliability("14", "JPEG masks and cut-outs are split at fixed, documented thresholds")
def test_jpeg_cut_out_and_jpeg_mask(files):
    image, mask = scene(size=60)
    save(files / "cutout.jpg", image * mask[..., None], quality=95)
    save(files / "mask.jpg", mask.astype(np.uint8) * 255, quality=95)
    for name, least in (("cutout.jpg", 0.8), ("mask.jpg", 0.95)):
        found = load(files, name).mask
        assert (found & mask).sum() / (found | mask).sum() >= least


def test_two_valued_and_cut_out_thresholds():
    pixels = np.zeros((10, 10, 3), np.uint8)
    pixels[2:5] = 255
    assert binarise(pixels).sum() == 30
    pixels[2:5] = 100  # one flat grey object on black: a cut-out
    assert binarise(pixels).sum() == 30
    pixels[2:5, :5] = (17, 0, 0)
    pixels[7, 7] = (16, 16, 16)
    assert binarise(pixels).sum() == 30
    pixels[:] = 0
    assert not binarise(pixels).any()


def test_missing_jpg_opens_its_png_sibling(files, caplog):
    with caplog.at_level(logging.WARNING):
        found = load(files, "cutout.jpg")
    assert "using cutout.png" in caplog.text
    assert found.sources == ("image.png", "cutout.png")


@pytest.mark.reliability("14", "a cut-out with a dark JPEG halo is a warning")
def test_dark_halo_is_reported(files, caplog):
    image, mask = scene(size=60)
    cutout = image * mask[..., None]
    ring = np.zeros_like(mask)
    ring[14:46, 14:46] = True
    cutout[ring & ~mask] = 20
    save(files / "halo.png", cutout)
    with caplog.at_level(logging.WARNING):
        load(files, "halo.png")
    assert "JPEG halo" in caplog.text
    caplog.clear()
    load(files, "cutout.png")
    assert "halo" not in caplog.text


def assert_says(error, *words):
    assert error.value.exit_code == 3
    assert error.value.hint
    for word in words:
        assert word in str(error.value)


@pytest.mark.reliability("16", "a missing file is named")
def test_missing_file(files):
    with pytest.raises(InputError) as error:
        load(files, "nowhere.png")
    assert_says(error, "mask image", "nowhere.png", "does not exist")


@pytest.mark.reliability("16", "a truncated PNG or JPEG is refused")
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_truncated_file(files, suffix):
    image, _ = scene(size=60)
    save(files / f"whole.{suffix}", image)
    content = (files / f"whole.{suffix}").read_bytes()
    (files / f"part.{suffix}").write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(InputError) as error:
        load(files, f"part.{suffix}")
    assert_says(error, f"part.{suffix}", "damaged")


@pytest.mark.reliability("16", "a file that is no image is refused")
def test_not_an_image(files):
    (files / "text.png").write_text("no pixels here")
    with pytest.raises(InputError) as error:
        load(files, "text.png")
    assert_says(error, "text.png", "is not an image")


@pytest.mark.reliability("16", "a folder in a file's place is refused")
def test_a_folder(files):
    with pytest.raises(InputError) as error:
        load(files, ".")
    assert_says(error, "not a file")


@pytest.mark.reliability("11", "a mask of another size than its image: both are named, nothing is resized")
def test_mask_of_another_size(files):
    save(files / "small.png", np.full((30, 60), 255, np.uint8))
    with pytest.raises(InputError) as error:
        load(files, "small.png")
    assert_says(error, "small.png", "60 x 30", "60 x 60")


@pytest.mark.reliability("12", "a mask that selects nothing is refused")
def test_empty_mask(files):
    save(files / "black.png", np.zeros((60, 60), np.uint8))
    with pytest.raises(InputError) as error:
        load(files, extra_masked_images_list=[files / "black.png"])
    assert_says(error, "black.png", "empty")


@pytest.mark.reliability("13", "a mask that covers more than 95 % of the image is refused")
def test_mask_that_covers_everything(files):
    white = np.full((60, 60), 255, np.uint8)
    white[0, :60] = 0
    save(files / "white.png", white)
    with pytest.raises(InputError) as error:
        load(files, "white.png")
    assert_says(error, "white.png", "98%")


@pytest.mark.reliability("10", "a reference that is not square is refused")
def test_not_square(files):
    save(files / "image.png", np.zeros((40, 60, 3), np.uint8))
    save(files / "wide.png", np.pad(np.full((10, 10), 255, np.uint8), ((0, 30), (0, 50))))
    with pytest.raises(InputError) as error:
        load(files, "wide.png")
    assert_says(error, "60 x 40", "square")


@pytest.mark.reliability("15", "points outside, negative, not finite, no numbers or no pairs are refused")
@pytest.mark.parametrize(
    ("points", "words"),
    [
        ([[60, 10]], "outside"),
        ([[10, -1]], "outside"),
        ([[1, 2, 3]], "not an x, y pair"),
        ([40, 24, 23], "3 numbers"),
        ([[1, 2], 3, 4], "mixes"),
        ([[float("nan"), 2]], "not finite"),
        ([float("inf"), 2], "not finite"),
        (["a", 2], "not a number"),
        ([[None, 2]], "not a number"),
        (40, "expected a list of points"),
        (torch.tensor(40), "expected a list of points"),
        ({"x": 1, "y": 2}, "expected a list of points"),
        ("40 24 23", "3 numbers"),
        ("40 y", "not a number"),
        (torch.tensor([[1.0, 2.0, 3.0]]), "not an x, y pair"),
    ],
)
def test_impossible_points(files, points, words):
    with pytest.raises(InputError) as error:
        load(files, extra_points_list=points)
    assert_says(error, words)


def test_points_as_pairs_flat_text_or_absent():
    expected = [[40, 24], [23, 68]]
    assert parse_points([[40, 24], [23, 68]]).tolist() == expected
    assert parse_points([40, 24, 23, 68]).tolist() == expected
    assert parse_points(["40", "24", "23", "68"]).tolist() == expected
    assert parse_points("40 24 23 68").tolist() == parse_points("40,24, 23,68").tolist() == expected
    for made in (
        np.array(expected),
        torch.tensor(expected),
        np.ravel(expected),
        tuple(torch.tensor(expected)),
    ):
        assert parse_points(made).tolist() == expected
    assert parse_points(iter(torch.tensor(expected).flatten())).tolist() == expected
    assert parse_points(None).shape == parse_points([]).shape == (0, 2)


def test_a_point_beside_the_mask_is_reported(files, caplog):
    with caplog.at_level(logging.WARNING):
        load(files, extra_points_list=[2, 3])
    assert "(2, 3) does not lie on the reference mask" in caplog.text


@pytest.mark.reliability(
    "10", "a reference of another size than the observations: both sizes and the file are named"
)
def test_resolution_of_the_environment(files):
    found = load(files)
    found.check_resolution(60)
    with pytest.raises(InputError) as error:
        found.check_resolution(84)
    assert_says(error, "60 x 60", "84 x 84", "image_size=60")


@pytest.mark.reliability("16", "a saved reference comes back, and one with a missing file is refused")
def test_saved_and_restored(files, tmp_path):
    found = load(
        files, "cutout.png", extra_points_list=[25.5, 30], extra_masked_images_list=[files / "mask.png"]
    )
    found.save(tmp_path / "reference")
    again = Reference.restore(tmp_path / "reference")
    for name in ("image", "mask", "part_masks", "points", "cutouts"):
        assert np.array_equal(getattr(found, name), getattr(again, name)), name
    assert again.digest(cutouts=True) == found.digest(cutouts=True)
    assert again.sources == found.sources
    (tmp_path / "reference" / "mask_1.png").unlink()
    with pytest.raises(InputError):
        Reference.restore(tmp_path / "reference")


def test_digest_follows_what_matters(files):
    plain = load(files)
    assert load(files).digest() == plain.digest()
    assert load(files, "cutout.png").digest() == plain.digest()
    cutout = np.asarray(Image.open(files / "cutout.png")).copy()
    cutout[cutout.any(2)] |= 1
    save(files / "brighter.png", cutout)
    assert load(files, "brighter.png").digest() == plain.digest()
    assert load(files, "brighter.png").digest(cutouts=True) != plain.digest(cutouts=True)
    assert load(files, extra_points_list=[25, 30]).digest() != plain.digest()


@pytest.mark.parametrize("top", [1, 255])
def test_binary_mask_cut_out_and_arrays_are_the_same_reference(files, top):
    image, mask = scene(size=60)
    save(files / "binary.png", mask.astype(np.uint8) * top)
    parts = [files / "binary.png"]
    expected = Reference.from_arrays(image, mask, part_masks=[mask])
    for name in ("binary.png", "cutout.png"):
        found = load(files, name, extra_masked_images_list=parts)
        assert found.digest(cutouts=True) == expected.digest(cutouts=True)


def test_mask_of_zeros_and_ones(files, caplog):
    _, mask = scene(size=60)
    save(files / "ones.png", mask.astype(np.uint8))
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(load(files, "ones.png").mask, mask)
    assert "halo" not in caplog.text


def test_from_arrays_refuses_other_types():
    image, mask = scene(size=60)
    with pytest.raises(ValueError, match="uint8"):
        Reference.from_arrays(image.astype(np.float32), mask)
    with pytest.raises(ValueError, match="bool"):
        Reference.from_arrays(image, mask.astype(np.uint8))
    with pytest.raises(InputError):
        Reference.from_arrays(image, np.zeros_like(mask))
