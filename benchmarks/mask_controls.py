"""Does the masker listen? Controls that a masker which ignores its reference cannot pass, and ablations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.mask_frames import DOMAINS, Frames, paste
from evaluation.mask_quality import frame_quality
from samg import Reference, SamGMasker
from samg.segment import segment

RIVAL_STEPS = (1, 3)  # each domain meets the next and the next but two
DIVIDED = ("ball_in_cup", "finger")
ABLATIONS: dict[str, dict[str, Any]] = {
    "one pass": {"passes": 1},
    "two passes": {"passes": 2},
    "equal mask weights": {"persam": False},
    "no extra points": {"extra_points": False},
    "dino-like map alone": {"encoders": ["dino"]},
    "sam-like map alone": {"encoders": ["sam"]},
    "no presence test": {"presence": None},
    "map as mask prompt": {"map_prompt": True},
}
Data = Mapping[tuple[str, str], Frames]
Predict = Callable[[np.ndarray], np.ndarray]


def run_masker(masker: Any, frames: np.ndarray) -> np.ndarray:
    """Return the masks bool (N, H, W) of frames uint8 (N, H, W, 3)."""
    found: np.ndarray = masker.mask(torch.from_numpy(frames)).numpy()
    return found


def summary(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Mean IoU, recall and precision, 10th percentile of IoU, share of frames below .5."""
    values = np.asarray([frame_quality(a, b) for a, b in zip(found, truth, strict=True)])
    return {
        "iou": float(values[:, 0].mean()),
        "recall": float(values[:, 1].mean()),
        "precision": float(values[:, 2].mean()),
        "p10": float(np.percentile(values[:, 0], 10)),
        "below_half": float((values[:, 0] < 0.5).mean()),
    }


def share(found: np.ndarray, region: np.ndarray) -> float:
    """Mean share of a region that masks take."""
    return float(np.mean([(f & r).sum() / r.sum() for f, r in zip(found, region, strict=True)]))


def iou(found: np.ndarray, truth: np.ndarray) -> float:
    """Mean IoU."""
    return summary(found, truth)["iou"]


def unprompted(masker: SamGMasker, frames: np.ndarray, mode: str, seed: int = 0) -> np.ndarray:
    """Masks with ``random`` instead of matched points, or with no points at all (one pass)."""
    with torch.inference_mode():
        embedding = masker.networks.encode(torch.from_numpy(frames)).embedding
        n, rows = len(frames), len(next(iter(masker.fit.targets.values())))
        weights = masker.fit.mask_weights
        if mode == "random":
            noise = torch.rand(n, rows, 84, 84, generator=torch.Generator().manual_seed(seed))
            masks: Tensor = segment(masker.networks, embedding, noise, weights, masker.rules)[-1].masks
            return masks.numpy()
        none = torch.full((n, 1), -1)
        output = masker.networks.decode(embedding, (84, 84), torch.zeros(n, 1, 2), none)
        return (output.logits * weights[:, None, None]).sum(1).numpy() > 0


def rival_pairs() -> list[tuple[str, str]]:
    """Return every domain with each of its rivals."""
    count = len(DOMAINS)
    return [(own, DOMAINS[(n + step) % count]) for n, own in enumerate(DOMAINS) for step in RIVAL_STEPS]


def obedience(maskers: Mapping[str, Any], data: Data, level: str, unet: Predict | None) -> dict[str, Any]:
    """Measure every control of one level: ``mean``, ``worst`` and ``pairs`` (``own/rival``)."""
    pairs: dict[str, Any] = {}
    for own, rival in rival_pairs():
        frames, mine, theirs = paste(data[own, level], data[rival, "clean"], seed=DOMAINS.index(own))
        found, asked = run_masker(maskers[own], frames), run_masker(maskers[rival], frames)
        entry = {
            "own_iou": iou(found, mine),
            "rival_taken": share(found, theirs),
            "rival_iou_by_its_reference": iou(asked, theirs),
            "own_taken_by_rival_reference": share(asked, mine),
        }
        if isinstance(maskers[own], SamGMasker):
            entry["random_points_iou"] = iou(unprompted(maskers[own], frames, "random"), mine)
            entry["no_points_iou"] = iou(unprompted(maskers[own], frames, "none"), mine)
        if unet is not None:
            entry["unet_own_iou"] = iou(unet(frames), mine)
        alone = data[own, level]
        absent = run_masker(maskers[rival], alone.pixels)
        entry["absent_reference_taken"] = share(absent, alone.masks)
        entry["absent_reference_empty"] = float((~absent.reshape(len(absent), -1).any(1)).mean())
        pairs[f"{own}/{rival}"] = entry
    columns = {key: [pair[key] for pair in pairs.values()] for key in next(iter(pairs.values()))}
    worst = {
        "own_iou": min(columns["own_iou"]),
        "rival_taken": max(columns["rival_taken"]),
        "absent_reference_taken": max(columns["absent_reference_taken"]),
    }
    means = {key: float(np.mean(values)) for key, values in columns.items()}
    return {"mean": means, "worst": worst, "pairs": pairs}


def parts(fit: Callable[[Reference], Any], references: Mapping[str, list[Reference]], data: Data) -> Any:
    """Ask for each part of the divided objects: IoU with the named part and with the other one, clean frames.

    Args:
        fit: makes a masker of a reference.
        references: domain -> the references of its parts.
        data: the frames.
    """
    results: dict[str, Any] = {}
    for domain, asked in references.items():
        frames = data[domain, "clean"]
        both_visible = (frames.parts.sum((2, 3)) >= 8).all(1)
        pixels, truth = frames.pixels[both_visible], frames.parts[both_visible]
        for number, reference in enumerate(asked):
            found = run_masker(fit(reference), pixels)
            results[f"{domain} part {number + 1}"] = {
                "named": iou(found, truth[:, number]),
                "other": iou(found, truth[:, 1 - number]),
            }
    return results


def map_alone(masker: SamGMasker, frames: np.ndarray) -> np.ndarray:
    """Threshold the mean map where the networks say object and nothing are equally likely."""
    explained = masker.explain(torch.from_numpy(frames))
    offset = float(masker.networks.map_offset.mean()) if hasattr(masker.networks, "map_offset") else 0.5
    return (explained.similarity > offset).numpy()


def ablate(
    default: Mapping[str, Any], fit: Callable[..., Any], data: Data, levels: list[str]
) -> dict[str, Any]:
    """Mean IoU of variants of the pipeline on each level, and beside a rival (``.../rival``).

    Args:
        default: domain -> the fitted default masker.
        fit: ``fit(domain, **options)`` makes a variant.
        data: the frames.
        levels: which levels.
    """
    results = {
        "map thresholded, no decoder": _row({d: _Thresholded(default[d]) for d in DOMAINS}, data, levels)
    }
    for name, options in ABLATIONS.items():
        results[name] = _row({d: fit(d, **options) for d in DOMAINS}, data, levels)
    return results


class _Thresholded:
    """Wears the masker's interface around ``map_alone``."""

    def __init__(self, masker: SamGMasker) -> None:
        self.masker = masker

    def mask(self, frames: Tensor) -> Tensor:
        return torch.from_numpy(map_alone(self.masker, frames.numpy()))


def _row(maskers: Mapping[str, Any], data: Data, levels: list[str]) -> dict[str, float]:
    row = {
        level: float(
            np.mean(
                [iou(run_masker(maskers[d], data[d, level].pixels), data[d, level].masks) for d in DOMAINS]
            )
        )
        for level in levels
    }
    for level in ("clean", "video_hard"):
        if level in levels:
            values = []
            for own, rival in rival_pairs():
                frames, mine, _ = paste(data[own, level], data[rival, "clean"], seed=DOMAINS.index(own))
                values.append(iou(run_masker(maskers[own], frames), mine))
            row[f"{level}, rival"] = float(np.mean(values))
    return row
