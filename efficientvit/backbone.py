"""EfficientViT backbones of EfficientViT-SAM (Cai et al., 2023; Zhang et al., 2024).

The blocks are timm's; this file says how they are stacked and gives them the released names
(``stages.S.op_list.I``). timm's own ``EfficientVitLarge`` stacks the same blocks for L0 to L2 but cannot
express the XL variants (six stages, other attention scale and expansion), so one table describes all five.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from timm.layers import GELUTanh
from timm.models.efficientvit_mit import ConvBlock, ConvNormAct, FusedMBConv, LiteMLA, MBConv, ResidualBlock
from torch import Tensor, nn

Kind = Literal["fused", "mb", "attention"]
HEAD_DIM = 32


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation with the released models' epsilon."""

    def __init__(self, num_features: int, **factory: Any) -> None:
        super().__init__(num_features, eps=1e-6, **factory)


@dataclass(frozen=True)
class Stage:
    """One stage: a block that halves the resolution, then ``depth`` residual blocks.

    Attributes:
        width: channels out.
        depth: residual blocks after the first.
        kind: fused convolutions, inverted bottlenecks, or attention followed by an inverted bottleneck.
        down: ("fused" or "mb", expansion) of the halving block.
        expand: expansion of the residual blocks.
        scale: kernel of the second attention scale.
    """

    width: int
    depth: int
    kind: Kind
    down: tuple[Kind, int]
    expand: int = 4
    scale: int = 5


@dataclass(frozen=True)
class Variant:
    """One EfficientViT-SAM encoder.

    Attributes:
        image_size: side of the square the encoder sees, in pixels.
        stem_depth: residual blocks of the stem.
        stages: the stages after the stem; the last three feed the neck.
        neck_depth: residual blocks of the neck.
        neck_expand: their expansion.
    """

    image_size: int
    stem_depth: int
    stages: tuple[Stage, ...]
    neck_depth: int
    neck_expand: int


def _large(shallow: int, deep: int, neck_depth: int) -> Variant:
    stages = (
        Stage(64, shallow, "fused", ("fused", 16)),
        Stage(128, shallow, "fused", ("fused", 16)),
        Stage(256, deep, "mb", ("mb", 16)),
        Stage(512, deep, "attention", ("mb", 24), expand=6),
    )
    return Variant(512, 1, stages, neck_depth, neck_expand=1)


def _extra_large(stem_depth: int, shallow: int, middle: int, deep: int, neck_depth: int) -> Variant:
    stages = (
        Stage(64, shallow, "fused", ("fused", 16)),
        Stage(128, shallow, "fused", ("fused", 16)),
        Stage(256, middle, "fused", ("fused", 16)),
        Stage(512, deep, "attention", ("mb", 16), expand=4, scale=3),
        Stage(1024, deep, "attention", ("mb", 24), expand=6, scale=3),
    )
    return Variant(1024, stem_depth, stages, neck_depth, neck_expand=4)


VARIANTS: dict[str, Variant] = {
    "l0": _large(1, 4, 4),
    "l1": _large(1, 6, 8),
    "l2": _large(2, 8, 12),
    "xl0": _extra_large(0, 1, 2, 3, 6),
    "xl1": _extra_large(1, 2, 4, 6, 12),
}


class OpList(nn.Module):
    """Operations in sequence, under the released name ``op_list``."""

    def __init__(self, ops: list[nn.Module]) -> None:
        super().__init__()
        self.op_list = nn.ModuleList(ops)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the operations one after another."""
        for op in self.op_list:
            x = op(x)
        return x


def bottleneck(kind: Kind, channels: int, width: int, expand: int, stride: int = 1) -> nn.Module:
    """Return a fused bottleneck (3x3, 1x1) or an inverted one (1x1, depthwise 3x3, 1x1).

    Every convolution of the fused one is normalised, only the last of the inverted one.
    """
    if kind == "fused":
        return FusedMBConv(
            channels,
            width,
            stride=stride,
            expand_ratio=expand,
            norm_layer=BatchNorm,
            act_layer=(GELUTanh, None),
        )
    return MBConv(
        channels,
        width,
        stride=stride,
        expand_ratio=expand,
        use_bias=(True, True, False),
        norm_layer=(None, None, BatchNorm),
        act_layer=(GELUTanh, GELUTanh, None),
    )


def residual(block: nn.Module) -> ResidualBlock:
    """Return ``x + block(x)``."""
    return ResidualBlock(block, nn.Identity())


class AttentionBlock(nn.Module):
    """Multi-scale linear attention over the image, then an inverted bottleneck; both residual."""

    def __init__(self, width: int, expand: int, scale: int) -> None:
        super().__init__()
        # The released models divide by (denominator + 1e-15); timm's default of 1e-5 is another function.
        attention = LiteMLA(
            width, width, dim=HEAD_DIM, norm_layer=(None, BatchNorm), scales=(scale,), eps=1e-15
        )
        self.context_module = residual(attention)
        self.local_module = residual(bottleneck("mb", width, width, expand))

    def forward(self, x: Tensor) -> Tensor:
        """Map float (N, C, H, W) to the same shape."""
        return self.local_module(self.context_module(x))


class Backbone(nn.Module):
    """Convolutional stages, then attention stages; returns the last three stages, deepest first."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        width = 32
        stem: list[nn.Module] = [ConvNormAct(3, width, stride=2, norm_layer=BatchNorm, act_layer=GELUTanh)]
        for _ in range(variant.stem_depth):
            block = ConvBlock(width, width, norm_layer=BatchNorm, act_layer=(GELUTanh, None))
            stem.append(residual(block))
        stages = [OpList(stem)]
        for stage in variant.stages:
            ops: list[nn.Module] = [
                ResidualBlock(bottleneck(stage.down[0], width, stage.width, stage.down[1], stride=2))
            ]
            width = stage.width
            ops += [self._block(stage) for _ in range(stage.depth)]
            stages.append(OpList(ops))
        self.stages = nn.ModuleList(stages)
        self.widths = [stage.width for stage in variant.stages[:-4:-1]]

    @staticmethod
    def _block(stage: Stage) -> nn.Module:
        if stage.kind == "attention":
            return AttentionBlock(stage.width, stage.expand, stage.scale)
        return residual(bottleneck(stage.kind, stage.width, stage.width, stage.expand))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map float (N, 3, S, S), normalised, to the last three stages' features, deepest first."""
        outputs = []
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        return outputs[:-4:-1]
