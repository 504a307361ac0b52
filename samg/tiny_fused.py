"""The decoder of the ``tiny`` networks, rearranged for inference: the same function, fewer and smaller steps.

Everything here is equal to ``samg.tiny_modules.TinyDecoder`` but for rounding, by these identities:

- A head's query and key projection meet in one product, and so do its value and output projection. Their
  products, made once, act on the few tokens; the 441 image tokens are not projected at all. Each head of a
  token becomes a row of its own, so heads need no axis.
- A softmax ignores what is added to all its scores, so keys need no bias; its weights sum to one, so the
  values' bias is part of the output's.
- Sums of constants and of linear maps are linear maps.
"""

from __future__ import annotations

import copy
import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samg.tiny_modules import (
    CORRESPONDENCE,
    DIM,
    SIZE,
    SKIP_42,
    SKIP_84,
    TOKEN_GRID,
    Attention,
    Cells,
    TinyDecoder,
    TwoWayBlock,
)


def _linear(weight: Tensor, bias: Tensor | None, like: Tensor) -> nn.Linear:
    """Return a frozen layer with this weight (outputs, inputs) and bias, of the type of ``like``."""
    made = nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
    made.weight = nn.Parameter(weight.to(like), requires_grad=False)
    if bias is not None:
        made.bias = nn.Parameter(bias.to(like), requires_grad=False)
    return made


def _by_head(layer: nn.Linear, heads: int) -> tuple[Tensor, Tensor]:
    """Return a projection's weight (heads, width, inputs) and bias (heads, width) in float64."""
    return layer.weight.double().unflatten(0, (heads, -1)), layer.bias.double().unflatten(0, (heads, -1))


def _values_to_outputs(attention: Attention) -> tuple[Tensor, Tensor]:
    """Return each head's way from values to outputs, float64 (heads, outputs, inputs), and the bias."""
    weight, bias = _by_head(attention.value, attention.heads)
    out = attention.out.weight.double().unflatten(1, (attention.heads, -1))
    through = torch.einsum("ohd,hdi->hoi", out, weight)
    return through, attention.out.bias.double() + torch.einsum("ohd,hd->o", out, bias)


class FewQueries(nn.Module):
    """``Attention`` of few tokens to any number of others, which are not projected.

    Args:
        attention: whose weights these are.
    """

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        like = attention.out.weight
        query, bias = _by_head(attention.query, attention.heads)
        key = attention.scale * _by_head(attention.key, attention.heads)[0]
        asked = torch.einsum("hdk,hdq->hkq", key, query).flatten(0, 1)
        self.query = _linear(asked, torch.einsum("hdk,hd->hk", key, bias).flatten(), like)
        through, bias = _values_to_outputs(attention)
        self.out = _linear(through.transpose(0, 1).flatten(1), bias, like)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
        """See ``Attention``."""
        n, q, width = query.shape
        rows, keys = self.query(query).view(n, -1, width), key.transpose(1, 2)
        scores = torch.bmm(rows, keys) if bias is None else torch.baddbmm(bias[:, 0], rows, keys)
        return self.out(torch.bmm(scores.softmax(-1), value).view(n, q, -1))


class FewKeys(nn.Module):
    """``Attention`` of any number of tokens, which are not projected, to few others.

    Args:
        attention: whose weights these are.
    """

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.heads, like = attention.heads, attention.out.weight
        query, bias = _by_head(attention.query, self.heads)
        key = attention.scale * _by_head(attention.key, self.heads)[0]
        asked = torch.einsum("hdq,hdk->hqk", query, key)
        # The last row of each head is what the query's bias adds to all scores with a key.
        constant = torch.einsum("hd,hdk->hk", bias, key)[:, None]
        self.key = _linear(torch.cat((asked, constant), 1).flatten(0, 1), None, like)
        through, bias = _values_to_outputs(attention)
        # Each head's weights sum to one: a bias that the values of one head carry is added once.
        biases = torch.cat((bias, bias.new_zeros((self.heads - 1) * len(bias))))
        self.value = _linear(through.flatten(0, 1), biases, like)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        """See ``Attention``."""
        n, q, width = query.shape
        rows = self.key(key).view(n, -1, self.heads, width + 1)
        constant = (rows[..., -1] + bias.view(n, -1, 1)).view(n, -1, 1)
        # Queries last: a softmax along few neighbouring numbers is slow.
        scores = torch.baddbmm(constant, rows.flatten(1, 2)[..., :-1], query.transpose(1, 2))
        shares = scores.view(n, -1, self.heads * q).softmax(1).view(n, -1, q)
        return torch.bmm(shares.transpose(1, 2), self.value(value).view(n, -1, width))


def _fused_block(block: TwoWayBlock) -> TwoWayBlock:
    """Return a copy of a block with fused attentions."""
    fused = copy.deepcopy(block)
    fused.add_module("self_attention", FewQueries(block.self_attention))
    fused.add_module("to_image", FewQueries(block.to_image))
    fused.add_module("to_tokens", FewKeys(block.to_tokens))
    return fused


class FusedDecoder(nn.Module):
    """``TinyDecoder`` for inference; takes copies of its weights.

    Args:
        decoder: trained.
    """

    mask_prompt: nn.Sequential
    up42: nn.Linear
    last_norm: nn.LayerNorm
    iou_head: nn.Sequential
    cells: Cells
    image_code: Tensor
    no_mask: Tensor
    output_tokens: Tensor
    corners: Tensor
    code_x: Tensor
    code_y: Tensor
    code_offset: Tensor
    ones: Tensor

    @torch.no_grad()
    def __init__(self, decoder: TinyDecoder) -> None:
        super().__init__()
        for name in ("mask_prompt", "last_norm", "up42", "iou_head", "cells"):
            setattr(self, name, copy.deepcopy(getattr(decoder, name)))
        for name in ("image_code", "no_mask", "output_tokens"):
            self.register_buffer(name, getattr(decoder, name).detach().clone())
        self.blocks = nn.ModuleList([_fused_block(cast(TwoWayBlock, block)) for block in decoder.blocks])
        self.last_attention = FewQueries(decoder.last_attention)
        self._fuse_prompts(decoder)
        self._fuse_upsampling(decoder)
        self._fuse_weights(decoder)

    def _fuse_prompts(self, decoder: TinyDecoder) -> None:
        """Codes become one sine of a linear map of pixels, and a point's label chooses among two layers."""
        step = 4 * math.pi / SIZE * decoder.frequencies.double()
        offset = ((0.5 - SIZE / 2) * step).sum(0)
        like = decoder.label_embedding.detach()
        self.register_buffer("code_x", step[0].repeat(2).to(like))
        self.register_buffer("code_y", step[1].repeat(2).to(like))
        self.register_buffer("code_offset", torch.cat((offset, offset + math.pi / 2)).to(like))
        negative, positive, corners = decoder.label_embedding.split((1, 1, 2))
        self.register_buffer("corners", corners.detach().clone())
        under_positive, under_negative = decoder.point_feature.weight.split(CORRESPONDENCE, 1)
        biases = torch.cat((positive, negative)) + decoder.point_feature.bias
        self.point_feature = _linear(torch.cat((under_positive, under_negative)), biases.flatten(), like)

    def _fuse_upsampling(self, decoder: TinyDecoder) -> None:
        """A cell's bias, and what its 2x2 pixels of the mask add, are five more inputs of the cell.

        A bias of its own would first be written to all cells, which took longer than the product.
        """
        weight, bias = decoder.up84.weight, decoder.up84.bias[:, None]
        detail = torch.block_diag(*[decoder.mask_detail.weight] * 4)
        offset = bias + decoder.mask_detail.bias.repeat(4)[:, None]
        self.up84 = _linear(torch.cat((weight, bias), 1), None, weight)
        self.up84_masked = _linear(torch.cat((weight, offset, detail), 1), None, weight)
        self.register_buffer("ones", torch.ones(1, (SIZE // 2) ** 2, 1).to(weight))

    def _fuse_weights(self, decoder: TinyDecoder) -> None:
        self.mask_weights = copy.deepcopy(decoder.mask_weights)
        for parameter in self.mask_weights[-1].parameters():
            parameter[SKIP_84:-1] *= 4

    def prompt_tokens(
        self, unit: Tensor, points: Tensor, labels: Tensor, boxes: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """See ``TinyDecoder.prompt_tokens``."""
        n, count = labels.shape
        cell = points.round().clamp(0, SIZE - 1).long()
        index = self.cells.rank[torch.add(cell[..., :1], cell[..., 1:], alpha=SIZE)]
        under = unit.gather(1, index.expand(-1, -1, CORRESPONDENCE))
        positive, negative = self.point_feature(under).split(DIM, -1)
        meaning = torch.where((labels == 1).unsqueeze(-1), positive, negative)
        if boxes is not None:
            points = torch.cat((points, boxes.view(n, 2, 2)), 1)
            meaning = torch.cat((meaning, self.corners.to(meaning.dtype).expand(n, -1, -1)), 1)
        angles = torch.addcmul(self.code_offset, points[..., :1], self.code_x)
        code = torch.addcmul(angles, points[..., 1:], self.code_y).sin_()
        tokens = torch.cat((self.output_tokens.expand(n, -1, -1), code + meaning), 1)
        bias = F.pad((labels < 0).to(tokens.dtype) * -1e4, (4, points.shape[1] - count))
        return tokens, bias[:, None, None]

    def forward(
        self, parts: list[Tensor], points: Tensor, labels: Tensor, boxes: Tensor | None, masks: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """See ``TinyDecoder``."""
        image, skip42, skip84, unit = parts
        n = image.shape[0]
        tokens, bias = self.prompt_tokens(unit, points, labels, boxes)
        squashed = None if masks is None else self.cells.rows(torch.tanh(0.25 * masks))
        if squashed is None:
            image = image + self.no_mask
        else:
            image = image + self.mask_prompt(squashed.view(n, TOKEN_GRID**2, -1))
        code = tokens
        for block in self.blocks:
            tokens, image = block(tokens, image, code, self.image_code, bias)
        attended = self.last_attention(tokens + code, image + self.image_code, image)
        tokens = self.last_norm(tokens + attended)
        fine = self.up42(image).view(n, -1, SKIP_42).add_(skip42).relu_()
        ones = self.ones.expand(n, -1, -1)
        if squashed is None:
            pixels = self.up84(torch.cat((fine, ones), 2))
        else:
            pixels = self.up84_masked(torch.cat((fine, ones, squashed.view(n, -1, 4)), 2))
        pixels = pixels.view(n, -1, SKIP_84).add_(skip84).relu_()
        weights = self.mask_weights(tokens[:, 1:4])
        logits = torch.baddbmm(weights[..., -1:], weights[..., SKIP_84:-1], unit.transpose(1, 2))
        logits = logits.add_(torch.bmm(weights[..., :SKIP_84], pixels.transpose(1, 2)))
        return self.cells.pictures(logits), self.iou_head(tokens[:, 0])
