"""The options of a SAM-G masker, checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from common.errors import ConfigError, unknown_choice

EMPTY_POLICIES = ("keep", "raw", "previous_pass")
AUTO = "auto"


@dataclass(frozen=True)
class SamgOptions:
    """How a masker works, apart from its networks and its reference.

    Attributes:
        encoders: feature maps to compare, such as ``("dino", "sam")``, in any order; empty means all the
            networks have (``parse`` refuses an empty list, which says none, and takes None for all).
        passes: decoder passes per frame, 1 to 3.
        persam: whether to fit the mask weights to the reference (else one third each).
        extra_points: whether the reference's extra points become prompts.
        map_prompt: whether the similarity map is the mask prompt of the first pass.
        presence: least cosine of the best pixel of the target's map; in a frame that stays below it the
            target is absent and the mask empty. ``auto`` takes the networks' own calibration, which full-size
            networks do not have and the published code does not use; None never asks.
        on_empty: what a frame with an empty mask becomes: ``keep`` (black), ``raw`` (unmasked),
            ``previous_pass`` (the newest pass whose mask is not empty). Always counted, see ``statistics``.
        batch_size: pad every batch to multiples of this many frames, so that a mask does not depend, to the
            last bit, on how many frames came with it; None takes batches as they come.
        seed: of the noise in fitting.
    """

    encoders: tuple[str, ...] = ()
    passes: int = 3
    persam: bool = True
    extra_points: bool = True
    map_prompt: bool = False
    presence: float | str | None = AUTO
    on_empty: str = "keep"
    batch_size: int | None = None
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
        for name in ("persam", "extra_points", "map_prompt"):
            _require(name, getattr(options, name), isinstance(getattr(options, name), bool), "true or false")
        _require("passes", options.passes, _is_count(options.passes, 1) and options.passes <= 3, "1, 2 or 3")
        _require("seed", options.seed, _is_count(options.seed, 0), "a whole number from 0 on")
        size = options.batch_size
        _require("batch_size", size, size is None or _is_count(size, 1), "a whole number from 1 on, or null")
        _require(
            "presence", options.presence, _is_presence(options.presence), "auto, null, or a cosine in (-1, 1)"
        )
        if options.on_empty not in EMPTY_POLICIES:
            raise unknown_choice("on_empty policy", options.on_empty, EMPTY_POLICIES)
        return options

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
        return values


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
