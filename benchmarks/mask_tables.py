"""Tables and pictures of the mask benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.mask_controls import Data, run_masker

_SHOWN = 84  # pixels
_TITLES = {
    "own_iou": "IoU of the own object",
    "rival_taken": "share of the rival taken",
    "rival_iou_by_its_reference": "IoU of the rival, prompted by its reference",
    "own_taken_by_rival_reference": "share of the own object then taken",
    "random_points_iou": "own IoU with random points",
    "no_points_iou": "own IoU with no points",
    "unet_own_iou": "own IoU of the U-Net",
    "absent_reference_taken": "one agent, reference of an absent one: share taken",
    "absent_reference_empty": "... share of empty masks",
}


def median(values: Sequence[Any]) -> Any:
    """Take the median of numbers, leaf by leaf of equally built dictionaries."""
    if isinstance(values[0], Mapping):
        return {key: median([value[key] for value in values]) for key in values[0]}
    return float(np.median(values))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _plain(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}".removeprefix("0") if abs(value) < 1 else f"{value:.{digits}f}"


def quality_table(levels: Mapping[str, Any], unet: Mapping[str, Any] | None) -> str:
    """Return IoU, recall, precision (and the U-Net's IoU in brackets) of every domain on every level."""

    def cell(level: str, domain: str) -> str:
        values = " ".join(_plain(levels[level][domain][key]) for key in ("iou", "recall", "precision"))
        return f"{values} ({_plain(unet[level][domain]['iou'])})" if unet else values

    def mean(source: Mapping[str, Any], level: str, key: str) -> float:
        return float(np.mean([source[level][domain][key] for domain in domains]))

    domains = list(next(iter(levels.values())))
    rows = [[domain, *(cell(level, domain) for level in levels)] for domain in domains]
    means = []
    for level in levels:
        text = " ".join(_plain(mean(levels, level, key)) for key in ("iou", "recall", "precision"))
        means.append(f"{text} ({_plain(mean(unet, level, 'iou'))})" if unet else text)
    rows.append(["**mean**", *means])
    lowest = [_plain(min(levels[level][domain]["iou"] for domain in domains)) for level in levels]
    rows.append(["worst domain", *lowest])
    rows.append(["10th percentile of IoU, mean", *(_plain(mean(levels, level, "p10")) for level in levels)])
    below = [f"{100 * mean(levels, level, 'below_half'):.1f} %" for level in levels]
    rows.append(["frames below IoU .5", *below])
    return table(["domain", *levels], rows)


def planned_table(planned: Mapping[str, Any]) -> str:
    """Return the IoU on the planner's poses alone."""
    domains = list(next(iter(planned.values())))
    rows = [[domain, *(_plain(planned[level][domain]) for level in planned)] for domain in domains]
    means = [float(np.mean([planned[level][domain] for domain in domains])) for level in planned]
    return table(["domain", *planned], [*rows, ["**mean**", *map(_plain, means)]])


def obedience_table(controls: Mapping[str, Any]) -> str:
    """Return the means of all controls and the worst pairs."""
    first = next(iter(controls.values()))
    rows = [
        [title, *(_plain(controls[level]["mean"][key]) for level in controls)]
        for key, title in _TITLES.items()
        if key in first["mean"]
    ]
    for key in first["worst"]:
        rows.append([f"worst pair: {_TITLES[key]}", *(_plain(controls[c]["worst"][key]) for c in controls)])
    return table(["", *controls], rows)


def pairs_table(controls: Mapping[str, Any]) -> str:
    """Return own IoU, share of the rival taken and the rival's IoU by its reference, pair by pair."""
    keys = ("own_iou", "rival_taken", "rival_iou_by_its_reference")
    first = next(iter(controls.values()))["pairs"]
    rows = [
        [pair, *(" ".join(_plain(controls[c]["pairs"][pair][key], 2) for key in keys) for c in controls)]
        for pair in first
    ]
    return table(["own / rival", *controls], rows)


def parts_table(parts: Mapping[str, Any]) -> str:
    """Return the IoU with the named part and with the other one."""
    rows = [[name, _plain(entry["named"]), _plain(entry["other"])] for name, entry in parts.items()]
    return table(["reference", "IoU with the named part", "IoU with the other"], rows)


def ablation_table(ablations: Mapping[str, Any]) -> str:
    """Return the mean IoU of every variant of the pipeline."""
    columns = list(next(iter(ablations.values())))
    rows = [[name, *(_plain(row[column]) for column in columns)] for name, row in ablations.items()]
    return table(["variant", *columns], rows)


def report(result: Mapping[str, Any]) -> str:
    """Return all tables of one result (a seed, or the median over seeds) in Markdown."""
    unet = result.get("unet")
    parts = [
        "IoU, recall, precision" + (" (IoU of the U-Net)" if unet else ""),
        quality_table(result["levels"], unet),
    ]
    if any(result["planned"].values()):  # the hand has no planner
        parts += ["IoU on the planner's poses alone", planned_table(result["planned"])]
    if "obedience" in result:
        parts += ["Obedience", obedience_table(result["obedience"])]
        parts += [
            "Pairs: own IoU, rival taken, rival's IoU by its reference",
            pairs_table(result["obedience"]),
        ]
    if "parts" in result:
        parts += ["Part references, clean", parts_table(result["parts"])]
    if "ablations" in result:
        parts += ["Variants, mean IoU", ablation_table(result["ablations"])]
    return "\n\n".join(parts) + "\n"


def picture(maskers: Mapping[str, Any], data: Data, levels: Sequence[str], path: Path) -> None:
    """Save a sheet: per domain a pair of rows (frames, masked frames), four frames of each level."""
    rows = []
    for domain, masker in maskers.items():
        shown = np.concatenate([data[domain, level].pixels[:4] for level in levels])
        masked = shown * run_masker(masker, shown)[..., None]
        rows += [np.concatenate([_sized(frame) for frame in frames], 1) for frames in (shown, masked)]
    Image.fromarray(np.concatenate(rows)).save(path)


def _sized(frame: np.ndarray) -> np.ndarray:
    """Return a frame uint8 (H, H, 3) at the size of most: (84, 84, 3)."""
    return np.asarray(Image.fromarray(frame).resize((_SHOWN, _SHOWN), Image.Resampling.BOX))


def rival_picture(maskers: Mapping[str, Any], pairs: Mapping[str, np.ndarray], path: Path) -> None:
    """Save a sheet: per pair a row of frames with two objects, the own masked, the rival masked.

    Args:
        maskers: domain -> masker.
        pairs: ``own/rival`` -> frames uint8 (N, 84, 84, 3).
        path: the picture.
    """
    rows = []
    for pair, frames in pairs.items():
        shown = frames[:3]
        triple = [shown, *(shown * run_masker(maskers[name], shown)[..., None] for name in pair.split("/"))]
        rows.append(np.concatenate([image for group in triple for image in group], 1))
    Image.fromarray(np.concatenate(rows)).save(path)
