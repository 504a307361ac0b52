"""A fitted masker on disk: ``masker.json``, ``fit.safetensors``, ``reference/``; no pickle, no networks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from common.devices import resolve_device
from common.errors import ConfigError, InputError
from common.files import atomic_directory, is_free, read_json, write_json
from samg.baselines import BASELINES, BaselineMasker
from samg.build import NETWORKS, LoadedNetworks, choose_rules, load_networks, plain_weights
from samg.fitting import Fit
from samg.map_prompt import build_map_prompt
from samg.masker import SamGMasker, Weights
from samg.numerics import NUMERICS, MaskerNumerics
from samg.options import SamgOptions
from samg.reference import Reference
from samg.views import ViewMasker

FORMAT = 1
RECORD = "masker.json"
_TENSORS = "fit.safetensors"
_VIEW = "view_{}"
_MOST_VIEWS = 64
_AGAIN = "Fit the masker again with build_masker(...).fit(reference), or restore the directory."


def should_write(directory: Path, record: dict[str, Any]) -> bool:
    """Return whether ``directory`` has to be written: False when this very masker lies there already.

    Raises:
        ConfigError: it holds another masker.
    """
    if is_free(directory):
        return True
    kept = read_json(directory / RECORD, "masker record")
    if kept.get("fingerprint") != record["fingerprint"]:
        raise ConfigError(
            f"{directory} already holds another masker ({kept.get('variant')}).",
            "Choose another run directory, or the settings with which this one was made.",
        )
    return False


def save_masker(masker: SamGMasker, directory: Path) -> None:
    """Write a fitted masker; the directory appears whole or not at all.

    Saving the same masker again changes nothing.

    Raises:
        ConfigError: the directory holds another masker.
    """
    fit, source = masker.fit, masker.source
    record = {
        "format": FORMAT,
        "name": "samg",
        "variant": source.variant,
        "fingerprint": masker.info.fingerprint,
        "rules": masker.rules.name,
        "options": {**masker.options.to_dict(), "encoders": list(fit.targets)},
        "weights": {
            "path": source.weights,
            "settings": source.settings,
            "digest": source.digest,
            "record": source.record,
        },
        "fit": fit.report,
        "presence": fit.presence,
        "map_resolution": fit.map_prompt.resolution if fit.map_prompt else None,
        "numerics": masker.info.numerics,
    }
    tensors = {"mask_weights": fit.mask_weights, **{f"targets.{k}": v for k, v in fit.targets.items()}}
    if fit.map_prompt:
        tensors["map_scale"] = fit.map_prompt.scale
    if fit.map_scale is not None:
        tensors["map_mask_scale"] = fit.map_scale
    if not should_write(directory, record):
        return
    with atomic_directory(directory) as stage:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, stage / _TENSORS)
        masker.reference.save(stage / "reference")
        write_json(stage / RECORD, record)


def save_views(masker: ViewMasker, directory: Path) -> None:
    """Write the masker of several cameras: each camera's own lies in a folder of it; see ``save_masker``."""
    info = masker.info
    record = {
        "format": FORMAT,
        "name": "samg",
        "variant": info.variant,
        "fingerprint": info.fingerprint,
        "views": masker.views,
        "numerics": info.numerics,
    }
    if not should_write(directory, record):
        return
    with atomic_directory(directory) as stage:
        for view, one in enumerate(masker.maskers):
            save_masker(one, stage / _VIEW.format(view))
        write_json(stage / RECORD, record)


def _load_views(
    directory: Path,
    views: int,
    device: str | torch.device,
    weights: Weights,
    settings: Mapping[str, Any] | None,
    loaded: LoadedNetworks | None,
) -> ViewMasker:
    maskers: list[SamGMasker] = []
    for view in range(views):
        one = load_samg_masker(directory / _VIEW.format(view), device, weights, settings, loaded)
        maskers.append(one)
        loaded = loaded or LoadedNetworks(one.networks, one.source)
    return ViewMasker(maskers)


def read_record(directory: Path) -> dict[str, Any]:
    """Return the content of ``masker.json``.

    Raises:
        InputError: there is no saved masker, or it is of an unknown format.
    """
    record = read_json(directory / RECORD, "masker record")
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise InputError(f"{directory / RECORD} is not a masker record of format {FORMAT}.", _AGAIN)
    return record


def load_samg_masker(
    directory: Path,
    device: str | torch.device,
    weights: Weights = None,
    settings: Mapping[str, Any] | None = None,
    loaded: LoadedNetworks | None = None,
) -> SamGMasker:
    """Read a saved masker and load its networks, unless they are ``loaded``; see ``load_masker``."""
    record = read_record(directory)
    if record.get("name") != "samg":
        raise InputError(
            f"{directory} holds a '{record.get('variant')}' masker, not a SAM-G one.", "Use samg.load_masker."
        )
    if "views" in record:
        return _load_views(directory, _count_views(record, directory), device, weights, settings, loaded)
    try:
        variant, stored = record["variant"], record["weights"]
        options = SamgOptions.parse(record["options"])
        rules = choose_rules(record["rules"] == "compat")
        path, digest, known = stored["path"], stored["digest"], NETWORKS[variant]
        # Older maskers name their precision here, too; it is one of the numerics.
        own = {name: value for name, value in stored["settings"].items() if name in known.settings}
        given = {name: value for name, value in (settings or {}).items() if name in NUMERICS}
        numerics = MaskerNumerics.recorded({**record["numerics"], **given}, known.numerics)
        resolution, report = record["map_resolution"], record["fit"]
        presence = record.get("presence")  # maskers of before the test do not have it
    except (KeyError, TypeError, ConfigError) as error:
        raise InputError(f"{directory / RECORD} is damaged ({error}).", _AGAIN) from error
    reference = Reference.restore(directory / "reference")
    target = resolve_device(str(device))
    tensors = _read_tensors(directory / _TENSORS, target)

    if loaded is None:
        where, chosen = plain_weights(weights) or path, numerics.moved_to(target)
        loaded = load_networks(variant, target, where, options.encoders, own, chosen)
    _check_weights(loaded, digest, directory)
    prefix = "targets."
    targets = {name: tensors[prefix + name] for name in options.select_encoders(loaded.networks.encoders)}
    prompt = None
    if resolution is not None:
        prompt = build_map_prompt(loaded.networks, tuple(targets), tensors["map_scale"], resolution)
    scale = None if options.uses_decoder else tensors["map_mask_scale"]
    fit = Fit(targets, tensors["mask_weights"], prompt, report, presence, scale)
    return SamGMasker(loaded.networks, reference, fit, rules, options, loaded.source, target)


def _count_views(record: Mapping[str, Any], directory: Path) -> int:
    views = record["views"]
    if not isinstance(views, int) or isinstance(views, bool) or not 1 < views <= _MOST_VIEWS:
        raise InputError(f"{directory / RECORD} is damaged (views: {views!r}).", _AGAIN)
    return views


def load_masker(
    directory: str | Path,
    device: str | torch.device = "cpu",
    weights: Weights = None,
    settings: Mapping[str, Any] | None = None,
) -> SamGMasker | BaselineMasker:
    """Read any saved masker, of whichever kind.

    It computes as it did when it was saved, as far as the device can do that, unless ``settings`` say how.

    Args:
        directory: what ``save`` wrote.
        device: where to run it.
        weights: the weights' paths, should they have moved.
        settings: of a masker, as a configuration has them; only the ``samg.numerics`` among them are read.

    Raises:
        InputError: a file is missing or damaged, or the weights are not those of the fit.
        ResourceError: the device does not exist, or cannot compute in the precision.
    """
    name = read_record(Path(directory)).get("name")
    if name in BASELINES:
        return BASELINES[name]()
    return load_samg_masker(Path(directory), device, weights, settings)


def _read_tensors(path: Path, device: torch.device) -> dict[str, Tensor]:
    try:
        return {name: tensor.to(device) for name, tensor in load_file(path).items()}
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist.", _AGAIN) from error
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a whole safetensors file ({error}).", _AGAIN) from error


def _check_weights(loaded: LoadedNetworks, digest: str, directory: Path) -> None:
    if loaded.source.digest != digest:
        raise InputError(
            f"The {loaded.source.variant} weights (SHA-256 {loaded.source.digest[:12]}) are not those of the "
            f"masker in {directory} ({digest[:12]}).",
            "Name the weights it was fitted with (masker.weights=...), or start a new run with these.",
        )
