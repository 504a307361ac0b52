"""The options of a SAM-G masker, checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from common.errors import ConfigError, unknown_choice

EMPTY_POLICIES = ("keep", "raw", "previous_pass")
MASK_SOURCES = ("decoder", "map", "soft_map")
AUTO = "auto"


@dataclass(frozen=True)
class SamgOptions:
    """How a masker works, apart from its networks and its reference.

    Attributes:
        encoders: feature maps to compare, such as ``("dino", "sam")``, in any order; empty means all the
            networks have (``parse`` refuses an empty list, which says none, and takes None for all).
        passes: decoder passes per frame, 1 to 3.
        persam: whether to fit the mask weights to the reference (else one third each).
        extra_points: whether the reference's extra points become prompts; or how many do: the first that it
            lists and, where it lists fewer, further ones spread over its mask (``samg.extra_points``).
        mask_from: ``decoder``; or the features alone, without any decoder: ``map`` keeps the pixels whose
            similarity exceeds the level that fits the reference's own mask best, ``soft_map`` weighs them by
            a sigmoid around that level. Passes, PerSAM weights and map prompt then play no part.
        map_prompt: whether the similarity map is the mask prompt of the first pass.
        presence: least cosine of the best pixel of the target's map; in a frame that stays below it the
            target is absent and the mask empty. ``auto`` takes the networks' own calibration, which full-size
            networks do not have and the published code does not use; None never asks.
        on_empty: what a frame with an empty mask becomes: ``keep`` (black), ``raw`` (unmasked),
            ``previous_pass`` (the newest pass whose mask is not empty). Always counted, see ``statistics``.
        batch_size: pad every batch to multiples of this many frames, so that a mask does not depend, to the
            last bit, on how many frames came with it; None takes batches as they come, on a CPU 8 frames at
            once.
        every: mask every so many frames of an episode and reuse the last mask in between; 1 masks all.
            Whoever steps environments does that (``wrappers.BatchMasker``): ``mask`` masks what it is given.
        seed: of the noise in fitting.
    """

    encoders: tuple[str, ...] = ()
    passes: int = 3
    persam: bool = True
    extra_points: bool | int = True
    mask_from: str = MASK_SOURCES[0]
    map_prompt: bool = False
    presence: float | str | None = AUTO
    on_empty: str = "keep"
    batch_size: int | None = None
    every: int = 1
    seed: int = 0

    @classmethod
    def parse(cls, values: Mapping[str, Any], also: Iterable[str] = ()) -> SamgOptions:
        """Check options as they come from a config or a call.

        Args:
            values: option -> value.
            also: further names to offer when one is unknown.

        Raises:
            ConfigError: an option is unknown or its value impossible.
        """
        names = [field.name for field in fields(cls)]
        for name in values:
            if name not in names:
                raise unknown_choice("masker option", name, (*names, *also))
        options = cls(**{**values, "encoders": _names(values.get("encoders"))})
        if options.extra_points == 0:  # which is how one says false by a number
            options = replace(options, extra_points=False)
        for name in ("persam", "map_prompt"):
            _require(name, getattr(options, name), isinstance(getattr(options, name), bool), "true or false")
        points = options.extra_points
        counted = isinstance(points, bool) or _is_count(points, 0)
        _require("extra_points", points, counted, "true, false, or a whole number from 0 on")
        _require("passes", options.passes, _is_count(options.passes, 1) and options.passes <= 3, "1, 2 or 3")
        _require("seed", options.seed, _is_count(options.seed, 0), "a whole number from 0 on")
        _require("every", options.every, _is_count(options.every, 1), "a whole number from 1 on")
        size = options.batch_size
        _require("batch_size", size, size is None or _is_count(size, 1), "a whole number from 1 on, or null")
        _require(
            "presence", options.presence, _is_presence(options.presence), "auto, null, or a cosine in (-1, 1)"
        )
        if options.on_empty not in EMPTY_POLICIES:
            raise unknown_choice("on_empty policy", options.on_empty, EMPTY_POLICIES)
        if options.mask_from not in MASK_SOURCES:
            raise unknown_choice("mask_from", options.mask_from, MASK_SOURCES)
        return options

    def check_together(self) -> None:
        """Refuse a choice that another one leaves without any effect.

        Raises:
            ConfigError: naming both.
        """
        if self.on_empty == "previous_pass" and self.masks_per_frame == 1:
            other = "passes=1" if self.uses_decoder else f"mask_from={self.mask_from}"
            raise _no_effect("on_empty=previous_pass", other, "there is no earlier pass")
        if self.map_prompt and not self.uses_decoder:
            raise _no_effect(
                "map_prompt=true", f"mask_from={self.mask_from}", "there is no decoder to prompt"
            )

    def select_encoders(self, available: tuple[str, ...]) -> tuple[str, ...]:
        """Return the encoders to use, in the networks' order.

        Raises:
            ConfigError: one is not among ``available``.
        """
        for name in self.encoders:
            if name not in available:
                raise unknown_choice("encoder", name, available)
        return tuple(name for name in available if name in self.encoders) if self.encoders else available

    def to_dict(self) -> dict[str, Any]:
        """Return the options as JSON values; ``parse`` reads them again."""
        return {**asdict(self), "encoders": list(self.encoders) or None}

    def method(self) -> dict[str, Any]:
        """Return what decides the masks; padding only moves their last bits and is left out."""
        values = self.to_dict()
        del values["batch_size"]
        if self.every == 1:  # so that what was fitted before this option existed keeps its fingerprint
            del values["every"]
        return values

    @property
    def masks_per_frame(self) -> int:
        """How many masks are made per frame: one per decoder pass, or one without a decoder."""
        return self.passes if self.uses_decoder else 1

    @property
    def uses_decoder(self) -> bool:
        """Whether masks come from the decoder, not from the map itself."""
        return self.mask_from == MASK_SOURCES[0]


def _no_effect(one: str, other: str, reason: str) -> ConfigError:
    return ConfigError(
        f"masker.{one} has no effect beside masker.{other}: {reason}.", "Leave out one of the two."
    )


def _names(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, Iterable):
        raise ConfigError(f"masker.encoders is {value!r}, expected a list of names.", "Such as [dino,sam].")
    names = tuple(str(name) for name in value)
    if not names:
        raise ConfigError(
            "masker.encoders is an empty list, and a masker needs at least one.",
            "Leave it out, or set it to null, for all.",
        )
    return names


def _is_presence(value: Any) -> bool:
    if isinstance(value, str):
        return value == AUTO
    return value is None or (
        isinstance(value, int | float) and not isinstance(value, bool) and -1 < value < 1
    )


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _require(name: str, value: Any, fine: bool, expected: str) -> None:
    if not fine:
        raise ConfigError(
            f"masker.{name} is {value!r}, expected {expected}.", f"Set masker.{name} accordingly."
        )
