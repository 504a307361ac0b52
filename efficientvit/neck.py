"""The neck of EfficientViT-SAM: three backbone stages become one 256 x 64 x 64 embedding."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from segment_anything.modeling.common import LayerNorm2d
from timm.models.efficientvit_mit import ConvNormAct
from torch import Tensor, nn

from efficientvit.backbone import Backbone, BatchNorm, OpList, Variant, bottleneck, residual
from efficientvit.decoder import EMBED_DIM, GRID


class Neck(nn.Module):
    """Project each stage to 256 channels, resize to the 64 x 64 grid, add, and refine.

    Args:
        widths: channels of the stages, deepest first.
        depth: residual fused bottlenecks after the sum.
        expand: their expansion.
    """

    def __init__(self, widths: list[int], depth: int, expand: int) -> None:
        super().__init__()
        project = [
            OpList([ConvNormAct(width, EMBED_DIM, 1, norm_layer=BatchNorm, act_layer=None)])
            for width in widths
        ]
        self.input_ops = nn.ModuleList(project)
        self.middle = OpList(
            [residual(bottleneck("fused", EMBED_DIM, EMBED_DIM, expand)) for _ in range(depth)]
        )
        output = ConvNormAct(EMBED_DIM, EMBED_DIM, 1, bias=True, norm_layer=None, act_layer=None)
        self.output_ops = nn.ModuleList([OpList([output])])

    def forward(self, stages: list[Tensor]) -> Tensor:
        """Map the stages' features, deepest first, to float (N, 256, 64, 64)."""
        maps = []
        for op, stage in zip(self.input_ops, stages, strict=True):
            x = op(stage)
            if x.shape[-1] != GRID:
                x = F.interpolate(x, size=(GRID, GRID), mode="bicubic", align_corners=False)
            maps.append(x)
        return self.output_ops[0](self.middle(torch.stack(maps).sum(0)))


class ImageEncoder(nn.Module):
    """Backbone, neck and a layer norm over channels."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.backbone = Backbone(variant)
        self.neck = Neck(self.backbone.widths, variant.neck_depth, variant.neck_expand)
        self.norm = LayerNorm2d(EMBED_DIM, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Map float (N, 3, S, S), normalised, to float (N, 256, 64, 64)."""
        return self.norm(self.neck(self.backbone(x)))
