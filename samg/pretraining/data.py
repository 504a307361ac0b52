"""Frames with exact labels, as the pretraining wants them: one bank over all domains."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common.errors import InputError
from common.files import atomic_path

SKY, FLOOR, PART, OTHER = 0, 1, 2, 9  # labels; PART and PART + 1 are the object's two parts
_FRAMES = ("clean", "recoloured", "keyed")
_SMALLEST = 8


@dataclass(frozen=True)
class FrameBank:
    """All domains' frames, stacked.

    Attributes:
        domains: names, in the order of the class numbers.
        paints: uint8 (F, 3, 84, 84, 3): the frame in its own colours, recoloured, and before a key colour.
        key_mask: bool (F, 84, 84), what a chroma key takes from the keyed frame.
        labels: uint8 (F, 84, 84): 0 sky, 1 floor, 2 and 3 the object's parts, 9 anything else.
        starts: (D + 1,) where each domain's frames begin.
        slots: the domains of each class, by number. Those that show the same robot share a class and take
            turns: side by side, one would have to be both wanted and unwanted.
        two_parts: which classes have a second part.
    """

    domains: tuple[str, ...]
    paints: Tensor
    key_mask: Tensor
    labels: Tensor
    starts: tuple[int, ...]
    slots: tuple[tuple[int, ...], ...]
    two_parts: tuple[bool, ...]

    def to(self, device: torch.device) -> FrameBank:
        """Return the bank with its tensors on ``device``."""
        paints, keys, labels = (value.to(device) for value in (self.paints, self.key_mask, self.labels))
        return replace(self, paints=paints, key_mask=keys, labels=labels)


def check_domain(name: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Check one domain's arrays.

    Raises:
        InputError: an array is missing, of another shape, or the object is missing from a frame.
    """
    if "clean" not in arrays or "labels" not in arrays:
        raise InputError(
            f"The frames of domain '{name}' come without masks.",
            "Pretraining needs exact labels: an environment must give info['foreground'].",
        )
    labels = arrays["labels"]
    if len(labels) == 0:
        raise InputError(f"Domain '{name}' has no frames.", "Collect at least two per domain.")
    for key in ("clean", "recoloured", "keyed"):
        frames = arrays.get(key, arrays["clean"])
        if frames.shape != (*labels.shape, 3) or labels.shape[1:] != (84, 84) or frames.dtype != np.uint8:
            raise InputError(
                f"'{key}' of domain '{name}' is {frames.dtype} {frames.shape}, expected uint8 (F, 84, 84, 3) "
                f"and labels (F, 84, 84), found {labels.shape}.",
                "Render 84x84 frames.",
            )
    visible = ((labels >= PART) & (labels < OTHER)).reshape(len(labels), -1).sum(1)
    if visible.min() < _SMALLEST:
        raise InputError(
            f"Frame {int(visible.argmin())} of domain '{name}' shows {int(visible.min())} pixels of its "
            f"object, expected at least {_SMALLEST}.",
            "Drop frames in which the object is out of view; if it never is in view, check camera and masks.",
        )


def build_bank(
    collected: Mapping[str, Mapping[str, np.ndarray]], bodies: Mapping[str, str] | None = None
) -> FrameBank:
    """Stack the arrays of several domains.

    Args:
        collected: domain -> arrays: ``clean`` uint8 (F, 84, 84, 3) and ``labels`` uint8 (F, 84, 84);
            optionally ``recoloured`` and ``keyed`` like ``clean``, ``key_mask`` bool like ``labels``. Missing
            ones are replaced by the clean frames and the exact background.
        bodies: domain -> the robot in it; domains with the same share a class. None: each has its own.

    Raises:
        InputError: see ``check_domain``; or fewer than two domains.
    """
    if len(collected) < 2:
        raise InputError(
            f"Only {len(collected)} domain was given.",
            "Obedience is learned between objects: name two or more.",
        )
    paints, keys, labels, starts = [], [], [], [0]
    for name, arrays in collected.items():
        check_domain(name, arrays)
        paints.append(np.stack([arrays.get(key, arrays["clean"]) for key in _FRAMES], 1))
        background = (arrays["labels"] < PART) | (arrays["labels"] == OTHER)
        keys.append(np.asarray(arrays.get("key_mask", background), bool))
        labels.append(arrays["labels"])
        starts.append(starts[-1] + len(arrays["labels"]))
    groups: dict[str, list[int]] = {}
    for number, name in enumerate(collected):
        groups.setdefault((bodies or {}).get(name, name), []).append(number)
    divided = [bool((label == PART + 1).any()) for label in labels]
    return FrameBank(
        tuple(collected),
        torch.from_numpy(np.concatenate(paints)),
        torch.from_numpy(np.concatenate(keys)),
        torch.from_numpy(np.concatenate(labels)),
        tuple(starts),
        tuple(map(tuple, groups.values())),
        tuple(any(divided[number] for number in group) for group in groups.values()),
    )


def save_domain(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write one domain's arrays (npz, whole or not at all)."""
    with atomic_path(path) as temporary:
        np.savez(temporary, **arrays)  # type: ignore[arg-type]


def load_domain(path: Path) -> dict[str, np.ndarray]:
    """Read what ``save_domain`` wrote.

    Raises:
        InputError: the file is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"The frames {path} cannot be read ({error}).", "Delete the file; it is made again."
        ) from error


def cached_stack(
    path: Path,
    count: int,
    make: Callable[[int], np.ndarray],
    track: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> Tensor:
    """Return uint8 items 0 to ``count`` - 1 of a seeded generator, stacked; ``path`` keeps them.

    Args:
        path: of the cache; one that holds fewer items is made again.
        count: how many.
        make: draws item ``i``.
        track: passes the numbers on and may show how far they are.
    """
    found = load_domain(path).get("items") if path.exists() else None
    if found is None or len(found) < count:
        found = np.stack([make(index) for index in track(range(count))])
        save_domain(path, {"items": found})
    return torch.from_numpy(found[:count])
