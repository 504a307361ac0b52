"""Which weights a masker was built from: recorded with every result."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class WeightFile:
    """One file of weights.

    Attributes:
        component: ``sam`` or ``dino``.
        architecture: such as ``efficientvit_sam_l1`` or ``dinov2_vitb14``.
        filename: name without folders.
        sha256: hex digest of the file.
        source: ``hub`` or ``local``.
        repo: repository on the hub, where the file came from one.
        revision: its commit.
        release: which published weights these are, as far as the name of the file tells.
    """

    component: str
    architecture: str
    filename: str
    sha256: str
    source: str
    repo: str | None = None
    revision: str | None = None
    release: str | None = None


@dataclass(frozen=True)
class WeightsRecord:
    """All files of a network set.

    Attributes:
        variant: such as ``paper``.
        files: one entry per file.
    """

    variant: str
    files: tuple[WeightFile, ...]

    @property
    def sha256(self) -> str:
        """One digest over the digests of all files, independent of their names and order."""
        lines = sorted(f"{file.component} {file.architecture} {file.sha256}" for file in self.files)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "variant": self.variant,
            "sha256": self.sha256,
            "files": [asdict(file) for file in self.files],
        }
