"""A small network, and files of its weights."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn


class Small(nn.Module):
    """Stands in for either network."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 2)
        self.norm = nn.BatchNorm1d(2)


def saved(path: Path, content: object) -> Path:
    """Write ``content`` as PyTorch does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path
