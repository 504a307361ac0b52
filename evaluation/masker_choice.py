"""Which masker an evaluation uses, decided from flags and configuration before anything is loaded."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from common.errors import ConfigError
from common.masking import MaskerInfo
from evaluation.run_directory import RunDirectory, has_reference

logger = logging.getLogger(__name__)

WITHOUT_REFERENCE = ("none", "groundtruth")


@dataclass(frozen=True)
class ReferenceFlags:
    """The reference flags of the command line; None where not given."""

    original_image: str | None = None
    masked_image: str | None = None
    extra_points_list: Sequence[str] | None = None
    extra_masked_images_list: Sequence[str] | None = None

    @property
    def given(self) -> bool:
        """Whether any of them was given."""
        return any(value is not None for value in vars(self).values())


@dataclass(frozen=True)
class MaskerChoice:
    """The masker to use.

    Attributes:
        variant: network set.
        load: use the fitted masker saved with the run.
        settings: arguments of ``samg.build_masker`` besides the variant and the device.
        reference: what ``samg.load_reference`` reads for a masker to be fitted; None where none is needed.
        explicit: the user named another masker or reference, which is consent to a mismatch.
    """

    variant: str
    load: bool
    settings: dict[str, Any]
    reference: dict[str, Any] | list[dict[str, Any]] | None
    explicit: bool


def choose_maskers(
    run: RunDirectory,
    maskers: Sequence[str],
    use_sam_g: bool | None,
    flags: ReferenceFlags,
    allow_mismatch: bool = False,
) -> list[MaskerChoice]:
    """Decide which maskers to use where several may be named; arguments as for ``choose_masker``.

    Each is named once, whether by its variant or as ``run``. Reference flags reach those that read a
    reference.

    Raises:
        ConfigError: as ``choose_masker``, for any of them.
    """
    if not maskers:
        return [choose_masker(run, None, use_sam_g, flags, allow_mismatch)]
    variants = [run.masker_variant if masker == "run" else masker for masker in maskers]
    some_read = not all(variant in WITHOUT_REFERENCE for variant in variants)
    chosen: dict[str, MaskerChoice] = {}
    for masker, variant in zip(maskers, variants, strict=True):
        if variant not in chosen:
            own = ReferenceFlags() if some_read and variant in WITHOUT_REFERENCE else flags
            chosen[variant] = choose_masker(run, masker, use_sam_g, own, allow_mismatch)
    return list(chosen.values())


def choose_masker(
    run: RunDirectory,
    masker: str | None,
    use_sam_g: bool | None,
    flags: ReferenceFlags,
    allow_mismatch: bool = False,
) -> MaskerChoice:
    """Decide which masker to use.

    Args:
        run: the run to be evaluated.
        masker: ``run``, a variant, or None (the run's own).
        use_sam_g: the documented switch; None where not given.
        flags: the reference flags.
        allow_mismatch: fit the run's masker anew with the weights of today instead of loading it.

    Raises:
        ConfigError: flags contradict each other, or a reference is needed and incomplete.
    """
    masker = masker or ("none" if use_sam_g is False else "run")
    variant = run.masker_variant if masker == "run" else masker
    if use_sam_g is True and variant == "none":
        raise ConfigError(
            "--use_SAM_g contradicts the masker 'none'"
            + (", which the run was trained with." if masker == "run" else " of --masker."),
            "Leave out --use_SAM_g, or name a masker with --masker tiny or --masker paper.",
        )
    if use_sam_g is False and variant != "none":
        raise ConfigError(f"--use_SAM_g false contradicts --masker {masker}.", "Leave out one of them.")
    if variant in WITHOUT_REFERENCE and flags.given:
        raise ConfigError(
            f"The masker '{variant}' reads no reference, but reference flags were given.",
            "Leave them out, or name a masker with --masker tiny or --masker paper.",
        )
    explicit = flags.given or masker != "run"
    # A run whose masker is lost, or may differ, gets a new one from its own reference.
    own = variant == run.masker_variant and not flags.given
    load = own and not allow_mismatch and run.trained_masker() is not None
    fitted = not load and variant not in WITHOUT_REFERENCE
    reference = _reference(run, flags) if fitted else None
    return MaskerChoice(variant, load, run.masker_settings(variant), reference, explicit)


def _reference(run: RunDirectory, flags: ReferenceFlags) -> dict[str, Any] | list[dict[str, Any]]:
    reference = run.reference()
    if (flags.original_image is None) != (flags.masked_image is None):
        given, missing = ("original", "masked") if flags.masked_image is None else ("masked", "original")
        raise ConfigError(f"--{given}_image was given without --{missing}_image.", "They belong together.")
    if flags.original_image is not None:
        # Points and parts of the run's reference say nothing about another image.
        reference = {
            "original_image": flags.original_image,
            "masked_image": flags.masked_image,
            "extra_points_list": [],
            "extra_masked_images_list": [],
        }
    for name in ("extra_points_list", "extra_masked_images_list"):
        if getattr(flags, name) is not None:
            if not isinstance(reference, dict):
                raise ConfigError(
                    f"--{name} was given alone, but the run has a reference for every camera.",
                    "Add --original_image and --masked_image, which then serve all cameras.",
                )
            reference[name] = list(getattr(flags, name))
    if not has_reference(reference):
        raise ConfigError(
            f"{run.task} has no reference image to fit a masker with.",
            "Give --original_image and --masked_image (annotate.py makes them).",
        )
    return reference


def _compared(numerics: dict[str, Any]) -> dict[str, Any]:
    """Return what of the numerics a warning is due for: an evaluation chooses its batch size itself."""
    return {name: value for name, value in numerics.items() if name != "batch_size"}


def describe_numerics(numerics: dict[str, Any]) -> str:
    """Return how masks are computed in words, such as ``device cuda, precision bfloat16, compile``."""
    words = []
    for name, value in _compared(numerics).items():
        if isinstance(value, bool):
            words += [name.replace("_", " ")] if value else []
        else:
            words.append(f"{name} {value}")
    return ", ".join(words) or "unknown"


def check_masker(
    info: MaskerInfo, trained: dict[str, Any] | None, choice: MaskerChoice, allow_mismatch: bool
) -> None:
    """Compare the masker with the one the agent was trained with.

    The same masks, computed otherwise, only call for a warning: last bits may differ, in bfloat16 more.

    Raises:
        ConfigError: they differ and nobody asked for that.
    """
    if trained is None:
        return
    if trained["fingerprint"] == info.fingerprint:
        before = trained.get("numerics") or {}
        if any(before.get(name, now) != now for name, now in _compared(info.numerics).items()):
            theirs, ours = describe_numerics(before), describe_numerics(info.numerics)
            logger.warning("masks are computed otherwise than in training (%s), here: %s", theirs, ours)
        return
    ours, theirs = info.fingerprint[:12], str(trained["fingerprint"])[:12]
    what = f"masker {info.variant} ({ours}) is not the one of training, {trained['variant']} ({theirs})"
    if not (choice.explicit or allow_mismatch):
        raise ConfigError(
            f"The {what}.",
            "Add --allow-masker-mismatch to evaluate all the same; both fingerprints are recorded.",
        )
    logger.warning("the %s; both are recorded with the results", what)
