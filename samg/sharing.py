"""One fit for many: whoever comes first fits a masker, all others with the same inputs load it."""

from __future__ import annotations

import fcntl
import logging
import shutil
from pathlib import Path

from common.errors import InputError
from samg.artefact import load_samg_masker
from samg.baselines import BaselineMasker
from samg.build import BaselineBuilder, MaskerBuilder
from samg.masker import SamGMasker
from samg.views import AnyReference

log = logging.getLogger(__name__)


def fit_once(
    builder: MaskerBuilder | BaselineBuilder, reference: AnyReference | None, folder: Path
) -> SamGMasker | BaselineMasker:
    """Return the masker that ``builder.fit(reference)`` would make, from ``folder`` where it lies already.

    The key is a digest of all that the fit depends on (``MaskerBuilder.identity``). A lock lets one process
    fit and the others wait; one that dies leaves neither a lock nor half a masker. A damaged one is replaced.

    Args:
        builder: of ``build_masker``.
        reference: what it is fitted to.
        folder: shared by all processes; made if need be.
    """
    if reference is None or isinstance(builder, BaselineBuilder):
        return builder.fit(reference)
    loaded, place = builder.load(), folder / builder.identity(reference)
    folder.mkdir(parents=True, exist_ok=True)
    with place.with_suffix(".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if place.exists():
            try:
                return load_samg_masker(place, builder.device, loaded=loaded)
            except InputError as error:
                log.warning("The shared masker %s cannot be used (%s); it is fitted anew.", place, error)
                shutil.rmtree(place)
        masker = builder.fit(reference)
        masker.save(place)
        return masker
