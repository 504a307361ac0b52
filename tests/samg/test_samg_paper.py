"""The full-size networks: DINOv2's features, the similarity operator, and the protocol of the pipeline."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from common.errors import ConfigError
from samg.dinov2 import DinoV2, adapt_state, resample_positions
from samg.numerics import MaskerNumerics
from samg.paper import PaperNetworks
from samg.weights import drawn_state
from tests.support import golden


@pytest.fixture(scope="module")
def pipeline():
    """The golden arrays and the encoded reference image."""
    arrays = golden.arrays("samg_pipeline")
    with torch.no_grad():
        encoded = golden.paper_networks().encode(torch.from_numpy(arrays["reference_image"])[None])
    return arrays, encoded


def published_cells(arrays):
    """Cells pooled by the published code: the cut-out through SAM's transform, shrunk, red above 0."""
    cutout = torch.from_numpy(arrays["reference_image"] * arrays["reference_mask"][..., None])[None]
    red = F.interpolate(golden.paper_networks().sam.preprocess(cutout), size=(64, 64), mode="bilinear")[0, 0]
    return red > 0


@pytest.mark.parametrize(("encoder", "key"), [("sam", "target_feature"), ("dino", "dino_target_feature")])
def test_target_feature_agrees_with_the_published_code(pipeline, encoder, key):
    arrays, encoded = pipeline
    inside = encoded.maps[encoder][0][:, published_cells(arrays)]
    feature = F.normalize(0.5 * inside.mean(1) + 0.5 * inside.amax(1), dim=0)
    np.testing.assert_allclose(feature.numpy(), arrays[key], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("encoder", "key"), [("sam", "part_features"), ("dino", "dino_part_features")])
def test_point_features_agree_with_the_published_code(pipeline, encoder, key):
    """Rows 1 to 3 are the extra points', mixed from four cells without the half-cell offset."""
    arrays, encoded = pipeline
    grid = encoded.maps[encoder][0]
    for (column, row), expected in zip(arrays["extra_points"], arrays[key][1:], strict=True):
        x, y = column * 64 / 84, row * 64 / 84
        left, top = int(x), int(y)
        dx, dy = x - left, y - top
        feature = (
            grid[:, top, left] * (1 - dx) * (1 - dy)
            + grid[:, top, left + 1] * dx * (1 - dy)
            + grid[:, top + 1, left] * (1 - dx) * dy
            + grid[:, top + 1, left + 1] * dx * dy
        )
        np.testing.assert_allclose(F.normalize(feature, dim=0).numpy(), expected, atol=1e-5, rtol=0)


def test_reference_similarity_agrees_with_the_published_code(pipeline):
    arrays, encoded = pipeline
    networks = golden.paper_networks()
    total = torch.zeros(84, 84)
    for encoder, key in (("sam", "target_feature"), ("dino", "dino_target_feature")):
        cells = F.normalize(encoded.maps[encoder][0], dim=0)
        operator = networks.similarity_operator(encoder, 84)
        total += operator @ torch.einsum("c,chw->hw", torch.from_numpy(arrays[key]), cells) @ operator.T / 2
    np.testing.assert_allclose(total.numpy(), arrays["reference_similarity"], atol=1e-5, rtol=0)


def smooth_maps(count):
    """Smooth random 64 x 64 maps, as similarity maps are: interpolated noise of several scales."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.zeros(count, 1, 64, 64)
    for size in (4, 8, 16, 32):
        noise = torch.randn(count, 1, size, size, generator=generator)
        maps += F.interpolate(noise, size=(64, 64), mode="bicubic", align_corners=False) / size
    return maps


def test_similarity_operator_finds_the_same_extremes_as_the_published_chain():
    networks = golden.paper_networks()
    operator = networks.similarity_operator("dino", 84)
    differing_directly = 0
    for maps in smooth_maps(1000).split(50):
        chain = F.interpolate(maps, scale_factor=4, mode="bilinear")
        chain = F.interpolate(chain, size=(1024, 1024), mode="bilinear", align_corners=False)
        chain = F.interpolate(chain, size=(84, 84), mode="bilinear", align_corners=False).flatten(1)
        composed = (operator @ maps @ operator.T).flatten(1)
        torch.testing.assert_close(composed, chain, atol=1e-5, rtol=0)
        assert torch.equal(composed.argmax(1), chain.argmax(1))
        assert torch.equal(composed.argmin(1), chain.argmin(1))
        direct = F.interpolate(maps, size=(84, 84), mode="bilinear", align_corners=False).flatten(1)
        differing_directly += int((direct.argmax(1) != chain.argmax(1)).sum())
    assert differing_directly > 20, (
        "one direct resize is expected to move maxima; the test has lost its point"
    )


def test_position_table_is_resampled_the_original_way():
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(1, 1 + 37 * 37, 6, generator=generator)
    ours = resample_positions(table)
    assert ours.shape == (1, 1 + 32 * 32, 6)
    assert torch.equal(ours[:, 0], table[:, 0])
    cell = ours[0, 1 + 5 * 32 + 9]
    patches = table[0, 1:].reshape(37, 37, 6)
    # Cubic convolution with a = -0.75 at source position (i + 0.5) / scale - 0.5, scale = 32.1 / 37.
    expected = torch.zeros(6)
    for row, wy in cubic_weights(5):
        for column, wx in cubic_weights(9):
            expected += wy * wx * patches[row, column]
    torch.testing.assert_close(cell, expected, atol=1e-4, rtol=0)


def cubic_weights(index, a=-0.75):
    position = (index + 0.5) * 37 / 32.1 - 0.5
    first = int(np.floor(position)) - 1
    for source in range(first, first + 4):
        d = abs(position - source)
        near = (a + 2) * d**3 - (a + 3) * d**2 + 1
        far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
        yield source, near if d <= 1 else far


def test_a_table_of_the_right_size_is_left_alone():
    table = torch.randn(1, 1 + 32 * 32, 4)
    assert resample_positions(table) is table


def test_original_state_dict_fits_the_model_strictly():
    shapes = golden.shapes("dinov2_vitb14_state_dict")
    with torch.device("meta"):
        model = DinoV2("vitb14").model
    adapted = adapt_state(
        drawn_state({key: shapes[key] for key in ("pos_embed", "mask_token", "norm.weight")})
    )
    assert set(model.state_dict()) == set(shapes) - {"mask_token"}
    assert adapted["pos_embed"].shape == model.state_dict()["pos_embed"].shape
    assert "mask_token" not in adapted


def test_dino_keeps_the_order_of_rows_and_columns():
    """A change in the upper right corner of the frame changes mostly the upper right of the features."""
    model = DinoV2("vits14").eval().requires_grad_(False)
    model.model.blocks = torch.nn.Sequential()  # patch embedding and last norm only: local by construction
    frames = torch.zeros(2, 84, 84, 3, dtype=torch.uint8)
    frames[1, :20, 64:] = 255
    low, high = model(frames)
    change = (high - low).abs().sum(0)
    assert change.shape == (64, 64)
    assert change[:14, 50:].min() > 0
    assert change[20:].max() == 0
    assert change[:, :44].max() == 0


class StandIn(torch.nn.Module):
    """In place of a large encoder: features that show which frame they came from."""

    def __init__(self, channels):
        super().__init__()
        self.channels = channels
        self.dense_positions = torch.zeros(1)

    def forward(self, frames):
        mean = frames.float().mean((1, 2, 3)).view(-1, 1, 1, 1)
        return mean.expand(-1, self.channels, 64, 64)

    encode = forward


@pytest.mark.parametrize("encoders", [("dino", "sam"), ("dino",), ("sam",), ("sam", "dino")])
def test_chosen_encoders_and_no_others_are_returned_in_order(encoders):
    networks = PaperNetworks(StandIn(256), StandIn(768), encoders)
    encoded = networks.encode(torch.ones(2, 84, 84, 3, dtype=torch.uint8))
    assert tuple(encoded.maps) == networks.encoders == encoders
    assert encoded.embedding.shape == (2, 256, 64, 64)
    assert (networks.dino is None) == ("dino" not in encoders)
    for encoder, feature_map in encoded.maps.items():
        assert feature_map.shape == (2, {"dino": 768, "sam": 256}[encoder], 64, 64)


@pytest.mark.parametrize("encoders", [("clip",), (), ("sam", "sam")])
def test_impossible_encoders_are_refused(encoders):
    with pytest.raises(ConfigError):
        PaperNetworks(StandIn(256), StandIn(768), encoders)


def test_unknown_operator_is_refused():
    with pytest.raises(ConfigError, match="encoder"):
        PaperNetworks(StandIn(256), None, ("sam",)).similarity_operator("dino", 84)


def test_frames_that_are_not_square_are_refused():
    with pytest.raises(ValueError, match="square"):
        DinoV2.preprocess(golden.paper_networks().dino, torch.zeros(1, 84, 60, 3, dtype=torch.uint8))


def test_no_frames_give_no_features():
    encoded = golden.paper_networks().encode(torch.zeros(0, 84, 84, 3, dtype=torch.uint8))
    assert encoded.embedding.shape == (0, 256, 64, 64)
    assert encoded.maps["dino"].shape == (0, 768, 64, 64)


def test_everything_is_frozen_and_in_evaluation_mode():
    networks = golden.paper_networks()
    assert not any(parameter.requires_grad for parameter in networks.parameters())
    assert not any(module.training for module in networks.modules())


@pytest.mark.slow
def test_bfloat16_encoders_stay_close():
    networks = golden.paper_networks()
    frames = torch.from_numpy(golden.arrays("samg_pipeline")["frames"][:1])
    low = PaperNetworks(networks.sam, networks.dino)
    low.tune(MaskerNumerics(precision="bfloat16"), torch.device("cpu"))
    with torch.no_grad():
        exact, rounded = networks.encode(frames), low.encode(frames)
    for encoder, feature_map in exact.maps.items():
        assert rounded.maps[encoder].dtype == torch.float32
        assert F.cosine_similarity(feature_map, rounded.maps[encoder]).mean() > 0.99
