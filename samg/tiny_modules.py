"""Modules of the ``tiny`` networks: a convolutional pyramid and a SAM-shaped decoder; see ``samg.tiny``."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

SIZE = 84  # native frame size and grid of the `dino` map
CORRESPONDENCE = 32  # channels of the `dino` map
DIM = 64  # width of the decoder
TOKEN_GRID = 21  # the decoder's image tokens
SKIP_42, SKIP_84 = 32, 16


class Widths(NamedTuple):
    """Channels of the pyramid at 84, 42, 21 and 11 cells, of the way back up, and of the ``sam`` map."""

    down: tuple[int, int, int, int] = (16, 32, 64, 96)
    up: tuple[int, int, int] = (24, 32, 64)
    sam: int = 32


WIDTHS = Widths()


class ConvNorm(nn.Module):
    """Convolution, batch norm and an optional ReLU; ``fuse`` folds the norm into the convolution."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, relu: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H/stride, W/stride)."""
        x = self.norm(self.conv(x))
        return F.relu(x, inplace=not self.training) if self.relu else x

    def fuse(self) -> None:
        """Fold the running statistics into the convolution (inference only)."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv = fuse_conv_bn_eval(self.conv, self.norm)
            self.norm = nn.Identity()


class Residual(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = ConvNorm(width, width)
        self.second = ConvNorm(width, width, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        return self.second(self.first(x)).add_(x).relu_()


class _Unit(torch.autograd.Function):
    """``F.normalize`` over axis 1 with a gradient of three passes over memory instead of nine."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        length = x.square().sum(1, keepdim=True).sqrt_().clamp_(min=1e-12)
        unit = x / length
        ctx.save_for_backward(unit, length)
        return unit

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        unit, length = ctx.saved_tensors
        along = (gradient * unit).sum(1, keepdim=True)
        return torch.addcmul(gradient, unit, along, value=-1).div_(length)


def unit_vectors(x: Tensor) -> Tensor:
    """Scale the vectors along axis 1 of float (N, C, ...) to length one; computed in float32."""
    unit: Tensor = _Unit.apply(x.float())
    return unit


def upsample(x: Tensor, size: int) -> Tensor:
    """Resize (N, C, H, W) bilinearly to ``size`` x ``size``."""
    return F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)


def pixel_order(grid: int) -> Tensor:
    """Return the flat pixels of a square grid of 21, 42 or 84 token by token, int64 (grid*grid,).

    The pixels of a token follow each other, and among them those of each of its 2x2 cells, so that the
    decoder refines tokens to cells to pixels without moving memory.
    """
    halvings = (grid // TOKEN_GRID).bit_length() - 1
    sides = (TOKEN_GRID, *(2,) * halvings)
    rows_columns = torch.arange(grid * grid).view(*sides, *sides)  # both from coarse to fine
    return rows_columns.permute(
        [axis + side for axis in range(len(sides)) for side in (0, len(sides))]
    ).flatten()


class _Permuted(torch.autograd.Function):
    """``x.index_select(1, order)`` for a permutation: its gradient is one, too, and no sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, rank: Tensor) -> Tensor:
        ctx.save_for_backward(rank)
        return x.index_select(1, order)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (rank,) = ctx.saved_tensors
        return gradient.index_select(1, rank), None, None


def _rows(x: Tensor) -> Tensor:
    """Return the pixels of (N, C, H, W) in reading order, (N, H*W, C); free for channels-last memory."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


class Cells(nn.Module):
    """Brings a square grid of pixels into ``pixel_order`` and back."""

    order: Tensor
    rank: Tensor

    def __init__(self, grid: int) -> None:
        super().__init__()
        self.grid = grid
        order = pixel_order(grid)
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("rank", order.argsort(), persistent=False)

    def rows(self, x: Tensor) -> Tensor:
        """Return the pixels of (N, C, G, G) as rows, (N, G*G, C); fast for channels-last memory."""
        rows: Tensor = _Permuted.apply(_rows(x), self.order, self.rank)
        return rows

    def pictures(self, x: Tensor) -> Tensor:
        """Return (N, C, G*G), pixels in ``pixel_order``, as pictures (N, C, G, G)."""
        # Not `index_select`, which is slow along the last axis.
        return x.gather(2, self.rank.expand_as(x)).unflatten(2, (self.grid, self.grid))


class TinyEncoder(nn.Module):
    """Convolutional pyramid 84-42-21-11 with a top-down path back to 84."""

    def __init__(self, widths: Widths = WIDTHS) -> None:
        super().__init__()
        (down84, down42, down21, down11), (up84, up42, up21), sam = widths
        self.stem = nn.Sequential(ConvNorm(3, 16), ConvNorm(16, down84))
        self.stage42 = nn.Sequential(ConvNorm(down84, down42, stride=2), Residual(down42))
        self.stage21 = nn.Sequential(ConvNorm(down42, down21, stride=2), Residual(down21), Residual(down21))
        self.stage11 = nn.Sequential(ConvNorm(down21, down11, stride=2), Residual(down11), Residual(down11))
        self.lateral11 = ConvNorm(down11, up21, 1, relu=False)
        self.lateral21 = ConvNorm(down21, up21, 1, relu=False)
        self.smooth21 = ConvNorm(up21, up21)
        self.down42 = ConvNorm(up21, up42, 1, relu=False)
        self.lateral42 = ConvNorm(down42, up42, 1, relu=False)
        self.smooth42 = ConvNorm(up42, up42)
        self.down84 = ConvNorm(up42, up84, 1, relu=False)
        self.lateral84 = ConvNorm(down84, up84, 1, relu=False)
        self.smooth84 = ConvNorm(up84, up84)
        self.dino_head = nn.Conv2d(up84, CORRESPONDENCE, 1)
        self.sam_head = nn.Conv2d(up42, sam, 1)
        self.token_head = nn.Conv2d(up21, DIM, 1)
        self.skip42 = nn.Conv2d(up42, SKIP_42, 1)
        self.skip84 = nn.Conv2d(up84, SKIP_84, 1)
        self.cells42, self.cells84 = Cells(2 * TOKEN_GRID), Cells(SIZE)

    def forward(self, pixels: Tensor) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Encode normalised pixels.

        Args:
            pixels: float (N, 3, 84, 84).

        Returns:
            The two feature maps, and the four parts of the embedding (tokens, skips, correspondence) as rows
            (N, pixels, .) in ``pixel_order``.
        """
        x84 = self.stem(pixels)
        x42 = self.stage42(x84)
        x21 = self.stage21(x42)
        x11 = self.stage11(x21)
        p21 = self.smooth21(self.lateral21(x21).add_(upsample(self.lateral11(x11), 21)).relu_())
        p42 = self.smooth42(self.lateral42(x42).add_(upsample(self.down42(p21), 42)).relu_())
        p84 = self.smooth84(self.lateral84(x84).add_(upsample(self.down84(p42), 84)).relu_())
        dino = self.dino_head(p84)
        parts = [_rows(self.token_head(p21)), self.cells42.rows(self.skip42(p42))]
        parts += [self.cells84.rows(x) for x in (self.skip84(p84), unit_vectors(dino).to(dino.dtype))]
        return {"dino": dino, "sam": self.sam_head(p42)}, parts


class Attention(nn.Module):
    """Plain multi-head attention; fused kernels are slower for heads this narrow on a CPU."""

    def __init__(self, width: int = DIM, inner: int = 32, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, inner) for _ in range(3))
        self.out = nn.Linear(inner, width)
        self.scale = (inner // heads) ** -0.5

    def forward(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
        """Attend from (N, Q, C) to (N, K, C); ``bias`` (N, 1, 1, K) is added to the scores."""
        n, q, _ = query.shape
        shape = (n, -1, self.heads, self.query.out_features // self.heads)
        queries = self.query(query).view(shape).transpose(1, 2) * self.scale
        keys = self.key(key).view(shape).permute(0, 2, 3, 1)
        scores = queries @ keys
        if bias is not None:
            scores = scores + bias
        mixed = scores.softmax(-1) @ self.value(value).view(shape).transpose(1, 2)
        return self.out(mixed.transpose(1, 2).reshape(n, q, -1))


class TwoWayBlock(nn.Module):
    """SAM's two-way block: tokens to themselves, tokens to image, MLP, image to tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.self_attention, self.to_image, self.to_tokens = Attention(), Attention(), Attention()
        self.mlp = nn.Sequential(nn.Linear(DIM, 2 * DIM), nn.ReLU(), nn.Linear(2 * DIM, DIM))
        self.norms = nn.ModuleList([nn.LayerNorm(DIM) for _ in range(4)])

    def forward(
        self, tokens: Tensor, image: Tensor, token_code: Tensor, image_code: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Update tokens (N, T, C) and image (N, G*G, C); codes are the position-carrying originals."""
        query = tokens + token_code
        tokens = self.norms[0](tokens + self.self_attention(query, query, tokens, bias))
        tokens = self.norms[1](tokens + self.to_image(tokens + token_code, image + image_code, image))
        tokens = self.norms[2](tokens + self.mlp(tokens))
        image = self.norms[3](image + self.to_tokens(image + image_code, tokens + token_code, tokens, bias))
        return tokens, image


class TinyDecoder(nn.Module):
    """Prompt encoder, two-way transformer and mask heads (three masks and their predicted IoUs)."""

    frequencies: Tensor
    image_code: Tensor

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("frequencies", torch.randn(2, DIM // 2, generator=generator))
        axis = (torch.arange(TOKEN_GRID) + 0.5) / TOKEN_GRID
        grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).reshape(1, -1, 2)
        self.register_buffer("image_code", self.position_code(grid), persistent=False)
        self.cells = Cells(SIZE)
        self.label_embedding = nn.Parameter(0.02 * torch.randn(4, DIM))  # negative, positive, box corners
        self.output_tokens = nn.Parameter(0.5 * torch.randn(4, DIM))  # IoU, three masks
        self.point_feature = nn.Linear(2 * CORRESPONDENCE, DIM)
        self.no_mask = nn.Parameter(torch.zeros(DIM))
        self.mask_prompt = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, DIM))
        self.mask_detail = nn.Linear(1, SKIP_84)
        self.blocks = nn.ModuleList([TwoWayBlock(), TwoWayBlock()])
        self.last_attention = Attention()
        self.last_norm = nn.LayerNorm(DIM)
        self.up42 = nn.Linear(DIM, 4 * SKIP_42)
        self.up84 = nn.Linear(SKIP_42, 4 * SKIP_84)
        self.mask_weights = nn.Sequential(
            nn.Linear(DIM, DIM), nn.ReLU(), nn.Linear(DIM, SKIP_84 + CORRESPONDENCE + 1)
        )
        self.iou_head = nn.Sequential(nn.Linear(DIM, DIM), nn.ReLU(), nn.Linear(DIM, 3))

    def position_code(self, where: Tensor) -> Tensor:
        """Random Fourier features (N, P, C) of positions in [0, 1] (N, P, 2), as in SAM."""
        angles = 2 * math.pi * ((2 * where - 1) @ self.frequencies)
        return torch.cat([angles.sin(), angles.cos()], -1)

    def prompt_tokens(
        self, unit: Tensor, points: Tensor, labels: Tensor, boxes: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return tokens (N, T, C) and the attention bias (N, 1, 1, T) that hides ignored points.

        Args:
            unit: (N, 84*84, C_dino) unit correspondence features, in ``pixel_order``.
            points: float (N, P, 2), (x, y) in native 84-grid pixels.
            labels: (N, P).
            boxes: float (N, 4) in native pixels, or None.
        """
        n = points.shape[0]
        cell = points.round().clamp(0, SIZE - 1).long()
        index = self.cells.rank[cell[..., 1] * SIZE + cell[..., 0]]
        under = unit.gather(1, index.unsqueeze(-1).expand(-1, -1, CORRESPONDENCE))
        positive = (labels == 1).unsqueeze(-1)
        signed = torch.cat([under * positive, under * ~positive], -1)
        embedding = torch.where(positive, self.label_embedding[1], self.label_embedding[0])
        tokens = self.position_code((points + 0.5) / SIZE) + embedding + self.point_feature(signed)
        hidden = labels < 0
        groups = [self.output_tokens.expand(n, -1, -1), tokens]
        masked = [hidden.new_zeros(n, 4), hidden]
        if boxes is not None:
            corners = self.position_code((boxes.view(n, 2, 2) + 0.5) / SIZE) + self.label_embedding[2:]
            groups.append(corners)
            masked.append(hidden.new_zeros(n, 2))
        bias = torch.cat(masked, 1).to(tokens.dtype) * -1e4
        return torch.cat([group.to(tokens.dtype) for group in groups], 1), bias[:, None, None]

    def forward(
        self, parts: list[Tensor], points: Tensor, labels: Tensor, boxes: Tensor | None, masks: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Decode prompts in native pixels to logits (N, 3, 84, 84) and IoUs (N, 3).

        Args:
            parts: image tokens (N, 441, C), skips (N, 42*42, .) and (N, 84*84, .), unit features; rows in
                ``pixel_order``.
            points: see ``prompt_tokens``.
            labels: see ``prompt_tokens``.
            boxes: see ``prompt_tokens``.
            masks: float (N, 1, 84, 84) logits, or None.
        """
        image, skip42, skip84, unit = parts
        n = image.shape[0]
        tokens, bias = self.prompt_tokens(unit, points, labels, boxes)
        if masks is None:
            image = image + self.no_mask
        else:
            squashed = self.cells.rows(torch.tanh(0.25 * masks))
            image = image + self.mask_prompt(squashed.view(n, TOKEN_GRID**2, -1))
            skip84 = skip84 + self.mask_detail(squashed)
        code = tokens
        for block in self.blocks:
            tokens, image = block(tokens, image, code, self.image_code, bias)
        attended = self.last_attention(tokens + code, image + self.image_code, image)
        tokens = self.last_norm(tokens + attended)
        # Added and cut off in place: on a CPU fresh arrays of this size cost more than the arithmetic.
        fine = self.up42(image).view(n, -1, SKIP_42).add_(skip42).relu_()
        fine = self.up84(fine).view(n, -1, SKIP_84).add_(skip84).relu_()
        weights = self.mask_weights(tokens[:, 1:4])
        logits = weights[..., :SKIP_84] @ fine.transpose(1, 2)
        matched = 4 * weights[..., SKIP_84:-1] @ unit.transpose(1, 2)
        logits = logits.add_(matched).add_(weights[..., -1:])
        return self.cells.pictures(logits), self.iou_head(tokens[:, 0])
