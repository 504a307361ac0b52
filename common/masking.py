"""The one interface between maskers and the rest: frames in, masks out."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor


@dataclass(frozen=True)
class MaskerInfo:
    """Who made a mask.

    Attributes:
        name: the method, such as ``samg``, ``none`` or ``groundtruth``.
        variant: the network set, such as ``paper``, ``tiny``, ``none``.
        fingerprint: SHA-256 over weights, reference and method; equal fingerprints mean equal masks.
        numerics: what may change the last bits (device, precision, compilation); not fingerprinted.
        method: which rules and options it follows, as JSON values; empty for maskers that have none.
        weights: which weights it was built from (digests, releases, how they were made), as JSON values;
            empty for maskers without networks.
    """

    name: str
    variant: str
    fingerprint: str
    numerics: dict[str, Any] = field(default_factory=dict)
    method: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return asdict(self)


@runtime_checkable
class ObservationMasker(Protocol):
    """Anything that tells foreground from background in a batch of frames.

    A masker may also have the attribute ``last_empty``: None before the first call of ``mask``, then bool
    (N,) on the masker's device, the frames in which it found nothing, whatever it returned in their place.
    Read it with ``getattr(masker, "last_empty", None)``; it is no part of what every masker must have. Nor
    are ``device``, where it computes and is best given its frames, and ``every`` (1): of how many frames of
    an episode whoever steps the environment is to mask one, using its mask for the others too.
    """

    @property
    def info(self) -> MaskerInfo:
        """Identity of this masker, recorded with every result."""
        ...

    def mask(self, frames: Tensor, foreground: Tensor | None = None) -> Tensor:
        """Return the masks of a batch.

        Args:
            frames: uint8 (N, H, W, 3) RGB in [0, 255]; left untouched; N may be 0.
            foreground: bool (N, H, W), the simulator's own mask; read by ``groundtruth`` only.

        Returns:
            bool (N, H, W), or float (N, H, W) in [0, 1], on the device of ``frames``.
        """
        ...


def check_frames(frames: Tensor) -> None:
    """Raise ``ValueError`` unless ``frames`` is uint8 of shape (N, H, W, 3)."""
    if not isinstance(frames, Tensor):
        raise ValueError(f"frames: expected a torch tensor, got {type(frames).__name__}")
    if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(
            f"frames: expected uint8 of shape (N, H, W, 3), got {frames.dtype} of shape {tuple(frames.shape)}"
        )


def apply_mask(frames: Tensor, mask: Tensor) -> Tensor:
    """Return ``frames`` with everything outside ``mask`` black.

    Args:
        frames: uint8 (..., H, W, 3).
        mask: bool (..., H, W), or float (..., H, W) in [0, 1], applied as ``round(frame * mask)``.
    """
    if mask.shape != frames.shape[:-1]:
        raise ValueError(f"mask: expected shape {tuple(frames.shape[:-1])}, got {tuple(mask.shape)}")
    if mask.dtype == torch.bool:
        return frames * mask.unsqueeze(-1)
    return (frames * mask.unsqueeze(-1)).round().to(torch.uint8)
