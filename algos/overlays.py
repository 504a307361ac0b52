"""Images to blend into observations: a folder of photographs, or generated textures; the agents' base."""

from __future__ import annotations

import hashlib
import logging
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from algos.augmentations import random_overlay
from algos.drqv2 import DrQV2Agent
from algos.image_files import SUFFIXES, UNREADABLE, find_images, open_image, random_part
from algos.options import check_count, check_number
from algos.textures import generate_textures
from common.errors import InputError
from common.paths import resolve
from common.seeding import counter_rng

log = logging.getLogger(__name__)

TEXTURES = "generated textures"
_LISTED = 50  # bad files named in one error
_CURE = (
    f"data.overlay_dir must be a folder with images ({', '.join(SUFFIXES)}), in subfolders too; "
    f"data.overlay_dir=null uses {TEXTURES}."
)


class OverlaySource:
    """A bank of images of the observation's size, made when it is first asked for.

    Of a folder with more files than the bank holds, a random choice is read; of one with fewer, several crops
    of each. A crop is random in place, size (8 % of the image or more) and proportions, as is usual for
    Places365, and fixed for the run; which image is drawn, and whether it is mirrored, is random every time.
    Files that are not read are not checked.

    Args:
        directory: folder of images, searched with its subfolders (of Places365, the training part); None:
            generated textures.
        images: size of the bank.
        height: of an image.
        width: of an image.
        seed: of choice, crops and textures.
        device: where the bank lives.
    """

    def __init__(
        self, directory: str | None, images: int, height: int, width: int, seed: int, device: torch.device
    ) -> None:
        check_count("overlay_images", images)
        self.directory = str(directory) if directory else None
        self.images, self.height, self.width = images, height, width
        self.seed, self.device = seed, device

    @cached_property
    def bank(self) -> Tensor:
        """All images: uint8 (images, 3, H, W) on the device.

        Raises:
            InputError: the folder is missing, empty, or holds files that cannot be read.
        """
        if self.directory is None:
            made = generate_textures(self.images, self.height, self.width, self.seed)
        else:
            made = torch.from_numpy(self._read())
        return made.to(self.device)

    @cached_property
    def record(self) -> dict[str, Any]:
        """For the run's record: ``name``, ``images`` in the bank, ``files`` found, ``sha256`` of the bank.

        ``earlier_sha256`` lists the banks that the run used before it was continued with this one.
        """
        digest = hashlib.sha256(self.bank.cpu().numpy().tobytes()).hexdigest()
        files = len(self.files) if self.directory else 0
        source = {"name": self.directory or TEXTURES, "images": self.images, "files": files}
        return {**source, "sha256": digest, "earlier_sha256": []}

    @cached_property
    def files(self) -> list[Path]:
        """The folder's images in a fixed order."""
        root = resolve(self.directory or "")
        if not root.is_dir():
            problem = "is not a folder" if root.exists() else "does not exist"
            raise InputError(f"data.overlay_dir: {self.directory} {problem}.", _CURE)
        for part in ("places365_standard/train", "train"):
            if (root / part).is_dir():
                root = root / part
                break
        found = find_images(root)
        if not found:
            raise InputError(f"data.overlay_dir: {root} holds no images.", _CURE)
        return found

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Return uint8 (count, 3, H, W) images drawn with replacement, each mirrored half of the time.

        Args:
            count: how many.
            generator: source of the draw, on the bank's device.
        """
        chosen = torch.randint(0, self.images, (count,), generator=generator, device=self.device)
        mirrored = torch.rand(count, 1, 1, 1, generator=generator, device=self.device) < 0.5
        images = self.bank[chosen]
        return torch.where(mirrored, images.flip(-1), images)

    def _read(self) -> np.ndarray:
        """Return the bank of a folder: uint8 (images, 3, H, W)."""
        files = self.files
        if len(files) > self.images:
            chosen = counter_rng(self.seed, "overlay/files").choice(len(files), self.images, replace=False)
            files = [files[index] for index in sorted(chosen)]
        bank = np.empty((self.images, 3, self.height, self.width), np.uint8)
        bad = []
        for number, path in enumerate(files):
            try:
                image = open_image(path, 3 * self.width, 3 * self.height)
            except UNREADABLE:
                bad.append(str(path))
                continue
            for place in range(number, self.images, len(files)):
                rng = counter_rng(self.seed, "overlay/crops", place)
                bank[place] = np.asarray(random_part(image, self.width, self.height, rng)).transpose(2, 0, 1)
        if bad:
            more = f" and {len(bad) - _LISTED} more" if len(bad) > _LISTED else ""
            names = ", ".join(bad[:_LISTED]) + more
            raise InputError(
                f"data.overlay_dir: {len(bad)} of {len(files)} images cannot be read: {names}.",
                "Remove or replace these files.",
            )
        return bank


class OverlayAgent(DrQV2Agent):
    """DrQ-v2 with images at hand; a base for agents that learn from overlays.

    Args:
        overlay_dir: folder of images (``data.overlay_dir``), or None for generated textures.
        overlay_images: how many images are kept in memory.
        overlay_alpha: share of the image in the blend.
        options: see ``DrQV2Agent``.
    """

    def __init__(
        self,
        *args: Any,
        overlay_dir: str | None = None,
        overlay_images: int = 2048,
        overlay_alpha: float = 0.5,
        **options: Any,
    ) -> None:
        check_number("overlay_alpha", overlay_alpha, 0, 1)
        super().__init__(*args, **options)
        self.overlay_alpha = overlay_alpha
        height, width = self.obs_shape[1:]
        self.overlays = OverlaySource(overlay_dir, overlay_images, height, width, self.seed, self.device)

    @property
    def overlay_source(self) -> dict[str, Any]:
        """What the run's record says of the images; loads them."""
        return self.overlays.record

    def prepare(self) -> dict[str, Any]:
        """Load the images; see ``DrQV2Agent.prepare``."""
        return super().prepare() | {"overlay_source": self.overlay_source}

    def overlay(self, obs: Tensor) -> Tensor:
        """Return float32 (N, C, H, W) observations with a random image blended into each."""
        images = self.overlays.sample(len(obs), self.generators["update"])
        return random_overlay(obs, images, self.overlay_alpha)

    def state_dict(self) -> dict[str, Any]:
        """Return the agent's state and the digests of the banks it has learned from, the present one last."""
        used = []
        if "bank" in vars(self.overlays):
            used = [*self.overlay_source["earlier_sha256"], self.overlay_source["sha256"]]
        return {**super().state_dict(), "overlays": used}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state; other images than before are a warning, because the run can go on with them.

        The record that ``prepare`` returned names the earlier banks from then on.
        """
        super().load_state_dict(state)
        before = state.get("overlays") or []
        before = [before] if isinstance(before, str) else list(before)  # a single digest in old snapshots
        if not before:
            return
        record = self.overlay_source
        if before[-1] == record["sha256"]:
            before.pop()
        else:
            log.warning("The overlay images (%s) are not those this run used before.", record["name"])
        record["earlier_sha256"][:] = before  # in place: the run holds this record already
