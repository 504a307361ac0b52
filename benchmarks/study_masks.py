"""What a study can say without training: masks of every setting, measured against the simulator's own."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.mask_frames import Frames, frames_of
from benchmarks.mask_tables import table
from common.seeding import counter_rng
from evaluation.mask_quality import frame_quality
from evaluation.masker_choice import WITHOUT_REFERENCE
from samg import build_masker

MEASURES = ("iou", "recall", "precision")
RESAMPLES = 2000
Values = Mapping[str, np.ndarray]  # level -> float (N, 3) of MEASURES


@dataclass(frozen=True)
class Measured:
    """One setting on the frames of one domain.

    Attributes:
        fingerprint: of the fitted masker.
        values: level -> float (N, 3) of ``MEASURES``.
        empty: level -> share of empty masks.
        seconds: of CPU per frame.
    """

    fingerprint: str
    values: Values
    empty: Mapping[str, float]
    seconds: float

    def cells(self) -> dict[str, dict[str, float]]:
        """Return level -> measure -> mean, as JSON values."""
        return {
            level: {**dict(zip(MEASURES, map(float, found.mean(0)), strict=True)), "empty": self.empty[level]}
            for level, found in self.values.items()
        }


@dataclass(frozen=True)
class Plan:
    """On which frames to measure.

    Attributes:
        domains: of the shipped references.
        levels: of the environment.
        frames: per domain and level.
        seed: of poses, colours and clips.
        source: ``dmcgb`` or ``procedural``.
        data_dir: where the DMC-GB files are; None asks the environment.
        cache: folder of rendered frames.
        device: where maskers run.
    """

    domains: Sequence[str]
    levels: Sequence[str]
    frames: int
    seed: int
    source: str
    data_dir: str | None
    cache: Path
    device: str = "cpu"

    def load(self, domain: str) -> dict[str, Frames]:
        """Return level -> frames of a domain, rendered or read."""
        return {
            level: frames_of(domain, level, self.frames, self.seed, self.source, self.data_dir, self.cache)
            for level in self.levels
        }


def measure_masker(masker: Any, frames: Mapping[str, Frames]) -> Measured:
    """Measure a fitted masker on the frames, by level, of its domain."""
    values, empty, seconds, count = {}, {}, 0.0, 0
    for level, some in frames.items():
        start = time.process_time()
        found = (masker.mask(torch.from_numpy(some.pixels)) >= 0.5).numpy()
        seconds, count = seconds + time.process_time() - start, count + len(found)
        values[level] = np.array([frame_quality(a, b) for a, b in zip(found, some.masks, strict=True)])
        empty[level] = float((~found.reshape(len(found), -1).any(1)).mean())
    return Measured(masker.info.fingerprint, values, empty, seconds / count)


def difference(
    own: Mapping[str, Measured], other: Mapping[str, Measured], name: str
) -> tuple[float, float, float]:
    """Compare the IoU of two settings on the same frames.

    Args:
        own, other: domain -> what was measured.
        name: of the stream of random numbers.

    Returns:
        The mean difference, every domain and level counting the same, and the 95 % interval of its bootstrap
        over frames (domains and levels stay as they are: nothing is said of others).
    """
    cells = [
        own[domain].values[level][:, 0] - other[domain].values[level][:, 0]
        for domain in own
        for level in own[domain].values
    ]
    generator, draws = counter_rng(0, f"study/{name}"), np.zeros(RESAMPLES)
    for cell in cells:
        picked = generator.integers(len(cell), size=(RESAMPLES, len(cell)))
        draws += cell[picked].mean(1) / len(cells)
    low, high = np.percentile(draws, (2.5, 97.5))
    return float(np.mean([cell.mean() for cell in cells])), float(low), float(high)


def measure_settings(maskers: Mapping[str, dict[str, Any]], plan: Plan, baseline: str) -> dict[str, Any]:
    """Measure the masks of every setting that has a reference; settings without one are left out.

    Args:
        maskers: setting -> configuration of its masker.
        plan: on what.
        baseline: the setting to compare with.

    Returns:
        JSON values: the plan, and per setting its masker, fingerprints, cells, difference and CPU time.
    """
    from benchmarks.masks import reference

    builders: dict[str, Any] = {}
    for setting, config in maskers.items():
        options = dict(config)
        variant = options.pop("variant")
        if variant not in WITHOUT_REFERENCE:
            builders[setting] = build_masker(variant, plan.device, **options)
    found: dict[str, dict[str, Measured]] = {setting: {} for setting in builders}
    for domain in plan.domains:
        frames = plan.load(domain)
        for setting, builder in builders.items():
            found[setting][domain] = measure_masker(builder.fit(reference(domain)), frames)
        sys.stdout.write(f"{domain} measured\n")
        sys.stdout.flush()
    base = baseline if baseline in found else next(iter(found))
    named = ("domains", "levels", "frames", "seed", "source")
    return {
        **{name: getattr(plan, name) for name in named},
        "variant": maskers[base]["variant"],
        "baseline": base,
        "settings": {
            setting: {
                "masker": maskers[setting],
                "fingerprints": {domain: one.fingerprint for domain, one in by_domain.items()},
                "cells": {domain: one.cells() for domain, one in by_domain.items()},
                "difference": difference(by_domain, found[base], baseline),
                "cpu_ms_per_frame": 1000 * float(np.mean([one.seconds for one in by_domain.values()])),
            }
            for setting, by_domain in found.items()
        },
    }


def masks_report(record: Mapping[str, Any]) -> str:
    """Return the record of ``measure_settings`` and its question as Markdown."""
    domains, levels, base = record["domains"], record["levels"], record["baseline"]

    def mean(setting: Mapping[str, Any], level: str, measure: str) -> float:
        return float(np.mean([setting["cells"][domain][level][measure] for domain in domains]))

    rows, details = [], []
    for name, setting in record["settings"].items():
        change, low, high = setting["difference"]
        compared = "baseline" if name == base else f"{change:+.3f} [{low:+.3f}, {high:+.3f}]"
        cells = [f"{mean(setting, level, 'iou'):.3f}" for level in levels]
        rows.append([name.replace("_", " "), *cells, compared, f"{setting['cpu_ms_per_frame']:.0f}"])
        details.append([name.replace("_", " "), *(_detail(setting, level, mean) for level in levels)])
    own = record["settings"][base]["cells"]
    by_domain = [
        [domain.replace("_", " "), *(f"{own[domain][level]['iou']:.2f}" for level in levels)]
        for domain in domains
    ]
    heads = [level.replace("_", " ") for level in levels]
    parts = (
        f"**{record['question']}** Masker `{record['variant']}`, {record['source']} backgrounds, seed "
        f"{record['seed']}, {record['frames']} pictures of each of {len(domains)} domains per level.",
        "Mean IoU; difference over all levels, 95 % interval over pictures; CPU time per picture.",
        table(["setting", *heads, "difference", "ms"], rows),
        "Recall / precision / share of empty masks.",
        table(["setting", *heads], details),
        f"IoU of `{base}` in each domain.",
        table(["domain", *heads], by_domain),
    )
    return "\n\n".join(parts) + "\n"


def _detail(setting: Mapping[str, Any], level: str, mean: Callable[..., float]) -> str:
    recall, precision, empty = (mean(setting, level, name) for name in ("recall", "precision", "empty"))
    return f"{recall:.2f} / {precision:.2f} / {empty:.0%}"
