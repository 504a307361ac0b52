"""Generated textures: colourful pictures with soft and hard edges, for overlays without photographs."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from common.seeding import derive_seed

_CHUNK = 128
_CELLS = (2, 4, 8, 16, 32)


def generate_textures(count: int, height: int, width: int, seed: int) -> Tensor:
    """Return uint8 (count, 3, height, width) textures on the CPU, a pure function of the arguments.

    Each mixes four random colours by two noise fields; in half of them the fields are cut into steps, which
    makes regions with edges, and in a third one field becomes warped stripes. A third field is the light.
    """
    chunks = []
    for start in range(0, count, _CHUNK):
        generator = torch.Generator().manual_seed(derive_seed(seed, "textures", start))
        chunks.append(_chunk(min(_CHUNK, count - start), height, width, generator))
    return torch.cat(chunks)


def _chunk(count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    colours = torch.rand(count, 4, 3, 1, 1, generator=generator)
    across, down, light = _noise(count, height, width, generator).unbind(1)
    across = torch.where(_some(count, 1 / 3, generator), _stripes(across, generator), across)
    steps = torch.randint(1, 6, (count, 1, 1), generator=generator)
    cut = _some(count, 1 / 2, generator)
    across, down = (torch.where(cut, (field * steps).round() / steps, field) for field in (across, down))
    top = torch.lerp(colours[:, 0], colours[:, 1], across.unsqueeze(1))
    bottom = torch.lerp(colours[:, 2], colours[:, 3], across.unsqueeze(1))
    picture = torch.lerp(top, bottom, down.unsqueeze(1)) * (0.5 + light.unsqueeze(1))
    return (picture * 255).round().clamp(0, 255).to(torch.uint8)


def _noise(count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Return three fields (count, 3, height, width) in [0, 1]: sums of smooth noise of five grain sizes."""
    persistence = torch.rand(count, 1, 1, 1, generator=generator) * 0.6 + 0.2
    total = torch.zeros(count, 3, height, width)
    for octave, cells in enumerate(_CELLS):
        grain = torch.randn(count, 3, cells, cells, generator=generator)
        smooth = F.interpolate(grain, size=(height, width), mode="bicubic", align_corners=False)
        total += persistence**octave * smooth
    return torch.sigmoid(3 * total / total.std(dim=(-2, -1), keepdim=True))


def _stripes(field: Tensor, generator: torch.Generator) -> Tensor:
    """Return stripes (count, height, width) in [0, 1] of random direction and width, bent by ``field``."""
    count, height, width = field.shape
    draws = torch.rand(count, 2, 1, 1, generator=generator)
    angle, waves = 2 * math.pi * draws[:, 0], 2 + 14 * draws[:, 1]
    rows = torch.linspace(0, 1, height).view(1, -1, 1)
    columns = torch.linspace(0, 1, width).view(1, 1, -1)
    phase = waves * (rows * torch.sin(angle) + columns * torch.cos(angle)) + 0.5 * field
    return 0.5 + 0.5 * torch.sin(2 * math.pi * phase)


def _some(count: int, share: float, generator: torch.Generator) -> Tensor:
    return torch.rand(count, 1, 1, generator=generator) < share
