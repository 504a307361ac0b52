"""What can be pretrained on, by name: DeepMind Control suite, Adroit hand, users' own environments."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from common.errors import ConfigError, nearest
from envs.adroit_model import compile_model
from envs.backends import check_rendering
from envs.pretraining_adroit import collect_adroit
from envs.pretraining_frames import POSE_TASKS, collect_domain
from envs.pretraining_gym import GymDomain
from envs.tasks import ADROIT_DOMAINS

KNOWN_DOMAINS = (*POSE_TASKS, *ADROIT_DOMAINS)
"""What is trained on when nothing else is said."""


@dataclass(frozen=True)
class SuiteDomain:
    """A domain of the DeepMind Control suite.

    Attributes:
        name: a key of ``POSE_TASKS``.
    """

    name: str

    @property
    def stem(self) -> str:
        """What its files are called."""
        return self.name

    @property
    def body(self) -> str:
        """What domains with the same robot in them have in common."""
        return self.name

    def check(self) -> None:
        """Draw one small picture.

        Raises:
            DependencyError: this machine cannot render.
        """
        check_rendering()

    def collect(self, count: int, seed: int) -> dict[str, np.ndarray]:
        """Render ``count`` poses; see ``collect_domain``."""
        return collect_domain(self.name, count, seed)


@dataclass(frozen=True)
class AdroitDomain(SuiteDomain):
    """A scene of the Adroit hand.

    Attributes:
        name: one of ``envs.tasks.ADROIT_DOMAINS``.
    """

    @property
    def body(self) -> str:
        """The hand, which is in all of them."""
        return "adroit"

    def check(self) -> None:
        """Draw one small picture, and find the scene.

        Raises:
            DependencyError: this machine cannot render, or the package that holds the scenes is missing.
        """
        super().check()
        compile_model(self.name)

    def collect(self, count: int, seed: int) -> dict[str, np.ndarray]:
        """Render ``count`` poses; see ``collect_adroit``."""
        return collect_adroit(self.name, count, seed)


Domain = SuiteDomain | GymDomain


def find_domains(entries: Sequence[str]) -> tuple[Domain, ...]:
    """Return the domains of a command line; nothing is imported, made or rendered yet.

    Args:
        entries: of ``KNOWN_DOMAINS``, or gymnasium ids: ``MyHand-v0``, ``my_package.envs:MyHand-v0``,
            ``hand=my_package.envs:MyHand-v0``.

    Raises:
        ConfigError: one is neither, two have the same name, or there are fewer than two.
    """
    found: list[Domain] = [_find(entry) for entry in entries]
    names = [domain.name for domain in found]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"Two domains are called '{name}'.", "Name each once; name=module:id gives another name."
            )
    if len(found) < 2:
        raise ConfigError(
            f"Only {len(found)} domain was given.", "Obedience is learned between objects: name two or more."
        )
    return tuple(found)


def _find(entry: str) -> Domain:
    if entry in POSE_TASKS:
        return SuiteDomain(entry)
    if entry in ADROIT_DOMAINS:
        return AdroitDomain(entry)
    if re.search(r"[:=/]|-v\d+$", entry):
        return GymDomain.parse(entry)
    raise ConfigError(
        f"Unknown pretraining domain '{entry}'.",
        f"{nearest(entry, KNOWN_DOMAINS)}Choose among {', '.join(KNOWN_DOMAINS)}, or name your own "
        "environment: module:id, such as my_package.envs:MyHand-v0.",
    )
