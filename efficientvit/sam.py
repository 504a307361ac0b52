"""EfficientViT-SAM: uint8 frames in, promptable masks out, one prompt set per frame, no waiting host."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.errors import unknown_choice
from common.masking import check_frames
from efficientvit import decoder as sam_decoder
from efficientvit.backbone import VARIANTS
from efficientvit.decoder import LOW_RES, PROMPT_FRAME
from efficientvit.neck import ImageEncoder
from efficientvit.output import SamOutput
from efficientvit.resize import (
    composed_resize,
    longest_side_shape,
    pillow_resize,
    prompt_frame_scale,
    resize_maps,
)

PIXEL_MEAN = (123.675 / 255, 116.28 / 255, 103.53 / 255)
PIXEL_STD = (58.395 / 255, 57.12 / 255, 57.375 / 255)


def upsample_logits(low_res: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Resize decoder logits to the image: 256 -> 1024, crop of the padding, -> image size, in one step.

    Args:
        low_res: float (N, M, 256, 256).
        image_size: (H, W) in pixels.

    Returns:
        float (N, M, H, W).
    """
    height, width = image_size
    crop = longest_side_shape(height, width, PROMPT_FRAME)
    stages = (low_res.shape[-1], PROMPT_FRAME)
    rows = composed_resize(stages, height, crop[0], low_res.device, low_res.dtype)
    columns = composed_resize(stages, width, crop[1], low_res.device, low_res.dtype)
    return resize_maps(low_res, rows, columns)


class EfficientViTSam(nn.Module):
    """An EfficientViT image encoder with SAM's prompt encoder and mask decoder; released names and shapes.

    Args:
        name: ``l0``, ``l1``, ``l2`` (512 pixel input), ``xl0`` or ``xl1`` (1024 pixel input).
    """

    dense_positions: Tensor
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, name: str) -> None:
        super().__init__()
        if name not in VARIANTS:
            raise unknown_choice("EfficientViT-SAM", name, VARIANTS)
        self.name = name
        self.image_size = VARIANTS[name].image_size
        self.image_encoder = ImageEncoder(VARIANTS[name])
        self.prompt_encoder = sam_decoder.build_prompt_encoder()
        self.mask_decoder = sam_decoder.build_mask_decoder()
        # Constants that follow the device but are no part of the released state dict.
        for constant in ("pixel_mean", "pixel_std", "dense_positions"):
            self.register_buffer(constant, torch.empty(0), persistent=False)
        self._refresh_constants()
        self.register_load_state_dict_post_hook(_refresh_after_load)

    def _refresh_constants(self) -> None:
        """Compute what depends on the loaded weights or, in a model built on ``meta``, was never computed."""
        matrix = self.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
        self.dense_positions = sam_decoder.dense_positions(matrix)
        self.pixel_mean = torch.tensor(PIXEL_MEAN, device=matrix.device).view(1, 3, 1, 1)
        self.pixel_std = torch.tensor(PIXEL_STD, device=matrix.device).view(1, 3, 1, 1)

    def preprocess(self, frames: Tensor) -> Tensor:
        """Resize, normalise and pad as the released models expect.

        Args:
            frames: uint8 (N, H, W, 3) RGB in [0, 255].

        Returns:
            float32 (N, 3, S, S); long side S, the rest padded with zeros at the right or the bottom.
        """
        check_frames(frames)
        height, width = longest_side_shape(frames.shape[1], frames.shape[2], self.image_size)
        planes = pillow_resize(frames, height, width).float()
        x = planes.div_(255).sub_(self.pixel_mean).div_(self.pixel_std)
        return F.pad(x, (0, self.image_size - width, 0, self.image_size - height))

    def encode(self, frames: Tensor) -> Tensor:
        """Return the image embeddings of uint8 (N, H, W, 3) RGB frames, float (N, 256, 64, 64)."""
        if frames.shape[0] == 0:  # reshapes inside the backbone cannot infer sizes from nothing
            return torch.zeros(
                0, sam_decoder.EMBED_DIM, sam_decoder.GRID, sam_decoder.GRID, device=frames.device
            )
        return self.image_encoder(self.preprocess(frames))

    def decode_low_res(
        self,
        features: Tensor,
        image_size: tuple[int, int],
        points: Tensor,
        labels: Tensor,
        boxes: Tensor | None = None,
        mask_inputs: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Decode without resizing to the image; arguments as ``decode``.

        Returns:
            Low-resolution logits (N, 3, 256, 256) and predicted IoUs (N, 3).
        """
        _check_prompts(features, points, labels, boxes, mask_inputs)
        scale = prompt_frame_scale(image_size, PROMPT_FRAME)
        # Python factors per column: a tensor of the two factors would be copied from the host at every call.
        points = torch.stack([points[..., 0] * scale[0], points[..., 1] * scale[1]], dim=-1)
        if boxes is not None:
            x, y = boxes[:, 0::2] * scale[0], boxes[:, 1::2] * scale[1]
            boxes = torch.stack([x, y], dim=-1).flatten(1)
        prompts = sam_decoder.embed_prompts(self.prompt_encoder, points, labels, boxes)
        dense = sam_decoder.embed_masks(self.prompt_encoder, mask_inputs)
        return sam_decoder.decode_masks(self.mask_decoder, features, self.dense_positions, prompts, dense)

    def decode(
        self,
        features: Tensor,
        image_size: tuple[int, int],
        points: Tensor,
        labels: Tensor,
        boxes: Tensor | None = None,
        mask_inputs: Tensor | None = None,
    ) -> SamOutput:
        """Decode one prompt set per image.

        Args:
            features: float (N, 256, 64, 64), from ``encode``.
            image_size: (H, W) of the frames, in pixels.
            points: float (N, P, 2), (x, y) in image pixels.
            labels: (N, P): 1 positive, 0 negative, -1 no point (padding).
            boxes: float (N, 4), x0 y0 x1 y1 in image pixels.
            mask_inputs: float (N, 1, 256, 256), low-resolution logits of an earlier pass; None for none.

        Returns:
            The three alternative masks of each image.
        """
        low_res, iou = self.decode_low_res(features, image_size, points, labels, boxes, mask_inputs)
        return SamOutput(upsample_logits(low_res, image_size), iou, low_res)


def _refresh_after_load(module: nn.Module, _incompatible: Any) -> None:
    assert isinstance(module, EfficientViTSam)
    module._refresh_constants()


def _check_prompts(
    features: Tensor, points: Tensor, labels: Tensor, boxes: Tensor | None, mask_inputs: Tensor | None
) -> None:
    """Raise ``ValueError`` unless there is one prompt set of the documented shape per image."""
    count = features.shape[0]
    if points.ndim != 3 or points.shape[0] != count or points.shape[-1] != 2:
        raise ValueError(f"points: expected shape ({count}, P, 2), got {tuple(points.shape)}")
    if labels.shape != points.shape[:2]:
        raise ValueError(f"labels: expected shape {tuple(points.shape[:2])}, got {tuple(labels.shape)}")
    if boxes is not None and boxes.shape != (count, 4):
        raise ValueError(f"boxes: expected shape ({count}, 4), got {tuple(boxes.shape)}")
    if mask_inputs is not None and mask_inputs.shape != (count, 1, LOW_RES, LOW_RES):
        expected = (count, 1, LOW_RES, LOW_RES)
        raise ValueError(f"mask_inputs: expected shape {expected}, got {tuple(mask_inputs.shape)}")


def build_efficientvit_sam(name: str = "l1") -> EfficientViTSam:
    """Return an untrained EfficientViT-SAM in evaluation mode, its parameters frozen.

    Released state dicts load into it with ``load_state_dict(state, strict=True)``.
    """
    return EfficientViTSam(name).eval().requires_grad_(False)
