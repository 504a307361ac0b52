"""What the SAM-G pipeline asks of its networks; ``paper`` (full size) and ``tiny`` (embedded) provide it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from efficientvit.output import SamOutput


class Encoded(NamedTuple):
    """Features of a batch of frames.

    Attributes:
        maps: encoder name -> float (N, C_e, G_e, G_e) raw, un-normalised feature map; grids may differ.
        embedding: what ``decode`` needs, first axis N.
    """

    maps: dict[str, Tensor]
    embedding: Tensor


class SamgNetworks(Protocol):
    """Encoders whose features are compared, and a promptable mask decoder."""

    encoders: tuple[str, ...]

    def encode(self, frames: Tensor) -> Encoded:
        """Encode uint8 (N, H, W, 3) RGB frames."""
        ...

    def similarity_operator(self, encoder: str, size: int) -> Tensor:
        """Return U, float (size, G_e): ``U @ S @ U.T`` is a (G_e, G_e) map S at (size, size) pixels."""
        ...

    def presence_threshold(self, encoders: Sequence[str]) -> float | None:
        """Return the cosine that the best pixel of these maps' mean reaches when the target is there."""
        ...

    def decode(
        self,
        embedding: Tensor,
        image_size: tuple[int, int],
        points: Tensor,
        labels: Tensor,
        boxes: Tensor | None = None,
        mask_inputs: Tensor | None = None,
    ) -> SamOutput:
        """Decode one prompt set per image.

        Args:
            embedding: from ``encode``, first axis N.
            image_size: (H, W) of the frames, in pixels.
            points: float (N, P, 2), (x, y) in image pixels.
            labels: (N, P): 1 positive, 0 negative, -1 ignored.
            boxes: float (N, 4), x0 y0 x1 y1 in image pixels.
            mask_inputs: float (N, 1, L, L) low-resolution logits of an earlier pass.
        """
        ...
