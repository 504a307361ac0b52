"""A folder with a sub-folder of pictures for every class: what is learnt from, what is held out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from algos.image_files import SUFFIXES, UNREADABLE, find_images, open_image
from common.errors import InputError
from common.files import read_json, write_json
from common.paths import resolve
from common.seeding import counter_rng

_LAYOUT = f"Give a folder with one sub-folder of images ({', '.join(SUFFIXES)}) for every class."
_NAMED = 5  # bad files in one error
_CHUNK = 256  # files between two reports of progress


@dataclass(frozen=True)
class Pictures:
    """Files and their classes.

    Attributes:
        paths: N files.
        labels: N numbers of classes.
    """

    paths: tuple[Path, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def without(self, bad: set[Path]) -> Pictures:
        """Return the pictures that are not in ``bad``."""
        kept = [(p, n) for p, n in zip(self.paths, self.labels, strict=True) if p not in bad]
        return Pictures(tuple(p for p, _ in kept), tuple(n for _, n in kept))


@dataclass(frozen=True)
class ImageFolder:
    """Classes and their pictures.

    Attributes:
        classes: names of the sub-folders, sorted; a label is a place in this list.
        train: what is learnt from.
        val: what accuracy is measured on.
        skipped: how many unusable files were left out.
    """

    classes: tuple[str, ...]
    train: Pictures
    val: Pictures
    skipped: int = 0

    def describe(self) -> dict[str, Any]:
        """Return what tells these pictures from others, as JSON values."""
        digest = hashlib.sha256("\n".join(self.classes).encode())
        for pictures in (self.train, self.val):
            for path, label in zip(pictures.paths, pictures.labels, strict=True):
                digest.update(f"\n{label}/{path.name}/{path.stat().st_size}".encode())
            digest.update(b"\n\n")
        counts = {"classes": len(self.classes), "train_images": len(self.train), "val_images": len(self.val)}
        return {**counts, "skipped": self.skipped, "images_sha256": digest.hexdigest()}


def find_folder(folder: str, val: str | None, val_share: float, seed: int) -> ImageFolder:
    """Find classes and files; no picture is opened.

    Args:
        folder: with a sub-folder for every class, or with ``train`` and ``val`` that have those, as ImageNet.
        val: another folder with the same classes; None: as above, else a share is held out.
        val_share: of every class, held out where there is no other folder; at least one picture.
        seed: of the choice.

    Raises:
        InputError: a folder is missing, no class or one class is there, a class is empty, or validation has
            other classes.
    """
    root = _existing(folder)
    if val is None and (root / "train").is_dir() and (root / "val").is_dir():
        root, val = root / "train", str(root / "val")
    found = _classes(root)
    classes = tuple(found)
    if len(classes) < 2:
        raise InputError(
            f"{root} has one class only ({classes[0]}); there is nothing to tell apart.", _LAYOUT
        )
    if val is not None:
        held = _classes(_existing(val))
        if strange := sorted(set(held) - set(found)):
            raise InputError(
                f"Validation folder {val} has a class that training has not: {strange[0]}.",
                "Give both the same sub-folders.",
            )
        return ImageFolder(classes, _label(classes, found), _label(classes, held))
    train, held = {}, {}
    for number, (name, files) in enumerate(found.items()):
        order = counter_rng(seed, "encoder/held out", number).permutation(len(files))
        count = min(max(1, round(val_share * len(files))), len(files) - 1)
        chosen = set(order[:count].tolist())
        held[name] = [file for place, file in enumerate(files) if place in chosen]
        train[name] = [file for place, file in enumerate(files) if place not in chosen]
    if not any(held.values()):
        raise InputError(f"{root} has one image per class: none can be held out to measure.", "Give --val.")
    return ImageFolder(classes, _label(classes, train), _label(classes, held))


def check_images(
    images: ImageFolder,
    least_side: int,
    skip: bool,
    record: Path,
    workers: int,
    show: Callable[[float, str], None],
) -> ImageFolder:
    """Read every picture once, so that none of them ends the training days later.

    Args:
        images: of ``find_folder``.
        least_side: pixels that the shorter side must have.
        skip: leave unusable files out instead of refusing.
        record: JSON file that remembers the result for this list of files; written if need be.
        workers: threads.
        show: is told the share of the files that are read.

    Returns:
        The pictures, without unusable ones.

    Raises:
        InputError: files cannot be read or are too small; some are named.
    """
    paths = [*images.train.paths, *images.val.paths]
    listing = _listing(paths, least_side)
    known = read_json(record, "record of images") if record.exists() else {}
    if known.get("listing") == listing:
        bad = known["unusable"]
    else:
        bad = dict(_faults(paths, least_side, workers, show))
    if bad and not skip:
        shown = "; ".join(f"{path} {fault}" for path, fault in list(bad.items())[:_NAMED])
        more = f"; and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
        raise InputError(
            f"{len(bad)} of {len(paths)} images are unusable: {shown}{more}.",
            "Remove or replace them, or leave them out with --skip-unusable.",
        )
    if known.get("listing") != listing:
        write_json(record, {"listing": listing, "images": len(paths), "unusable": bad})
    gone = {Path(path) for path in bad}
    left = ImageFolder(images.classes, images.train.without(gone), images.val.without(gone), len(bad))
    if len(set(left.train.labels)) < len(left.classes) or not len(left.val):
        raise InputError("Without its unusable images, a class or the validation is empty.", _LAYOUT)
    return left


def _existing(folder: str) -> Path:
    found = resolve(folder)
    if not found.is_dir():
        problem = "is not a folder" if found.exists() else "does not exist"
        raise InputError(f"Image folder {folder} {problem}.", _LAYOUT)
    return found


def _classes(root: Path) -> dict[str, list[Path]]:
    """Return the files of every class in ``root``, which has at least one, all with files."""
    names = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and entry.name[0] != ".")
    if not names:
        raise InputError(f"{root} has no sub-folders, hence no classes.", _LAYOUT)
    found = {name: find_images(root / name) for name in names}
    if empty := [name for name, files in found.items() if not files]:
        more = f" and {len(empty) - 1} more" if len(empty) > 1 else ""
        raise InputError(f"Class {root / empty[0]}{more} holds no images.", _LAYOUT)
    return found


def _label(classes: Sequence[str], found: dict[str, list[Path]]) -> Pictures:
    pairs = [(file, number) for number, name in enumerate(classes) for file in found.get(name, ())]
    return Pictures(tuple(file for file, _ in pairs), tuple(number for _, number in pairs))


def _listing(paths: Sequence[Path], least_side: int) -> str:
    """Return a digest of which files these are and when they were last changed."""
    digest = hashlib.sha256(str(least_side).encode())
    for path in paths:
        entry = path.stat()
        digest.update(f"\n{path}/{entry.st_size}/{entry.st_mtime_ns}".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _faults(
    paths: Sequence[Path], least_side: int, workers: int, show: Callable[[float, str], None]
) -> Iterator[tuple[str, str]]:
    """Yield the files that will not do, and why."""
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(paths), _CHUNK):
            chunk = paths[start : start + _CHUNK]
            faults = pool.map(lambda path: _fault(path, least_side), chunk)
            yield from ((str(p), fault) for p, fault in zip(chunk, faults, strict=True) if fault)
            done = start + len(chunk)
            show(done / len(paths), f"{done} of {len(paths)}")


def _fault(path: Path, least_side: int) -> str:
    try:
        # A JPEG may come smaller, which is faster; its file is read to the end all the same.
        image = open_image(path, least_side, least_side)
    except UNREADABLE:
        return "cannot be read"
    if min(image.size) < least_side:
        return f"is {image.width} x {image.height} pixels, expected at least {least_side} on each side"
    return ""
