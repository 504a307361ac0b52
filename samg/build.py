"""Make maskers by name. Settings and inputs are checked first; networks are loaded last."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from common import faults
from common.devices import resolve_device
from common.errors import ConfigError, unknown_choice
from common.files import sha256_file
from common.paths import resolve
from samg.baselines import BASELINES, BaselineMasker
from samg.compat import CompatRules
from samg.fitting import fit_reference
from samg.masker import METHOD, SamGMasker, Source, Weights
from samg.networks import SamgNetworks
from samg.numerics import NUMERICS, MaskerNumerics, TunableNetworks
from samg.options import SamgOptions
from samg.rules import FixedRules, Rules
from samg.views import AnyReference, ViewMasker, ViewReferences

_PLAIN = MaskerNumerics()


@dataclass(frozen=True)
class LoadedNetworks:
    """Networks and where they came from."""

    networks: SamgNetworks
    source: Source


class MaskerBuilder:
    """Settings of a masker, waiting for a reference; networks are loaded once, at the first fit."""

    def __init__(
        self,
        variant: str,
        device: torch.device,
        weights: Weights,
        rules: Rules,
        options: SamgOptions,
        settings: dict[str, str],
        numerics: MaskerNumerics,
    ) -> None:
        self.variant = variant
        self._device = device
        self._weights = weights
        self._rules = rules
        self._options = options
        self._settings = settings
        self._numerics = numerics
        self._loaded: LoadedNetworks | None = None

    def load(self) -> LoadedNetworks:
        """Return the networks, loading them the first time.

        Raises:
            InputError: the weights are missing or do not fit.
        """
        if self._loaded is None:
            self._loaded = load_networks(
                self.variant,
                self._device,
                self._weights,
                self._options.encoders,
                self._settings,
                self._numerics,
            )
        return self._loaded

    @property
    def device(self) -> torch.device:
        """Where the masker will run."""
        return self._device

    def identity(self, reference: AnyReference) -> str:
        """Return a digest of everything that a fit to ``reference`` depends on, to the last bit.

        Other than a fingerprint it tells apart devices and versions of torch, whose fits may differ a little.
        """
        identity = {
            "method": METHOD,
            "rules": self._rules.name,
            "options": self._options.to_dict(),
            "settings": self._settings,
            "weights": self.load().source.digest,
            "reference": reference.digest(self._rules.uses_cutouts),
            "numerics": [self._device.type, torch.__version__, self._numerics.to_dict()],
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    def fit(self, reference: AnyReference | None) -> SamGMasker:
        """Return a masker of the reference's target; of several cameras' references, one for all views.

        Raises:
            ConfigError: there is no reference.
            InputError: the weights are missing or do not fit.
        """
        if reference is None:
            raise ConfigError(
                f"masker '{self.variant}' needs a reference image and mask.",
                "Set original_image and masked_image, or use masker=none.",
            )
        if isinstance(reference, ViewReferences):
            return ViewMasker([self.fit(one) for one in reference.references])
        loaded = self.load()
        faults.point("masker.fit")
        with self._numerics.eager():
            fit = fit_reference(loaded.networks, reference, self._rules, self._options, self._device)
        return SamGMasker(
            loaded.networks, reference, fit, self._rules, self._options, loaded.source, self._device
        )


class BaselineBuilder:
    """The builder of a masker that has nothing to fit."""

    def __init__(self, variant: str) -> None:
        self.variant = variant

    def fit(self, reference: AnyReference | None = None) -> BaselineMasker:
        """Return the masker; the reference is ignored."""
        return BASELINES[self.variant]()


def build_masker(
    variant: str,
    device: str | torch.device = "cpu",
    weights: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    compat: bool = False,
    **options: Any,
) -> MaskerBuilder | BaselineBuilder:
    """Choose a masker; ``.fit(reference)`` makes it.

    Args:
        variant: ``none``, ``groundtruth``, ``tiny``, ``fast`` or ``paper``.
        device: where it runs: ``cpu``, ``cuda``, ``cuda:1``, or ``auto``.
        weights: local files or folders instead of the variant's own weights; ``drawn`` fills full-size
            networks with drawn ones, whose masks are senseless and whose times are real (for benchmarks).
        compat: reproduce the published code's quirks (``samg.compat``).
        options: see ``SamgOptions`` and ``MaskerNumerics``; for ``paper`` and ``fast`` also ``sam`` (l0 to
            xl1), ``dino`` (vitb14, vits14) and ``dino_size`` (448, 224).

    Raises:
        ConfigError: the variant or an option is unknown or impossible.
        ResourceError: the device does not exist, or cannot do what is asked.
    """
    if variant in BASELINES:
        given = [*options, *(["weights"] if weights is not None else []), *(["compat"] if compat else [])]
        if given:
            raise ConfigError(
                f"masker '{variant}' has no setting '{given[0]}'.",
                "Remove it, or choose masker=paper or masker=tiny.",
            )
        return BaselineBuilder(variant)
    if variant not in NETWORKS:
        raise unknown_choice("masker", variant, VARIANTS)
    known = NETWORKS[variant]
    settings = {name: str(options.pop(name)) for name in known.settings if name in options}
    size = settings.get("dino_size", DINO_SIZES[0])
    if size not in DINO_SIZES:
        raise unknown_choice("masker.dino_size", size, DINO_SIZES)
    numerics = {name: options.pop(name) for name in NUMERICS if name in options}
    parsed = SamgOptions.parse(options, also=(*known.settings, *NUMERICS))
    parsed.check_together()
    encoders = parsed.select_encoders(known.encoders)
    if size != DINO_SIZES[0] and "dino" not in encoders:
        raise ConfigError(
            f"masker.dino_size={size} has no effect: masker.encoders leaves out dino.",
            "Leave out one of the two.",
        )
    chosen = MaskerNumerics.of(numerics, known.numerics)
    where, rules = resolve_device(str(device)), choose_rules(compat)
    return MaskerBuilder(variant, where, plain_weights(weights), rules, parsed, settings, chosen.on(where))


def plain_weights(weights: Any) -> Weights:
    """Return the paths of weights as absolute ones, valid in whichever directory a saved masker is loaded."""
    if weights is None or weights == DRAWN:
        return weights
    if isinstance(weights, str | os.PathLike):
        return str(resolve(weights))
    return [str(resolve(path)) for path in weights]


def choose_rules(compat: bool) -> Rules:
    """Return the published rules or the fixed ones."""
    return CompatRules() if compat else FixedRules()


def load_networks(
    variant: str,
    device: torch.device,
    weights: Weights = None,
    encoders: tuple[str, ...] = (),
    settings: Mapping[str, str] | None = None,
    numerics: MaskerNumerics | None = None,
) -> LoadedNetworks:
    """Load a variant's networks, in evaluation mode and without gradients.

    Args:
        variant: a key of ``NETWORKS``.
        device: where they go.
        weights: paths, or None for the variant's own.
        encoders: those needed, in any order; empty means all.
        settings: the variant's own settings.
        numerics: how they compute, which must be possible on ``device``; None for the variant's own way.

    Raises:
        ConfigError: the variant has no such encoder.
        InputError: the weights are missing, damaged or of another architecture.
    """
    known = NETWORKS[variant]
    chosen = SamgOptions(encoders=encoders).select_encoders(known.encoders)
    loaded = known.load(device, weights, chosen, dict(settings or {}))
    if isinstance(loaded.networks, TunableNetworks):
        loaded.networks.tune(numerics or known.numerics, device)
    return loaded


def _load_tiny(
    device: torch.device, weights: Weights, encoders: tuple[str, ...], settings: dict[str, str]
) -> LoadedNetworks:
    from samg.tiny import WEIGHTS, load_tiny_networks

    if isinstance(weights, list):
        raise ConfigError("masker=tiny takes one weights file, not a list.", "Set masker.weights to a path.")
    networks, record = load_tiny_networks(device, weights)
    digest = sha256_file(WEIGHTS if weights is None else resolve(weights))
    return LoadedNetworks(networks, Source("tiny", digest, weights, settings, record))


def _load_released(
    variant: str, device: torch.device, weights: Weights, encoders: tuple[str, ...], settings: dict[str, str]
) -> LoadedNetworks:
    from samg.weights import RELEASED, load_paper_networks, random_paper_networks

    names = {**RELEASED[variant], **settings}
    size = int(names.pop("dino_size", DINO_SIZES[0]))
    method = {"dino_size": size} if "dino" in encoders and size != int(DINO_SIZES[0]) else {}
    if weights == DRAWN:
        drawn = random_paper_networks(0, device, encoders, **names, dino_size=size)
        digest = f"{DRAWN} {names['sam']} {names['dino']}"
        return LoadedNetworks(drawn, Source(variant, digest, weights, settings, {"files": DRAWN}, method))
    networks, record = load_paper_networks(
        weights, device, encoders, **names, dino_size=size, variant=variant
    )
    source = Source(variant, record.sha256, weights, settings, record.to_dict(), method)
    return LoadedNetworks(networks, source)


@dataclass(frozen=True)
class NetworkSet:
    """A set of networks that can be loaded by name.

    Attributes:
        load: makes it.
        encoders: the feature maps it has.
        settings: names of what else can be chosen.
        numerics: how they compute unless told otherwise.
    """

    load: Callable[[torch.device, Weights, tuple[str, ...], dict[str, str]], LoadedNetworks]
    encoders: tuple[str, ...]
    settings: tuple[str, ...]
    numerics: MaskerNumerics = _PLAIN


DINO_SIZES = ("448", "224")
DRAWN = "drawn"
_ENCODERS, _RELEASED_SETTINGS = ("dino", "sam"), ("sam", "dino", "dino_size")
NETWORKS = {
    "tiny": NetworkSet(_load_tiny, _ENCODERS, (), MaskerNumerics(channels_last=True)),
    "fast": NetworkSet(functools.partial(_load_released, "fast"), _ENCODERS, _RELEASED_SETTINGS),
    "paper": NetworkSet(functools.partial(_load_released, "paper"), _ENCODERS, _RELEASED_SETTINGS),
}
VARIANTS = (*BASELINES, *NETWORKS)
