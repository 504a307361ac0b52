"""Several cameras: a reference for each, and one masker for the views of all of them.

The same object looks so different from another side that features of one view find it badly in the next.
SAM-G's published code masks one camera only; here the method is applied to every view with what was learnt
from that view's own reference, and the encoders see all views of all environments in one batch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from samg.masker import SamGMasker
from samg.networks import Encoded
from samg.reference import Reference
from samg.segment import Pass

_NO_POINT = -1


@dataclass(frozen=True, eq=False)
class ViewReferences:
    """The references of V cameras, in the order of the views; all of one size.

    Attributes:
        references: one per camera.
    """

    references: tuple[Reference, ...]

    @property
    def size(self) -> int:
        """Height and width of the images, in pixels."""
        return self.references[0].size

    def check_resolution(self, image_size: int) -> None:
        """Raise ``InputError`` unless all images have the resolution at which the environment renders."""
        for reference in self.references:
            reference.check_resolution(image_size)

    def digest(self, cutouts: bool = False) -> str:
        """Return the SHA-256 of what a masker reads of these references, in hex."""
        return _joint_digest([one.digest(cutouts) for one in self.references])


AnyReference = Reference | ViewReferences


def load_reference(
    values: Mapping[str, Any] | Sequence[Mapping[str, Any]], image_size: int | None = None
) -> AnyReference:
    """Read the reference of one camera, or those of several.

    Args:
        values: arguments of ``Reference.load``, or such arguments for every camera.
        image_size: as for ``Reference.load``.

    Raises:
        InputError: as ``Reference.load``, or the images differ in size.
    """
    if isinstance(values, Mapping):
        return Reference.load(**values, image_size=image_size)
    loaded = ViewReferences(tuple(Reference.load(**one, image_size=image_size) for one in values))
    loaded.check_resolution(loaded.size)
    return loaded


class ViewMasker(SamGMasker):
    """Masks the views of V cameras, each with the fit of its own reference.

    Frames come as V views of one moment after another: frame i is of camera i mod V. The encoders see the
    batch as a whole, the decoder the frames of a camera at a time, as its prompts may differ in number.

    Args:
        maskers: one per camera, with the same networks and options.

    Attributes:
        maskers: the same.
        reference: those of all cameras, as ``ViewReferences``.
        reference_points: float32 (V, P, 2); NaN where a camera has fewer points than P.
        last_points: float (N, P, 2), NaN likewise.
    """

    reference: ViewReferences  # type: ignore[assignment]

    def __init__(self, maskers: Sequence[SamGMasker]) -> None:
        self.maskers = tuple(maskers)
        first = maskers[0]
        super().__init__(
            first.networks, first.reference, first.fit, first.rules, first.options, first.source, first.device
        )
        self.reference = ViewReferences(tuple(masker.reference for masker in maskers))
        most = max(len(masker.reference_points) for masker in maskers)
        self.reference_points = np.full((self.views, most, 2), np.nan, np.float32)
        for row, masker in zip(self.reference_points, maskers, strict=True):
            row[: len(masker.reference_points)] = masker.reference_points
        fingerprint = _joint_digest([masker.info.fingerprint for masker in maskers])
        self._info = replace(
            first.info, fingerprint=fingerprint, method={**self._method(), "views": self.views}
        )

    def save(self, directory: str | Path) -> None:
        """Write the maskers of all cameras into a new directory; see ``samg.artefact``."""
        from samg.artefact import save_views

        save_views(self, Path(directory))

    @property
    def views(self) -> int:
        """V, the number of cameras."""
        return len(self.maskers)

    def _check(self, frames: Tensor) -> None:
        super()._check(frames)
        if len(frames) % self.views:
            raise ValueError(
                f"frames: expected whole moments of {self.views} views, got {len(frames)} frames"
            )

    def batch_for(self, count: int) -> int:
        """Return the batch size for ``count`` frames, a multiple of V: the single cameras' times V."""
        return self.views * super().batch_for(-(-count // self.views))

    def measure_memory(self, count: int) -> int:
        """Return the bytes that ``count`` frames take, rounded up to whole moments."""
        return super().measure_memory(self.views * -(-count // self.views))

    def _per_view(self, frames: Tensor) -> list[tuple[SamGMasker, Encoded]]:
        """Encode a batch at once and return each masker with the features of its own frames."""
        maps, embedding = self.networks.encode(frames)
        return [
            (
                masker,
                Encoded({k: v[view :: self.views] for k, v in maps.items()}, embedding[view :: self.views]),
            )
            for view, masker in enumerate(self.maskers)
        ]

    def _run(self, frames: Tensor) -> tuple[Tensor, list[Pass]]:
        runs = [masker._look(encoded) for masker, encoded in self._per_view(frames)]
        most = max(similarity.shape[1] for similarity, _ in runs)
        similarity = _interleave([_pad(maps, 1, most, 0.0) for maps, _ in runs])
        return similarity, [_join_passes(passes) for passes in zip(*(run for _, run in runs), strict=True)]

    def _segment(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        done = [masker._finish(*masker._look(encoded)) for masker, encoded in self._per_view(frames)]
        masks, empty, points = zip(*done, strict=True)
        padded = [_pad(some, 1, self._point_count, torch.nan) for some in points]
        return _interleave(masks), _interleave([one.T for one in empty]).T, _interleave(padded)


def _joint_digest(digests: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(digests)).encode()).hexdigest()


def _interleave(parts: Sequence[Tensor]) -> Tensor:
    """Put frames of V cameras, (N, ...) each, into the order in which they came, (N * V, ...)."""
    return torch.stack(list(parts), dim=1).flatten(0, 1)


def _pad(values: Tensor, dim: int, length: int, value: float) -> Tensor:
    """Lengthen ``dim`` of a tensor to ``length``."""
    missing = length - values.shape[dim]
    if not missing:
        return values
    shape = [*values.shape[:dim], missing, *values.shape[dim + 1 :]]
    return torch.cat((values, values.new_full(shape, value)), dim=dim)


def _join_passes(passes: Sequence[Pass]) -> Pass:
    """Join the same pass of V cameras; where one has fewer points, the others are none."""
    most = max(one.points.shape[1] for one in passes)
    even = [
        one._replace(points=_pad(one.points, 1, most, 0.0), labels=_pad(one.labels, 1, most, _NO_POINT))
        for one in passes
    ]
    columns = zip(*even, strict=True)
    return Pass._make(None if column[0] is None else _interleave(column) for column in columns)
