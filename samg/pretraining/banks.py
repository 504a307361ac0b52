"""Everything that training pictures are made of, prepared once and kept in a folder."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from common.display import Display
from samg.pretraining.backgrounds import background
from samg.pretraining.composites import Banks
from samg.pretraining.data import FrameBank, build_bank, cached_stack, check_domain, load_domain, save_domain
from samg.pretraining.objects import object_views


class Domain(Protocol):
    """A source of frames with exact labels."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def stem(self) -> str:
        """What files of its frames are called."""
        ...

    @property
    def body(self) -> str:
        """What domains that show the same robot have in common."""
        ...

    def check(self) -> None:
        """Find out cheaply whether frames can be collected; raise a ``SamgError`` if not."""
        ...

    def collect(self, count: int, seed: int) -> Mapping[str, np.ndarray]:
        """Return ``count`` frames as ``build_bank`` wants them."""
        ...


@dataclass(frozen=True)
class Amounts:
    """How much to prepare.

    Attributes:
        frames: per domain.
        backgrounds: pictures.
        objects: random objects.
    """

    frames: int = 420
    backgrounds: int = 1600
    objects: int = 300

    def describe(self, domains: Sequence[Domain]) -> dict[str, Any]:
        """Return what ``describe`` will say of the banks made of so much."""
        return {
            "domains": [domain.name for domain in domains],
            "frames": [self.frames] * len(domains),
            "backgrounds": self.backgrounds,
            "objects": self.objects,
        }


def describe(banks: Banks) -> dict[str, Any]:
    """Return what banks are made of, as JSON values: a checkpoint goes on only with the same."""
    starts = banks.frames.starts
    return {
        "domains": list(banks.frames.domains),
        "frames": [end - start for start, end in itertools.pairwise(starts)],
        "backgrounds": len(banks.backgrounds),
        "objects": len(banks.objects),
    }


def prepare_banks(
    domains: Sequence[Domain], folder: Path, amounts: Amounts, seed: int, display: Display | None = None
) -> Banks:
    """Collect frames and draw backgrounds and objects, or read what an earlier call left in ``folder``.

    Args:
        domains: at least two; those whose frames are missing are all checked before anything is made.
        folder: receives one file per domain and one each of backgrounds and objects.
        amounts: how much of everything.
        seed: of everything.
        display: shows how far it is.

    Returns:
        The banks, on the CPU.

    Raises:
        SamgError: a domain cannot be collected, or a file is damaged.
    """
    display = display or Display()
    frames = prepare_frames(domains, folder, amounts.frames, seed, display)
    scenes = cached_stack(
        folder / f"backgrounds-s{seed}.npz",
        amounts.backgrounds,
        lambda index: background(seed, index),
        lambda items: display.track(items, "Drawing backgrounds"),
    )
    objects = cached_stack(
        folder / f"objects-s{seed}.npz",
        amounts.objects,
        lambda index: object_views(seed, index),
        lambda items: display.track(items, "Drawing objects"),
    )
    return Banks(frames, scenes, objects)


def prepare_frames(
    domains: Sequence[Domain], folder: Path, count: int, seed: int, display: Display
) -> FrameBank:
    """Collect ``count`` frames of every domain, or read them; see ``prepare_banks``."""
    paths = {domain.name: folder / f"{domain.stem}-{count}-s{seed}.npz" for domain in domains}
    missing = [domain for domain in domains if not paths[domain.name].exists()]
    for domain in missing:
        domain.check()
    for domain in missing:
        display.say(f"Collecting {count} frames of {domain.name} ...")
        arrays = domain.collect(count, seed)
        check_domain(domain.name, arrays)
        save_domain(paths[domain.name], arrays)
    bodies = {domain.name: domain.body for domain in domains}
    return build_bank({name: load_domain(path) for name, path in paths.items()}, bodies)
