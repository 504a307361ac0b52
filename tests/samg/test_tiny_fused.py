"""What inference rearranges computes what the trained modules compute."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from samg.correspondence import cosine_maps, operator_groups, similarity_maps
from samg.tiny import TinyNetworks
from samg.tiny_fused import FewKeys, FewQueries, FusedDecoder
from samg.tiny_modules import CORRESPONDENCE, DIM, SKIP_42, SKIP_84, Attention, TinyDecoder

N = 2


@pytest.fixture(scope="module")
def decoder() -> TinyDecoder:
    torch.manual_seed(0)
    made = TinyDecoder().double().requires_grad_(False)
    for parameter in made.parameters():  # nothing that happens to be zero or one before training
        parameter += 0.1 * torch.randn_like(parameter)
    return made


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def parts() -> list[torch.Tensor]:
    sizes = ((21, DIM), (42, SKIP_42), (84, SKIP_84), (84, CORRESPONDENCE))
    return [numbers(N, grid * grid, width) for grid, width in sizes]


@pytest.mark.parametrize("boxed", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_the_fused_decoder_is_the_decoder(decoder: TinyDecoder, boxed: bool, masked: bool) -> None:
    before = copy.deepcopy(decoder.state_dict())
    fused = FusedDecoder(decoder)
    points = 90 * numbers(N, 5, 2).sigmoid() - 3  # fractions, and some beyond the borders
    labels = torch.tensor([[1, 0, 1, 1, -1], [1, 0, -1, 0, 1]])
    boxes = torch.tensor([[3.0, 4, 50, 60], [0, 0, 83, 83]], dtype=torch.float64) if boxed else None
    masks = 5 * numbers(N, 1, 84, 84) if masked else None
    wanted = decoder(parts(), points, labels, boxes, masks)
    found = fused(parts(), points, labels, boxes, masks)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=0)
    assert wanted[0].abs().max() > 1  # so that the tolerance says something
    assert not any(parameter.requires_grad for parameter in fused.parameters())
    assert all(torch.equal(value, before[name]) for name, value in decoder.state_dict().items())


def test_fused_attention_ignores_what_is_hidden(decoder: TinyDecoder) -> None:
    attention = Attention().double().requires_grad_(False)
    tokens, image = numbers(N, 6, DIM), numbers(N, 9, DIM)
    bias = torch.tensor([0, 0, -1e4, 0, 0, -1e4]).double().expand(N, 1, 1, 6)
    for query, fused in ((tokens, FewQueries(attention)), (image, FewKeys(attention))):
        wanted = attention(query, tokens + 1, tokens, bias)
        torch.testing.assert_close(fused(query, tokens + 1, tokens, bias), wanted, atol=1e-12, rtol=0)
        other = tokens.clone()
        other[:, [2, 5]] = 7
        torch.testing.assert_close(fused(query, other + 1, other, bias), wanted, atol=1e-12, rtol=0)


def test_fusing_twice_is_fusing_once() -> None:
    networks = TinyNetworks().requires_grad_(False).fuse()
    decoder = networks.decoder
    assert isinstance(decoder, FusedDecoder) and networks.fuse().decoder is decoder


def test_maps_at_the_frames_resolution_are_not_resized() -> None:
    networks = TinyNetworks()
    groups = operator_groups(networks, ("dino", "sam"), 84, torch.device("cpu"))
    assert [group.identity for group in groups] == [True, False]
    maps = {"dino": numbers(1, 32, 84, 84).float(), "sam": numbers(1, 48, 42, 42).float()}
    targets = {
        name: torch.nn.functional.normalize(numbers(3, value.shape[1])) for name, value in maps.items()
    }
    resized = [replace(group, identity=False) for group in groups]
    found, wanted = (similarity_maps(maps, targets, some) for some in (groups, resized))
    assert torch.equal(found, wanted)


def test_cosines_do_not_depend_on_the_layout() -> None:
    maps, targets = numbers(2, 8, 5, 5), torch.nn.functional.normalize(numbers(3, 8))
    maps[0, :, 0, 0] = 0  # a cell without a direction is like nothing
    wanted = torch.einsum("tc,nchw->nthw", targets, torch.nn.functional.normalize(maps))
    for layout in (torch.contiguous_format, torch.channels_last):
        found = cosine_maps(maps.contiguous(memory_format=layout), targets)
        torch.testing.assert_close(found, wanted, atol=1e-14, rtol=0)
