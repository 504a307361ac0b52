"""SAM's prompt encoder and mask decoder, batched: B images with one prompt set each.

The parameters live in segment-anything's own modules (Kirillov et al., Segment Anything, 2023, section 3 and
appendix A), so released names fit. Their ``forward`` repeats every image for every prompt set and indexes by
boolean masks, which makes the host wait for the device; here the same numbers are computed without either.
"""

from __future__ import annotations

import contextlib

import torch
import torch.nn.functional as F
from segment_anything.modeling import MaskDecoder, PromptEncoder, TwoWayTransformer
from torch import Tensor

EMBED_DIM = 256
GRID = 64
LOW_RES = 4 * GRID
PROMPT_FRAME = 1024
"""Prompts are expressed in a frame whose long side has this many pixels, whatever size the encoder sees."""


def build_prompt_encoder() -> PromptEncoder:
    """Return SAM's prompt encoder for a 64 x 64 embedding and the 1024 pixel prompt frame."""
    return PromptEncoder(EMBED_DIM, (GRID, GRID), (PROMPT_FRAME, PROMPT_FRAME), mask_in_chans=16)


def build_mask_decoder() -> MaskDecoder:
    """Return SAM's mask decoder with three multimask outputs."""
    transformer = TwoWayTransformer(depth=2, embedding_dim=EMBED_DIM, mlp_dim=2048, num_heads=8)
    return MaskDecoder(transformer_dim=EMBED_DIM, transformer=transformer, num_multimask_outputs=3)


def fourier_features(matrix: Tensor, coords: Tensor) -> Tensor:
    """Encode positions by random Fourier features.

    Args:
        matrix: float (2, C/2), frequencies of x and of y.
        coords: float (..., 2), x and y in [0, 1].

    Returns:
        float (..., C) in [-1, 1].
    """
    # Two multiplications instead of a matrix product: autocast must not round coordinates to bfloat16.
    centred = 2 * coords - 1
    angle = 2 * torch.pi * (centred[..., :1] * matrix[0] + centred[..., 1:] * matrix[1])
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def dense_positions(matrix: Tensor) -> Tensor:
    """Return the position encoding of the cell centres of the image embedding, float (1, 256, 64, 64)."""
    centres = (torch.arange(GRID, device=matrix.device, dtype=matrix.dtype) + 0.5) / GRID
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    return fourier_features(matrix, torch.stack([x, y], dim=-1)).permute(2, 0, 1).unsqueeze(0)


def embed_prompts(encoder: PromptEncoder, points: Tensor, labels: Tensor, boxes: Tensor | None) -> Tensor:
    """Embed points and boxes as tokens.

    Args:
        encoder: holder of the learned embeddings.
        points: float (N, P, 2), (x, y) in the 1024 pixel prompt frame.
        labels: (N, P): 1 positive, 0 negative, -1 no point.
        boxes: float (N, 4) in the prompt frame; without one, SAM adds a padding point.

    Returns:
        float (N, P + 1, 256), or (N, P + 2, 256) with boxes.
    """
    matrix = encoder.pe_layer.positional_encoding_gaussian_matrix
    corners = [embedding.weight for embedding in encoder.point_embeddings]
    table = torch.cat([encoder.not_a_point_embed.weight, corners[0], corners[1]])
    labels = labels.long().unsqueeze(-1)
    position = fourier_features(matrix, (points.float() + 0.5) / PROMPT_FRAME)
    position = torch.where(labels >= 0, position, torch.zeros_like(position))
    tokens = [position + F.embedding(labels.squeeze(-1) + 1, table)]
    if boxes is None:
        tokens.append(encoder.not_a_point_embed.weight.expand(points.shape[0], 1, -1))
    else:
        ends = (boxes.float().reshape(-1, 2, 2) + 0.5) / PROMPT_FRAME
        tokens.append(fourier_features(matrix, ends) + torch.cat([corners[2], corners[3]]))
    return torch.cat(tokens, dim=1)


def embed_masks(encoder: PromptEncoder, mask_inputs: Tensor | None) -> Tensor:
    """Embed low-resolution logits (N, 1, 256, 256) as (N, 256, 64, 64).

    Without any, the learned (1, 256, 1, 1) embedding of "no mask" stands for all.
    """
    if mask_inputs is None:
        return encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
    return encoder.mask_downscaling(mask_inputs)


def decode_masks(
    decoder: MaskDecoder, features: Tensor, positions: Tensor, prompts: Tensor, dense: Tensor
) -> tuple[Tensor, Tensor]:
    """Decode one prompt set per image into SAM's three alternative masks.

    Args:
        decoder: holder of the parameters.
        features: float (N, 256, 64, 64), image embeddings.
        positions: float (1, 256, 64, 64), their position encoding.
        prompts: float (N, T, 256), from ``embed_prompts``.
        dense: from ``embed_masks``.

    Returns:
        Low-resolution logits (N, 3, 256, 256) and predicted IoUs (N, 3).
    """
    count = features.shape[0]
    outputs = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight]).expand(count, -1, -1)
    tokens, image = decoder.transformer(features + dense, positions, torch.cat([outputs, prompts], dim=1))
    upscaled = decoder.output_upscaling(image.transpose(1, 2).reshape(features.shape))
    # Token 0 of the mask tokens is the single-mask output, which nobody asks for: it is not decoded.
    heads = decoder.output_hypernetworks_mlps
    # Under autocast the last products, little work, still give logits and scores in full precision.
    device = features.device.type
    with contextlib.nullcontext() if device == "meta" else torch.autocast(device, enabled=False):
        tokens = tokens.float()
        hyper = [heads[i](tokens[:, 1 + i]) for i in range(1, decoder.num_mask_tokens)]
        masks = torch.stack(hyper, dim=1) @ upscaled.float().flatten(2)
        return masks.unflatten(2, upscaled.shape[-2:]), decoder.iou_prediction_head(tokens[:, 0])[:, 1:]
