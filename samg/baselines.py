"""The two ends of the scale: mask nothing, and mask exactly what the simulator calls background."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.errors import ConfigError
from common.files import atomic_directory, write_json
from common.masking import MaskerInfo, check_frames


class BaselineMasker:
    """A masker without networks or reference: counting, identity and saving."""

    variant = ""

    def __init__(self) -> None:
        self._frames = 0
        self._empty = torch.zeros((), dtype=torch.int64)
        digest = hashlib.sha256(self.variant.encode()).hexdigest()
        self._info = MaskerInfo(self.variant, self.variant, digest, {})

    @property
    def info(self) -> MaskerInfo:
        """Identity of this masker."""
        return self._info

    def mask(self, frames: Tensor, foreground: Tensor | None = None) -> Tensor:
        """Return bool (N, H, W) for uint8 (N, H, W, 3) frames; see ``common.masking.ObservationMasker``."""
        check_frames(frames)
        masks = self._masks(frames, foreground)
        self._frames += len(frames)
        self._empty = self._empty.to(masks.device) + (~masks.flatten(1).any(1)).sum()
        return masks

    def _masks(self, frames: Tensor, foreground: Tensor | None) -> Tensor:
        raise ValueError(f"{type(self).__name__} does not say what it masks")

    def statistics(self) -> dict[str, Any]:
        """Return how many frames were masked, and how many masks were empty."""
        empty = int(self._empty)
        share = empty / self._frames if self._frames else 0.0
        return {"frames": self._frames, "empty": empty, "empty_share": share}

    def reset_statistics(self) -> None:
        """Start counting anew."""
        self._frames = 0
        self._empty = torch.zeros_like(self._empty)

    def save(self, directory: str | Path) -> None:
        """Write ``masker.json``, so that a run directory says which masker it used."""
        from samg.artefact import FORMAT, RECORD, should_write

        fingerprint = self.info.fingerprint
        record = {"format": FORMAT, "name": self.variant, "variant": self.variant, "fingerprint": fingerprint}
        if should_write(Path(directory), record):
            with atomic_directory(Path(directory)) as stage:
                write_json(stage / RECORD, record)


class NoMasker(BaselineMasker):
    """Keeps every pixel: plain reinforcement learning."""

    variant = "none"

    def _masks(self, frames: Tensor, foreground: Tensor | None) -> Tensor:
        return torch.ones(frames.shape[:3], dtype=torch.bool, device=frames.device)


class GroundTruthMasker(BaselineMasker):
    """Keeps the simulator's own foreground: the best a masker could do."""

    variant = "groundtruth"

    def _masks(self, frames: Tensor, foreground: Tensor | None) -> Tensor:
        if foreground is None:
            raise ConfigError(
                "masker 'groundtruth' got no foreground from the environment.",
                "Build the environment with foreground=True, or choose another masker.",
            )
        if foreground.shape != frames.shape[:3] or foreground.dtype != torch.bool:
            raise ValueError(
                f"foreground: expected bool {tuple(frames.shape[:3])}, got {foreground.dtype} "
                f"{tuple(foreground.shape)}"
            )
        return foreground.to(frames.device, copy=True)


BASELINES: dict[str, type[BaselineMasker]] = {"none": NoMasker, "groundtruth": GroundTruthMasker}
