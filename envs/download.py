"""Fetching the colours and clips of DMC-GB from their public repository, each file checked before it is used.

A file is downloaded beside its place, compared with the hash in the manifest and only then renamed, so an
interrupted, cut or altered download never passes for data. What is there and right is not fetched again.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from common.errors import ConfigError, InputError, ResourceError, unknown_choice
from common.files import atomic_path, read_json, sweep_stages
from envs.data import MANIFEST, matches

logger = logging.getLogger(__name__)

PARTS = ("color", "video_easy", "video_hard")
URL_VARIABLE = "SAMG_DATA_URL"
_ATTEMPTS = 3
_TIMEOUT = 30  # seconds without a byte
_RESUME = "Run the same command again: files that are complete are not fetched a second time."
_OFFLINE = (
    "Check the network or name a mirror (--base-url); without any, take an archive of the benchmark's "
    "repository (--archive), or copy the data folder from another machine and set SAMG_DATA; or use "
    "--background-source procedural."
)


def default_base_url() -> str:
    """Return where the files are: ``SAMG_DATA_URL``, else the repository at the pinned commit."""
    manifest = read_json(MANIFEST, "Manifest")
    pinned = "/".join((manifest["repository"], manifest["commit"], manifest["folder"]))
    return os.environ.get(URL_VARIABLE) or f"https://raw.githubusercontent.com/{pinned}"


def fetch_dmcgb(
    directory: Path,
    parts: Iterable[str] = PARTS,
    base_url: str | None = None,
    report: Callable[[str], None] = logger.info,
) -> int:
    """Download the parts of DMC-GB's data that are not there yet.

    Args:
        directory: becomes a data directory.
        parts: some of ``color, video_easy, video_hard``.
        base_url: the folder that holds ``color_easy.pt`` and the rest; ``default_base_url()`` when None.
        report: is told about every file, one line each.

    Returns:
        How many files were downloaded.

    Raises:
        ConfigError: an unknown part.
        InputError: a file cannot be had, or is not the published one; complete files stay.
        ResourceError: the disk is full or the folder cannot be written.
    """
    wanted = select(parts)
    base = (base_url or default_base_url()).rstrip("/")
    fetched = 0
    for folder in {(directory / name).parent for name in wanted}:
        sweep_stages(folder)  # what a killed download left behind
    for number, (name, entry) in enumerate(wanted.items(), start=1):
        target = directory / name
        if target.is_file() and matches(target, entry):
            continue
        report(f"[{number}/{len(wanted)}] {name}")
        try:
            _fetch(f"{base}/{name}", target, entry)
        except OSError as error:  # downloads report their own errors as InputError, so this is the disk
            raise ResourceError(
                f"{target} cannot be written ({error.strerror or error}).", _RESUME
            ) from error
        fetched += 1
    return fetched


def select(parts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the manifest's entries of some parts, path -> hashes.

    Raises:
        ConfigError: an unknown part, or none.
    """
    chosen = tuple(parts)
    if not chosen:
        raise ConfigError("No part of the data was named.", f"Name some of: {', '.join(PARTS)}.")
    for part in chosen:
        if part not in PARTS:
            raise unknown_choice("part", part, PARTS)
    files: dict[str, dict[str, Any]] = read_json(MANIFEST, "Manifest")["files"]
    return {name: entry for name, entry in files.items() if name.startswith(chosen)}


def _fetch(url: str, target: Path, entry: dict[str, Any]) -> None:
    """Download one file, check it and give it its name."""
    with atomic_path(target) as temporary:
        _download(url, temporary)
        if not matches(temporary, entry):
            raise not_published(
                url, entry, f"{_RESUME} If it happens again, the server or a proxy alters the data."
            )


def not_published(origin: str, entry: dict[str, Any], cure: str) -> InputError:
    """Return the error for a file whose content is not that of the manifest's ``entry``."""
    kind = "SHA-256" if "sha256" in entry else "git blob id"
    return InputError(
        f"{origin} is not the published file: its size or {kind} differs from {entry}.",
        f"It was not kept. {cure}",
    )


def _download(url: str, path: Path) -> None:
    """Download ``url`` to ``path``; connections that break are tried again, answers like 404 are not.

    Raises:
        InputError: it cannot be had.
    """
    import pooch
    import requests

    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return pooch.HTTPDownloader(timeout=_TIMEOUT)(url, str(path), None)
        except (requests.exceptions.RequestException, ValueError) as error:
            response = getattr(error, "response", None)
            if response is not None and 400 <= response.status_code < 500:
                raise InputError(
                    f"{url} is not there (HTTP {response.status_code}).",
                    "Check --base-url; without it the pinned commit of the public repository is used.",
                ) from error
            if attempt == _ATTEMPTS:
                raise InputError(
                    f"{url} cannot be downloaded ({type(error).__name__}).", f"{_OFFLINE} {_RESUME}"
                ) from error
            time.sleep(0.5 * attempt)
