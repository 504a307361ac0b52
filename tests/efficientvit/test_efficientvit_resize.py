"""Resizes: Pillow pixel for pixel, torch's bilinear chain number for number."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from efficientvit import upsample_logits
from efficientvit.resize import (
    bilinear_matrix,
    composed_resize,
    longest_side_shape,
    pillow_resize,
    prompt_frame_scale,
)

SIZES = [
    ((84, 84), (512, 512)),
    ((84, 84), (1024, 1024)),
    ((160, 120), (512, 384)),
    ((512, 512), (84, 84)),
    ((333, 470), (85, 120)),
    ((100, 37), (512, 189)),
    ((1, 5), (7, 3)),
    ((84, 84), (84, 84)),
]


def pictures(count, shape, seed=0):
    """Noise, hard edges and saturated areas: what rounding and clipping must survive."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (count, *shape, 3), dtype=np.uint8)
    images[0] = np.where(images[0] > 127, 255, 0)
    return images


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_equals_pillow_in_every_pixel(source, target):
    images = pictures(2, source)
    ours = pillow_resize(torch.from_numpy(images), *target)
    assert ours.dtype == torch.int32 and 0 <= ours.min() and ours.max() <= 255
    for image, mine in zip(images, ours.permute(0, 2, 3, 1).numpy(), strict=True):
        pillow = Image.fromarray(image).resize((target[1], target[0]), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(mine, np.asarray(pillow))


def test_pillow_resize_keeps_its_input_and_allows_no_images():
    images = torch.from_numpy(pictures(1, (84, 84)))
    before = images.clone()
    pillow_resize(images, 512, 512)
    assert torch.equal(images, before)
    assert pillow_resize(images[:0], 512, 512).shape == (0, 3, 512, 512)


def test_pillow_resize_refuses_floats():
    with pytest.raises(ValueError, match="expected uint8"):
        pillow_resize(torch.zeros(1, 4, 4, 3), 8, 8)


@pytest.mark.parametrize(
    ("source", "target"), [(64, 256), (256, 1024), (1024, 84), (1024, 160), (7, 3), (1, 4)]
)
def test_bilinear_matrix_is_torch_interpolate(source, target):
    signal = torch.randn(3, 5, source, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(signal, size=target, mode="linear", align_corners=False)
    torch.testing.assert_close(signal @ bilinear_matrix(source, target).T, expected, rtol=0, atol=1e-12)


def chain(low_res, image_size):
    """The steps one by one, as the published code takes them."""
    large = F.interpolate(low_res, size=(1024, 1024), mode="bilinear", align_corners=False)
    rows, columns = longest_side_shape(*image_size, 1024)
    return F.interpolate(large[..., :rows, :columns], size=image_size, mode="bilinear", align_corners=False)


@pytest.mark.parametrize("image_size", [(84, 84), (160, 160), (84, 120), (201, 77), (600, 450)])
def test_upsampling_in_one_step_equals_the_chain(image_size):
    low_res = 10 * torch.randn(2, 3, 256, 256, generator=torch.Generator().manual_seed(1))
    expected = chain(low_res.double(), image_size)
    torch.testing.assert_close(upsample_logits(low_res.double(), image_size), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(upsample_logits(low_res, image_size).double(), expected, rtol=0, atol=2e-5)


def test_composed_operator_maps_a_constant_to_itself():
    operator = composed_resize((64, 256, 1024), 84)
    torch.testing.assert_close(operator.sum(1), torch.ones(84))


@pytest.mark.parametrize(
    ("shape", "expected"), [((84, 84), (1024, 1024)), ((84, 120), (717, 1024)), ((3, 2), (1024, 683))]
)
def test_long_side_rounds_half_up(shape, expected):
    assert longest_side_shape(*shape, 1024) == expected
    x, y = prompt_frame_scale(shape, 1024)
    assert (x, y) == (expected[1] / shape[1], expected[0] / shape[0])
