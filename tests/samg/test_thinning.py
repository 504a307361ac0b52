"""Starting from the wider encoder: what is kept, what is fitted, and what cannot be started from."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from common.errors import InputError
from samg.pretraining import thinning
from samg.pretraining.export import export_weights
from samg.pretraining.thinning import read_start, thinned
from samg.tiny import TinyNetworks, to_pixels
from samg.tiny_modules import ConvNorm, TinyEncoder


@pytest.fixture(scope="module")
def frames() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randint(0, 256, (2, 8, 3, 12, 12), generator=generator).float()
    pictures = [nn.functional.interpolate(batch, size=84, mode="bilinear") for batch in coarse]
    return [batch.permute(0, 2, 3, 1).to(torch.uint8) for batch in pictures]


def wide_networks(dead: bool) -> TinyNetworks:
    """Networks with the wider encoder; ``dead`` channels of every layer give nothing."""
    torch.manual_seed(0)
    networks = thinning.wide_networks()
    slim = TinyEncoder()
    with torch.no_grad():
        for name, module in networks.encoder.named_modules():
            if isinstance(module, ConvNorm):
                norm = module.norm
                assert isinstance(norm, nn.BatchNorm2d)
                assert norm.running_mean is not None and norm.running_var is not None
                norm.running_mean.normal_(0, 0.1)
                norm.running_var.uniform_(0.3, 0.6)
                norm.bias.normal_(0, 0.1)
                if dead:
                    kept = slim.get_submodule(name).conv.out_channels  # type: ignore[union-attr]
                    _silence(norm, kept)
    return networks.requires_grad_(False).eval()


def _silence(norm: nn.BatchNorm2d, kept: int) -> None:
    """Let the first channels of a norm give nothing, so that the last ``kept`` are all there is."""
    norm.weight[: len(norm.weight) - kept] = 0
    norm.bias[: len(norm.bias) - kept] = 0


@pytest.fixture(scope="module")
def exact(frames: list[Tensor]) -> TinyNetworks:
    """Thin networks, made of wide ones that have no more living channels than they."""
    return made_of(wide_networks(dead=True), frames)


def made_of(wide: TinyNetworks, frames: list[Tensor]) -> TinyNetworks:
    networks = TinyNetworks().requires_grad_(False)
    networks.load_state_dict(thinned(wide.state_dict(), frames, 0))
    return networks.eval()


def test_what_fits_into_the_thin_encoder_is_kept_as_it_is(exact: TinyNetworks, frames: list[Tensor]) -> None:
    wide = wide_networks(dead=True)
    (wanted, wanted_parts), (found, parts) = (n.encoder(to_pixels(frames[0])) for n in (wide, exact))
    assert found["sam"].shape[1] < wanted["sam"].shape[1]
    torch.testing.assert_close(found["dino"], wanted["dino"], atol=0.02, rtol=0)
    assert wanted["dino"].std() > 0.1  # so that the tolerance says something
    for one, other in zip(parts, wanted_parts, strict=True):
        assert (one - other).square().mean().sqrt() < 0.02 * other.std()


def test_norms_keep_the_statistics_of_what_they_get(exact: TinyNetworks, frames: list[Tensor]) -> None:
    """In training batch norms use the pictures' own statistics: the function must be nearly the same."""
    pixels, encoder = to_pixels(torch.cat(frames)), copy.deepcopy(exact.encoder)
    kept = encoder.eval()(pixels)[0]["dino"]
    fresh = encoder.train()(pixels)[0]["dino"]
    assert (kept - fresh).square().mean().sqrt() < 0.1 * kept.std()


def test_a_fit_is_nearer_than_the_strongest_channels_alone(frames: list[Tensor]) -> None:
    wide = wide_networks(dead=False)
    networks = made_of(wide, frames)
    wanted, found = (n.encoder(to_pixels(frames[0]))[0]["dino"] for n in (wide, networks))
    mean = wanted.mean((0, 2, 3), keepdim=True)
    assert (found - wanted).square().mean() < 0.7 * (mean - wanted).square().mean()


def test_the_decoder_reads_masks_as_before() -> None:
    """A token's 4x4 pixels of a mask come cell by cell now; they came row by row."""
    wide = wide_networks(dead=False)
    weight = wide.decoder.mask_prompt[0].weight  # type: ignore[union-attr, index]
    state = thinned(wide.state_dict(), [torch.zeros(1, 84, 84, 3, dtype=torch.uint8)], 0)
    mask = torch.randn(1, 1, 84, 84)
    before = nn.functional.pixel_unshuffle(mask, 4).flatten(2).transpose(1, 2) @ weight.T
    cells = wide.decoder.cells.rows(mask).view(1, 441, 16)  # type: ignore[union-attr, operator]
    torch.testing.assert_close(cells @ state["decoder.mask_prompt.0.weight"].T, before)


def test_weights_of_now_are_taken_as_they_are(tmp_path: Path) -> None:
    networks = TinyNetworks()
    export_weights(networks, tmp_path / "own.safetensors", {})
    state, wide = read_start(tmp_path / "own.safetensors")
    assert not wide and state.keys() == networks.state_dict().keys()


def test_wide_weights_are_told_by_their_name(tmp_path: Path) -> None:
    tensors = dict(wide_networks(dead=False).state_dict())
    save_file(tensors, tmp_path / "wide.safetensors", {"architecture": "samg-tiny-1"})
    state, wide = read_start(tmp_path / "wide.safetensors")
    assert wide and torch.equal(state["encoder.sam_head.weight"], tensors["encoder.sam_head.weight"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("encoder.stem.0.conv.weight"), "'encoder.stem.0.conv.weight' is missing"),
        (lambda t: t.update({"encoder.skip84.bias": torch.zeros(3)}), "'encoder.skip84.bias' is"),
        (
            lambda t: t["map_scale"].fill_(torch.inf),
            "'map_scale' holds values that are not finite",
        ),
    ],
)
def test_wide_weights_that_are_not_whole_are_refused(change, said: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    tensors = {name: value.clone() for name, value in wide_networks(dead=False).state_dict().items()}
    change(tensors)
    save_file(tensors, tmp_path / "wide.safetensors", {"architecture": "samg-tiny-1"})
    with pytest.raises(InputError, match=said) as caught:
        read_start(tmp_path / "wide.safetensors")
    assert "wide.safetensors" in caught.value.message and caught.value.hint
