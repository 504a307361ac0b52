"""SRM (Huang et al. 2022, "Spectrum Random Masking for Generalization in Image-based RL")."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from algos.augmentations import random_frequency_mask
from algos.options import check_number
from algos.svea import SVEAAgent


class SRMAgent(SVEAAgent):
    """SVEA whose overlaid observations lose a random ring of frequencies in every second update.

    Args:
        mask_probability: of removing a ring in an update.
        max_frequency: largest inner limit of the ring, cycles per pixel.
        max_width: largest width of the ring.
        options: see ``SVEAAgent``, whose metrics are the same.
    """

    def __init__(
        self,
        *args: Any,
        mask_probability: float = 0.5,
        max_frequency: float = 0.5,
        max_width: float = 0.05,
        **options: Any,
    ) -> None:
        check_number("mask_probability", mask_probability, 0, 1)
        check_number("max_frequency", max_frequency, 0, 0.5)
        check_number("max_width", max_width, 0, 0.5)
        super().__init__(*args, **options)
        self.ring = (mask_probability, max_frequency, max_width)

    def disturb(self, obs: Tensor) -> Tensor:
        """Return overlaid observations (N, C, H, W) without the ring; they may leave [0, 255] a little."""
        return random_frequency_mask(super().disturb(obs), self.generators["update"], *self.ring)
