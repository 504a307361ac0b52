"""A stand-in for the masker's networks that segments by colour: no weights, milliseconds, deterministic.

Three encoders on two grids; the decoder marks what resembles the positive points' colour more than the
negative points'. Everything is computed per frame, so batches cannot matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from efficientvit.output import SamOutput
from samg.networks import Encoded


class FakeNetworks:
    """Implements ``samg.networks.SamgNetworks``."""

    encoders: tuple[str, ...] = ("coarse", "fine", "other")
    grids: ClassVar[dict[str, int]] = {"coarse": 16, "fine": 32, "other": 16}
    resolution = 24
    presence: float | None = None

    def __init__(self, seed: int = 0, device: str = "cpu") -> None:
        generator = torch.Generator().manual_seed(seed)
        self.device = torch.device(device)
        self.kernels = {
            name: torch.randn(width, 6, generator=generator).to(self.device)
            for name, width in (("coarse", 8), ("fine", 6), ("other", 12))
        }
        self.decodes = 0
        self.decoded_sets = 0

    def encode(self, frames: Tensor) -> Encoded:
        pixels = frames.permute(0, 3, 1, 2).float() / 255
        maps = {}
        for name, grid in self.grids.items():
            cells = F.interpolate(pixels, size=(grid, grid), mode="bilinear", antialias=True)
            basis = torch.cat((cells, cells.square()), dim=1)
            maps[name] = torch.einsum("oc,nchw->nohw", self.kernels[name], basis)
        small = F.interpolate(pixels, size=(self.resolution,) * 2, mode="bilinear", antialias=True)
        return Encoded(maps, small)

    def similarity_operator(self, encoder: str, size: int) -> Tensor:
        identity = torch.eye(self.grids[encoder], device=self.device)[None]
        return F.interpolate(identity, size=size, mode="linear", align_corners=False)[0].T.contiguous()

    def presence_threshold(self, encoders: Sequence[str]) -> float | None:
        return self.presence

    def decode(
        self,
        embedding: Tensor,
        image_size: tuple[int, int],
        points: Tensor,
        labels: Tensor,
        boxes: Tensor | None = None,
        mask_inputs: Tensor | None = None,
    ) -> SamOutput:
        self.decodes += 1
        self.decoded_sets += len(points)
        height, width = image_size
        side = self.resolution
        grid = torch.stack(
            (2 * (points[..., 0] + 0.5) / width - 1, 2 * (points[..., 1] + 0.5) / height - 1), -1
        )
        colours = F.grid_sample(embedding, grid[:, :, None], align_corners=False)[..., 0].transpose(1, 2)
        distance = (embedding[:, None] - colours[..., None, None]).square().sum(2).clamp_min(1e-6).sqrt()
        nearness = (-4 * distance).exp()
        positive = (nearness * (labels == 1)[..., None, None]).amax(1)
        negative = (nearness * (labels == 0)[..., None, None]).amax(1)
        base = positive - negative
        if boxes is not None:
            y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
            x, y = x.to(base) * width / side, y.to(base) * height / side
            x0, y0, x1, y1 = (value[:, None, None] for value in boxes.unbind(1))
            base = base - 0.5 * ((x < x0 - 4) | (x > x1 + 4) | (y < y0 - 4) | (y > y1 + 4))
        if mask_inputs is not None:
            base = base + 0.1 * mask_inputs[:, 0].clamp(-2, 2)
        low_res = torch.stack((base - 0.2, 2 * base, base + 0.2), dim=1)
        iou = torch.stack(
            (low_res[:, 0].mean((1, 2)), low_res[:, 1].amax((1, 2)), -low_res[:, 2].amin((1, 2))), 1
        )
        logits = F.interpolate(low_res, size=image_size, mode="bilinear", align_corners=False)
        return SamOutput(logits, iou, low_res)
