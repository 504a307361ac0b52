"""The full-size networks of SAM-G: DINOv2 and EfficientViT-SAM."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from common.errors import ConfigError, unknown_choice
from efficientvit import EfficientViTSam, SamOutput
from efficientvit.decoder import GRID, LOW_RES, PROMPT_FRAME
from efficientvit.resize import composed_resize
from efficientvit.sam import upsample_logits
from samg.dinov2 import DinoV2
from samg.networks import Encoded
from samg.numerics import TunableNetworks

ENCODERS = ("dino", "sam")


def check_encoders(encoders: tuple[str, ...]) -> None:
    """Raise ``ConfigError`` unless ``encoders`` names at least one known encoder and none twice."""
    for encoder in encoders:
        if encoder not in ENCODERS:
            raise unknown_choice("encoder", encoder, ENCODERS)
    if not encoders or len(set(encoders)) != len(encoders):
        raise ConfigError(
            f"masker.encoders is {list(encoders)}; expected one or more encoders, each once.",
            "Use [dino,sam], [dino] or [sam].",
        )


class PaperNetworks(TunableNetworks):
    """DINOv2 and EfficientViT-SAM as ``samg.networks.SamgNetworks``, frozen.

    Both feature maps have 64 x 64 cells and are compared in the way of the reference: similarity maps are
    resized 64 -> 256 -> 1024 -> image size, which moves the maximum elsewhere than one direct resize would.

    Args:
        sam: gives the embedding that is decoded and, as ``sam``, a feature map.
        dino: gives the feature map ``dino``; may be None when it is not among ``encoders``.
        encoders: the feature maps whose similarities are averaged.
    """

    def __init__(
        self,
        sam: EfficientViTSam,
        dino: DinoV2 | None,
        encoders: tuple[str, ...] = ENCODERS,
    ) -> None:
        super().__init__()
        encoders = tuple(encoders)
        check_encoders(encoders)
        if "dino" in encoders and dino is None:
            raise ValueError("dino: expected a DinoV2 because 'dino' is among the encoders, got None")
        self.sam = sam
        self.dino = dino if "dino" in encoders else None
        self.encoders: tuple[str, ...] = encoders
        self.eval().requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.sam.dense_positions.device

    def encode(self, frames: Tensor) -> Encoded:
        """Encode frames.

        Args:
            frames: uint8 (N, H, H, 3) RGB in [0, 255]; square.

        Returns:
            Raw features ``dino`` (N, 768, 64, 64) and ``sam`` (N, 256, 64, 64), those chosen, and the latter
            as the embedding to decode; all float32.
        """
        with self.numerics.autocast(frames.device):
            embedding = self.sam.encode(frames)
            features = {"sam": embedding}
            if self.dino is not None:
                features["dino"] = self.dino(frames)
        maps = {encoder: features[encoder].float() for encoder in self.encoders}
        return Encoded(maps, embedding.float())

    def similarity_operator(self, encoder: str, size: int) -> Tensor:
        """Return the float32 (size, 64) matrix U of the reference's resize of a 64 x 64 map S: U @ S @ U.T.

        Args:
            encoder: one of ``encoders``; both grids are the same.
            size: side of the square image in pixels.
        """
        if encoder not in self.encoders:
            raise unknown_choice("encoder", encoder, self.encoders)
        return composed_resize((GRID, LOW_RES, PROMPT_FRAME), size, device=self.device)

    def presence_threshold(self, encoders: Sequence[str]) -> None:
        """Return None: nobody has calibrated the released networks, and the published method never asks."""

    def decode(
        self,
        embedding: Tensor,
        image_size: tuple[int, int],
        points: Tensor,
        labels: Tensor,
        boxes: Tensor | None = None,
        mask_inputs: Tensor | None = None,
    ) -> SamOutput:
        """Decode one prompt set per image; see ``EfficientViTSam.decode``. Logits are float32."""
        with self.numerics.autocast(embedding.device):
            found = self.sam.decode_low_res(embedding, image_size, points, labels, boxes, mask_inputs)
        low_res, iou = (value.float() for value in found)
        return SamOutput(upsample_logits(low_res, image_size), iou, low_res)

    def never_rounded(self) -> list[nn.Module]:
        """Return what gives mask logits and IoU scores, see ``efficientvit.decoder.decode_masks``."""
        decoder = self.sam.mask_decoder
        return [decoder.output_hypernetworks_mlps, decoder.iou_prediction_head]

    def hot_methods(self) -> list[tuple[nn.Module, str]]:
        """Return the two encoders and the decoder."""
        dino = [] if self.dino is None else [(self.dino.model, "forward_features")]
        return [*dino, (self.sam.image_encoder, "forward"), (self.sam, "decode_low_res")]
