"""Played demonstrations, kept under a name that says everything they follow from."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.files import atomic_directory, read_json, write_json
from common.paths import cache_dir
from training.episodes import DAMAGE, Episode

RECORD = "record.json"
log = logging.getLogger(__name__)


def cached_episodes(key: dict[str, Any], make: Callable[[], list[Episode]]) -> list[Episode]:
    """Return the episodes kept for ``key``, or those that ``make`` gives, which are kept from then on.

    They lie in ``demonstrations/`` of the cache (``common.paths.cache_dir``), a folder for every key. What is
    damaged is made anew; where the cache cannot be written, nothing is kept.

    Args:
        key: JSON values that determine the episodes.
        make: gives episodes numbered from 0.
    """
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:40]
    folder = cache_dir() / "demonstrations" / name
    found = _read(folder)
    if found is not None:
        log.info("Demonstrations were played before: %s.", folder)
        return found
    episodes = make()
    try:
        with atomic_directory(folder) as stage:
            digests = {episode.name: episode.save(stage) for episode in episodes}
            write_json(stage / RECORD, {"key": key, "episodes": digests})
    except FileExistsError:  # another run was faster
        pass
    except OSError as error:
        log.warning("The played demonstrations cannot be kept in %s (%s).", folder, error.strerror or error)
    return episodes


def _read(folder: Path) -> list[Episode] | None:
    """Return the episodes in ``folder``; None, and the folder is gone, where they are not whole."""
    if not folder.exists():
        return None
    try:
        digests = read_json(folder / RECORD, "record")["episodes"]
        return [Episode.load(folder / name, digest) for name, digest in digests.items()]
    except (*DAMAGE, InputError, TypeError, AttributeError) as error:
        log.warning("%s is damaged (%s); its demonstrations are played again.", folder, error)
        shutil.rmtree(folder, ignore_errors=True)
        return None
