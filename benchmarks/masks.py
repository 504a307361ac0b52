"""Mask quality and obedience of a masker, per domain and benchmark level.

    SAMG_DATA=... python -m benchmarks.masks --masker tiny --seeds 100 101 102 --out runs/masks

The frames come from environments with the simulator's exact foreground; pretraining uses other seeds. A third
of the poses is a planner's that solves the task, the others come from noise or imitate trained policies.
Controls ask whether the masker listens: another domain's agent in the picture, the wrong reference, random
points, no points, one part of an object. `masks.json`, `masks.md` and pictures are written per run.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("MUJOCO_GL", "egl")


from benchmarks.mask_controls import (
    DIVIDED,
    Data,
    ablate,
    iou,
    obedience,
    parts,
    rival_pairs,
    run_masker,
    summary,
)
from benchmarks.mask_frames import DOMAINS, HAND_DOMAINS, LEVELS, frames_of, paste
from benchmarks.mask_tables import median, picture, report, rival_picture
from benchmarks.unet import load_unet, predict
from common.errors import run_script
from common.files import read_json, write_bytes, write_json
from common.paths import PROJECT_ROOT, output_path
from samg import Reference, SamGMasker, build_masker

_REFERENCES = PROJECT_ROOT / "reference_images"


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--masker", default="tiny", help="tiny, paper, groundtruth or none")
    parser.add_argument("--weights", default=None)
    parser.add_argument("--frames", type=int, default=24, help="per domain and level")
    parser.add_argument("--levels", nargs="+", default=list(LEVELS), choices=list(LEVELS))
    known = [*DOMAINS, *HAND_DOMAINS]
    parser.add_argument(
        "--domains", nargs="+", default=list(DOMAINS), choices=known, metavar="DOMAIN", help=", ".join(known)
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[100, 101, 102])
    parser.add_argument("--source", default="dmcgb", help="dmcgb or procedural")
    parser.add_argument("--data-dir", default=None)
    parser.add_argument(
        "--unet", default=None, metavar="FILE", help="weights of benchmarks.unet to compare with"
    )
    parser.add_argument("--skip", nargs="*", default=[], choices=["controls", "ablations"])
    parser.add_argument("--out", default="runs/masks", help="folder for masks.json, masks.md and pictures")
    chosen = parser.parse_args()
    if set(chosen.domains) != set(DOMAINS):
        chosen.skip = ["controls", "ablations"]  # each domain's rivals are among the seven
    return chosen


def reference(domain: str) -> Reference:
    """Load a domain's shipped reference."""
    masks = sorted(_REFERENCES.glob(f"{domain}_masked_0_*.png"))
    points = read_json(_REFERENCES / "points.json")[domain]
    return Reference.load(
        _REFERENCES / f"{domain}_0.png", _REFERENCES / f"{domain}_masked_0.png", points, masks
    )


def part_references(domain: str) -> list[Reference]:
    """Load references in which one part of a divided object is the target."""
    masks = sorted(_REFERENCES.glob(f"{domain}_masked_0_*.png"))
    return [Reference.load(_REFERENCES / f"{domain}_0.png", mask) for mask in masks]


class Bench:
    """One masker under test.

    Args:
        chosen: the command line.
        out: where results and cached frames go.
    """

    def __init__(self, chosen: argparse.Namespace, out: Path) -> None:
        self.chosen, self.out = chosen, out
        settings: dict[str, Any] = {"weights": chosen.weights} if chosen.weights else {}
        self.settings = settings
        self.maskers = {domain: self.fit(reference(domain)) for domain in chosen.domains}
        self.unet = None
        if chosen.unet:
            network = load_unet(chosen.unet)
            self.unet = lambda frames: predict(network, frames)

    def fit(self, target: Reference, **options: Any) -> Any:
        """Fit the masker, or a variant of it, to a reference."""
        return build_masker(self.chosen.masker, **self.settings, **options).fit(target)

    def measure(self, seed: int) -> dict[str, Any]:
        """Measure everything for one evaluation seed."""
        chosen, levels = self.chosen, list(self.chosen.levels)
        data: Data = {
            (domain, level): frames_of(
                domain, level, chosen.frames, seed, chosen.source, chosen.data_dir, self.out
            )
            for domain in chosen.domains
            for level in levels
        }
        result = self._quality(data, levels)
        promptable = isinstance(next(iter(self.maskers.values())), SamGMasker)
        if "controls" not in chosen.skip:
            checked = [level for level in ("clean", "video_hard") if level in levels]
            result["obedience"] = {c: obedience(self.maskers, data, c, self.unet) for c in checked}
            if promptable and "clean" in levels:
                asked = {domain: part_references(domain) for domain in DIVIDED}
                result["parts"] = parts(self.fit, asked, data)
            if "video_hard" in levels:
                self._rival_sheet(data, seed)
        if "ablations" not in chosen.skip and promptable:
            result["ablations"] = ablate(
                self.maskers, lambda domain, **o: self.fit(reference(domain), **o), data, levels
            )
        picture(self.maskers, data, levels, self.out / f"masks-s{seed}.png")
        return result

    def _quality(self, data: Data, levels: list[str]) -> dict[str, Any]:
        result: dict[str, Any] = {"levels": {}, "planned": {}}
        for level in levels:
            result["levels"][level], result["planned"][level] = {}, {}
            for domain, masker in self.maskers.items():
                frames = data[domain, level]
                found = run_masker(masker, frames.pixels)
                result["levels"][level][domain] = summary(found, frames.masks)
                if frames.planned.any():
                    result["planned"][level][domain] = iou(
                        found[frames.planned], frames.masks[frames.planned]
                    )
        if self.unet is not None:
            scores = {key: summary(self.unet(frames.pixels), frames.masks) for key, frames in data.items()}
            result["unet"] = {level: {d: scores[d, level] for d in self.maskers} for level in levels}
        return result

    def _rival_sheet(self, data: Data, seed: int) -> None:
        sheets = {
            f"{own}/{rival}": paste(data[own, "video_hard"], data[rival, "clean"], DOMAINS.index(own))[0]
            for own, rival in rival_pairs()
        }
        rival_picture(self.maskers, sheets, self.out / f"rivals-s{seed}.png")


def main() -> None:
    """Measure, print, save."""
    chosen = parse()
    out = output_path(chosen.out)
    out.mkdir(parents=True, exist_ok=True)
    bench, seeds = Bench(chosen, out), {}
    for seed in chosen.seeds:
        seeds[str(seed)] = bench.measure(seed)
        text = report(seeds[str(seed)])
        print(f"\nseed {seed}\n\n{text}", flush=True)
    middle = median(list(seeds.values()))
    info = next(iter(bench.maskers.values())).info
    record = {
        "masker": info.variant,
        "method": info.method,
        "weights": info.weights,
        "numerics": info.numerics,
        "source": chosen.source,
        "frames": chosen.frames,
        "seeds": seeds,
        "median": middle,
    }
    write_json(out / "masks.json", record)
    text = report(middle)
    write_bytes(out / "masks.md", text.encode())
    print(f"\nmedian of {len(seeds)} seeds\n\n{text}", flush=True)


if __name__ == "__main__":
    run_script(main)
