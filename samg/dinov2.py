"""DINOv2 patch features (Oquab et al., DINOv2, 2023), from timm's vision transformer at 448 (or 224) pixels.

timm resamples the position table of the 518 pixel models otherwise than the original code (antialiased,
without the 0.1 offset). It is therefore resampled here, once and the original way; then features are equal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import timm
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from common.errors import unknown_choice
from common.masking import check_frames

DINO_SIZE = 448
SIZES = (448, 224)
PATCH = 14
FEATURE_GRID = 64
ARCHITECTURES = {"vits14": "vit_small_patch14_dinov2", "vitb14": "vit_base_patch14_dinov2"}
PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)
_OFFSET = 0.1


def resample_positions(table: Tensor, grid: int = DINO_SIZE // PATCH) -> Tensor:
    """Resample a position table the original way: bicubic, scale (grid + 0.1) / old, no antialiasing.

    Args:
        table: float (1, 1 + K * K, C), class token first.
        grid: patches per side wanted.

    Returns:
        float (1, 1 + grid * grid, C).
    """
    patches = table[:, 1:].float()
    old = math.isqrt(patches.shape[1])
    if old == grid:
        return table
    scale = (grid + _OFFSET) / old
    square = patches.reshape(1, old, old, -1).permute(0, 3, 1, 2)
    square = F.interpolate(square, scale_factor=(scale, scale), mode="bicubic", antialias=False)
    return torch.cat([table[:, :1].float(), square.flatten(2).transpose(1, 2)], dim=1)


def adapt_state(state: Mapping[str, Tensor], size: int = DINO_SIZE) -> dict[str, Tensor]:
    """Return a DINOv2 state dict, original or timm's, as the model for ``size`` pixels wants it.

    The mask token, which only pre-training uses, is dropped and the position table is resampled. All else
    stays as it is, so that a strict load finds what does not fit.
    """
    adapted = {key: value for key, value in state.items() if key != "mask_token"}
    table = adapted.get("pos_embed")
    if table is not None and table.ndim == 3 and math.isqrt(table.shape[1] - 1) ** 2 == table.shape[1] - 1:
        adapted["pos_embed"] = resample_positions(table, size // PATCH)
    return adapted


class DinoV2(nn.Module):
    """A DINOv2 encoder without registers; its features on a 64 x 64 grid.

    Args:
        name: ``vitb14`` (768 channels, the reference's) or ``vits14`` (384 channels).
        size: of the frames it sees, in pixels: 448 (32 x 32 patches), or 224 (16 x 16), which is faster and
            coarser.
    """

    def __init__(self, name: str = "vitb14", size: int = DINO_SIZE) -> None:
        super().__init__()
        if name not in ARCHITECTURES:
            raise unknown_choice("DINOv2", name, ARCHITECTURES)
        if size not in SIZES:
            raise unknown_choice("masker.dino_size", str(size), map(str, SIZES))
        self.name, self.size = name, size
        model = timm.create_model(ARCHITECTURES[name], pretrained=False, img_size=size, num_classes=0)
        assert isinstance(model, VisionTransformer)
        self.model = model

    def preprocess(self, frames: Tensor) -> Tensor:
        """Scale to [0, 1], resize bilinearly to ``size`` and normalise, in this order.

        Args:
            frames: uint8 (N, H, H, 3) RGB in [0, 255]; square.

        Returns:
            float32 (N, 3, size, size).
        """
        check_frames(frames)
        if frames.shape[1] != frames.shape[2]:
            raise ValueError(f"frames: expected square frames, got {tuple(frames.shape[1:3])}")
        x = frames.permute(0, 3, 1, 2).contiguous().float().div_(255)
        side = (self.size, self.size)
        x = F.interpolate(x, size=side, mode="bilinear", align_corners=False, antialias=True)
        for plane, mean, std in zip(x.unbind(1), PIXEL_MEAN, PIXEL_STD, strict=True):
            plane.sub_(mean).div_(std)
        return x

    def forward(self, frames: Tensor) -> Tensor:
        """Return the patch features of uint8 (N, H, H, 3) frames, float32 (N, C, 64, 64), not normalised."""
        tokens = self.model.forward_features(self.preprocess(frames))
        grid = self.size // PATCH
        # Tokens have a cell's channels side by side. Left so, and known to be so (dense, channels last), the
        # map is resized in a fifth of the time on a CPU.
        patches = tokens[:, self.model.num_prefix_tokens :].float().contiguous()
        square = patches.unflatten(1, (grid, grid)).permute(0, 3, 1, 2)
        return F.interpolate(square, size=(FEATURE_GRID, FEATURE_GRID), mode="bilinear", align_corners=False)
