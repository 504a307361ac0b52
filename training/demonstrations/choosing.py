"""Which demonstrations a run takes: by how they end when they are played again, without drawing.

Another version of the simulator may end an episode differently, so what counts is how it ends now.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from common.errors import InputError, NonFiniteError
from training.demonstrations.reading import Demonstration

OUTCOMES = ("success", "any")
log = logging.getLogger(__name__)


class Rehearsing(Protocol):
    """What ``choose`` needs of an environment; ``envs.pixel_env.PixelEnv`` is one."""

    def rehearse(self, actions: np.ndarray, seed: int, start: Any = None) -> Any:
        """Play an episode without drawing; return ``total_reward`` and ``success``, None where unknown."""
        ...


@dataclass(frozen=True)
class Filter:
    """Which demonstrations a run takes.

    Attributes:
        outcome: ``success`` leaves out what does not succeed again (a task that does not tell keeps all),
            ``any`` keeps it.
        least_return: what returns less when it is played again is left out; None for no bound.
        most: the first so many of what is left; None for all.
    """

    outcome: str = "success"
    least_return: float | None = None
    most: int | None = None

    def takes(self, total_reward: float, success: bool | None) -> bool:
        """Return whether an episode that ended like this is kept."""
        enough = self.least_return is None or total_reward >= self.least_return
        return enough and (self.outcome == "any" or success is not False)


def choose(
    env: Rehearsing,
    demonstrations: Sequence[Demonstration],
    wanted: Filter,
    on_episode: Callable[[], None] = lambda: None,
) -> list[Demonstration]:
    """Return the demonstrations that a run takes, in their order, by how they end in ``env``.

    Args:
        env: of the task, with room for the longest of them.
        demonstrations: what there is.
        wanted: what is taken.
        on_episode: called after each that was looked at.

    Raises:
        InputError: none is taken.
    """
    kept: list[Demonstration] = []
    looked = 0
    for demonstration in demonstrations:
        if len(kept) == wanted.most:
            break
        looked += 1
        try:
            found = env.rehearse(demonstration.actions, demonstration.seed, demonstration.start or None)
            if wanted.takes(found.total_reward, found.success):
                kept.append(demonstration)
        except NonFiniteError as error:
            log.warning("A demonstration is left out: %s", error.message)
        on_episode()
    bound = "" if wanted.least_return is None else f" with a return of at least {wanted.least_return:g}"
    told = ("succeeds" if wanted.outcome == "success" else "ends") + bound
    if not kept:
        raise InputError(
            f"None of {looked} demonstrations {told} in this simulator.",
            "Check that they are of this task, or take others: demonstration_filter.outcome=any, "
            "demonstration_filter.least_return=...",
        )
    if len(kept) < looked:
        log.warning("%d of %d demonstrations are left out: only %d %s in this simulator.",
                    looked - len(kept), looked, len(kept), told)  # fmt: skip
    return kept
