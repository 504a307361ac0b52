"""Mask quality and obedience of a masker, per domain and benchmark level.

    SAMG_DATA=... python -m benchmarks.masks --masker tiny --frames 24 --out runs/masks

The frames come from environments with the simulator's exact foreground; a third of the poses comes from
noise, the others are like those of trained policies; pretraining uses other seeds. Controls ask whether the
masker listens: another domain's agent in the picture, the wrong reference, random points, no points.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("MUJOCO_GL", "egl")

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from common.errors import run_script
from common.files import read_json, write_json
from common.paths import PROJECT_ROOT, output_path
from common.seeding import counter_rng
from envs import make_env
from envs.pretraining_frames import POSE_TASKS, poses
from evaluation.mask_quality import frame_quality
from samg import Reference, SamGMasker, build_masker
from samg.segment import segment

DOMAINS = tuple(POSE_TASKS)
LEVELS = {
    "clean": "train",
    "color_hard": "color_hard",
    "video_easy": "video_easy",
    "video_hard": "video_hard",
}
RIVAL_STEPS = (1, 3)  # each domain meets the next and the next but two
ABLATIONS: dict[str, dict[str, Any]] = {
    "one pass": {"passes": 1},
    "two passes": {"passes": 2},
    "equal mask weights": {"persam": False},
    "no extra points": {"extra_points": False},
    "dino-like map alone": {"encoders": ["dino"]},
    "sam-like map alone": {"encoders": ["sam"]},
    "map as mask prompt": {"map_prompt": True},
}
Frames = tuple[np.ndarray, np.ndarray]


def collect(domain: str, level: str, count: int, seed: int, data_dir: str | None, source: str) -> Frames:
    """Render frames uint8 (N, 84, 84, 3) and foreground bool (N, 84, 84); a new scene every 3 frames."""
    from dm_control import suite

    task = POSE_TASKS[domain]
    env: Any = make_env(task, level, source, data_dir, seed=seed, foreground=True)
    rng = counter_rng(seed, f"benchmark/{domain}/{level}")
    name = domain, {"ball_in_cup": "catch"}.get(domain, task.split("_")[-1])
    stream = poses(domain, suite.load(*name, task_kwargs={"random": seed + 7}), rng)
    frames: list[np.ndarray] = []
    masks: list[np.ndarray] = []
    tried = 0
    while len(frames) < count and tried < 20 * count:
        if tried % 3 == 0:
            env.episode = tried // 3
            env.reset(seed=seed * 1000 + tried)
        tried += 1
        env.data.qpos[:] = next(stream)
        env.step(np.zeros(env.action_space.shape, np.float32))
        observation, info = env.observe()
        if info["foreground"].sum() >= 12:
            frames.append(observation["pixels"])
            masks.append(info["foreground"])
    env.close()
    return np.stack(frames), np.stack(masks)


def reference(domain: str, part: int | None = None) -> Reference:
    """Load a domain's shipped reference; ``part`` makes one of its part masks the target."""
    folder = PROJECT_ROOT / "reference_images"
    parts = sorted(folder.glob(f"{domain}_masked_0_*.png"))
    if part is not None:
        return Reference.load(folder / f"{domain}_0.png", parts[part])
    points = read_json(folder / "points.json")[domain]
    return Reference.load(folder / f"{domain}_0.png", folder / f"{domain}_masked_0.png", points, parts)


def run_masker(masker: Any, frames: np.ndarray) -> np.ndarray:
    """Return the masks, bool (N, H, W)."""
    found: np.ndarray = masker.mask(torch.from_numpy(frames)).numpy()
    return found


def summary(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Mean IoU, recall and precision, 10th percentile of IoU, share of frames below .5."""
    values = np.asarray([frame_quality(a, b) for a, b in zip(found, truth, strict=True)])
    return {
        "iou": float(values[:, 0].mean()),
        "recall": float(np.nanmean(values[:, 1])),
        "precision": float(np.nanmean(values[:, 2])),
        "p10": float(np.percentile(values[:, 0], 10)),
        "below_half": float((values[:, 0] < 0.5).mean()),
    }


def paste(own: Frames, rival: Frames, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Paste rivals beside, in front of and behind the own agents in turn.

    Returns:
        Frames, the own and the rival's visible pixels; frames that hide nearly all of one are left out.
    """
    rng = counter_rng(seed, "paste")
    frames, mine, theirs = [], [], []
    for index in range(len(own[0])):
        frame, mask = own[0][index].copy(), own[1][index]
        other, shape = rival[0][index % len(rival[0])], rival[1][index % len(rival[0])]
        centre, middle = (np.argwhere(m).mean(0)[1] for m in (mask, shape))
        side = 26 if centre < 42 else -26
        shift = round(centre - middle) + side if index % 3 == 0 else int(rng.integers(-8, 9))
        other, shape = np.roll(other, shift, 1), np.roll(shape, shift, 1)
        edge = np.arange(84) - shift
        shape = shape & ((edge >= 0) & (edge < 84))
        if index % 3 == 2:
            shape = shape & ~mask
        frame[shape] = other[shape]
        if (mask & ~shape).sum() >= 12 and shape.sum() >= 12:
            frames.append(frame)
            mine.append(mask & ~shape)
            theirs.append(shape)
    return np.stack(frames), np.stack(mine), np.stack(theirs)


def share(found: np.ndarray, region: np.ndarray) -> float:
    """Mean share of a region that masks take."""
    return float(np.mean([(f & r).sum() / r.sum() for f, r in zip(found, region, strict=True)]))


def iou(found: np.ndarray, truth: np.ndarray) -> float:
    """Mean IoU."""
    return summary(found, truth)["iou"]


def unprompted(masker: SamGMasker, frames: np.ndarray, mode: str, seed: int = 0) -> np.ndarray:
    """Masks with random instead of matched points, or with no points (one pass)."""
    with torch.inference_mode():
        embedding = masker.networks.encode(torch.from_numpy(frames)).embedding
        n, rows = len(frames), len(next(iter(masker.fit.targets.values())))
        if mode == "random":
            noise = torch.rand(n, rows, 84, 84, generator=torch.Generator().manual_seed(seed))
            masks: Tensor = segment(masker.networks, embedding, noise, masker.fit.mask_weights, masker.rules)[
                -1
            ].masks
            return masks.numpy()
        none = torch.full((n, 1), -1)
        output = masker.networks.decode(embedding, (84, 84), torch.zeros(n, 1, 2), none)
        return (output.logits * masker.fit.mask_weights[:, None, None]).sum(1).numpy() > 0


def obedience(maskers: dict[str, Any], data: dict[tuple[str, str], Frames], level: str) -> dict[str, Any]:
    """Measure every control of one level; pairs are ``own/rival``."""
    pairs: dict[str, Any] = {}
    for number, own in enumerate(DOMAINS):
        for step in RIVAL_STEPS:
            rival = DOMAINS[(number + step) % len(DOMAINS)]
            frames, mine, theirs = paste(data[own, level], data[rival, "clean"], seed=number)
            found = run_masker(maskers[own], frames)
            asked = run_masker(maskers[rival], frames)
            entry = {
                "own_iou": iou(found, mine),
                "rival_taken": share(found, theirs),
                "rival_iou_by_its_reference": iou(asked, theirs),
                "own_taken_by_rival_reference": share(asked, mine),
            }
            if isinstance(maskers[own], SamGMasker):
                entry["random_points_iou"] = iou(unprompted(maskers[own], frames, "random"), mine)
                entry["no_points_iou"] = iou(unprompted(maskers[own], frames, "none"), mine)
            absent = run_masker(maskers[rival], data[own, level][0])
            entry["absent_reference_taken"] = share(absent, data[own, level][1])
            entry["absent_reference_empty"] = float((~absent.reshape(len(absent), -1).any(1)).mean())
            pairs[f"{own}/{rival}"] = entry
    keys = next(iter(pairs.values())).keys()
    return {"mean": {key: float(np.mean([p[key] for p in pairs.values()])) for key in keys}, "pairs": pairs}


def parts(masker_of: Any, data: dict[tuple[str, str], Frames]) -> dict[str, float]:
    """Mean overlap of the two part references' masks of divided objects; obedient ones hardly overlap."""
    results = {}
    for domain in ("ball_in_cup", "finger"):
        frames, truth = data[domain, "clean"]
        both = [run_masker(masker_of(reference(domain, part)), frames) for part in (0, 1)]
        results[f"{domain} overlap"] = iou(both[0], both[1])
        results[f"{domain} union"] = iou(both[0] | both[1], truth)
    return results


def map_alone(masker: SamGMasker, frames: np.ndarray) -> np.ndarray:
    """Threshold the dino-like map where the networks say object and nothing are equally likely."""
    explained = masker.explain(torch.from_numpy(frames))
    offset = float(masker.networks.map_offset.mean()) if hasattr(masker.networks, "map_offset") else 0.5
    return (explained.similarity > offset).numpy()


def picture(maskers: dict[str, Any], data: dict[tuple[str, str], Frames], path: Path) -> None:
    """Save a sheet: per domain a pair of rows (frames, masked frames), four frames of each level."""
    rows = []
    for domain in DOMAINS:
        shown = np.concatenate([data[domain, level][0][:4] for level in LEVELS if (domain, level) in data])
        found = run_masker(maskers[domain], shown)
        rows += [np.concatenate(list(shown), 1), np.concatenate(list(shown * found[..., None]), 1)]
    Image.fromarray(np.concatenate(rows)).save(path)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--masker", default="tiny", help="tiny, paper, groundtruth or none")
    parser.add_argument("--weights", default=None)
    parser.add_argument("--frames", type=int, default=24, help="per domain and level")
    parser.add_argument("--levels", nargs="+", default=list(LEVELS), choices=list(LEVELS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[100])
    parser.add_argument("--source", default="dmcgb", help="dmcgb or procedural")
    parser.add_argument("--data-dir", default=None)
    parser.add_argument("--skip", nargs="*", default=[], choices=["controls", "ablations"])
    parser.add_argument("--out", default="runs/masks", help="folder for masks.json and masks.png")
    return parser.parse_args()


def build(name: str, weights: str | None, ref: Reference, **options: Any) -> Any:
    """Fit a masker to a reference."""
    given: dict[str, Any] = {"weights": weights} if weights else {}
    return build_masker(name, **given, **options).fit(ref)


def one_seed(chosen: argparse.Namespace, seed: int, out: Path) -> dict[str, Any]:
    """Measure everything for one evaluation seed."""
    data = {}
    for domain in DOMAINS:
        for level in chosen.levels:
            cache = out / f"frames-{domain}-{level}-{chosen.source}-{chosen.frames}-s{seed}.npz"
            if not cache.exists():
                made = collect(domain, LEVELS[level], chosen.frames, seed, chosen.data_dir, chosen.source)
                np.savez(cache, frames=made[0], masks=made[1])
            with np.load(cache) as stored:
                data[domain, level] = stored["frames"], stored["masks"]
    maskers = {domain: build(chosen.masker, chosen.weights, reference(domain)) for domain in DOMAINS}
    table = {
        level: {d: summary(run_masker(maskers[d], data[d, level][0]), data[d, level][1]) for d in DOMAINS}
        for level in chosen.levels
    }
    result: dict[str, Any] = {"seed": seed, "levels": table}
    if "controls" not in chosen.skip:
        checked = [level for level in ("clean", "video_hard") if level in chosen.levels]
        result["obedience"] = {level: obedience(maskers, data, level) for level in checked}
        if isinstance(maskers["walker"], SamGMasker):
            result["parts"] = parts(lambda ref: build(chosen.masker, chosen.weights, ref), data)
    if "ablations" not in chosen.skip and isinstance(maskers["walker"], SamGMasker):
        result["ablations"] = ablate(chosen, maskers, data)
    picture(maskers, data, out / f"masks-s{seed}.png")
    return result


def ablate(
    chosen: argparse.Namespace, maskers: dict[str, Any], data: dict[tuple[str, str], Frames]
) -> dict[str, Any]:
    """Mean IoU of variants of the pipeline on each level."""
    results = {
        "map thresholded, no decoder": {
            level: float(
                np.mean([iou(map_alone(maskers[d], data[d, level][0]), data[d, level][1]) for d in DOMAINS])
            )
            for level in chosen.levels
        }
    }
    for name, options in ABLATIONS.items():
        fitted = {d: build(chosen.masker, chosen.weights, reference(d), **options) for d in DOMAINS}
        results[name] = {
            level: float(
                np.mean([iou(run_masker(fitted[d], data[d, level][0]), data[d, level][1]) for d in DOMAINS])
            )
            for level in chosen.levels
        }
    return results


def show(result: dict[str, Any]) -> None:
    """Print one seed's tables in Markdown."""
    levels = result["levels"]
    print(f"\nseed {result['seed']}: IoU / recall / precision / 10th percentile / share below .5")
    print("| domain | " + " | ".join(levels) + " |\n|---|" + "---|" * len(levels))
    for domain in DOMAINS:
        cells = [" ".join(f"{v:.3f}" for v in levels[level][domain].values()) for level in levels]
        print(f"| {domain} | " + " | ".join(cells) + " |")
    means = [[np.mean([levels[k][d][m] for d in DOMAINS]) for m in levels[k][DOMAINS[0]]] for k in levels]
    print("| MEAN | " + " | ".join(" ".join(f"{v:.3f}" for v in row) for row in means) + " |")
    for level, controls in result.get("obedience", {}).items():
        print(f"\nobedience, {level}: " + "  ".join(f"{k} {v:.3f}" for k, v in controls["mean"].items()))
        for pair, entry in controls["pairs"].items():
            print(f"  {pair}: " + "  ".join(f"{k} {v:.2f}" for k, v in entry.items()))
    for key in ("parts", "ablations"):
        for name, value in result.get(key, {}).items():
            print(f"{key}: {name}: {value}")


def main() -> None:
    """Measure, print, save."""
    chosen = parse()
    out = output_path(chosen.out)
    out.mkdir(parents=True, exist_ok=True)
    results = []
    for seed in chosen.seeds:
        results.append(one_seed(chosen, seed, out))
        show(results[-1])
    write_json(out / "masks.json", {"masker": chosen.masker, "source": chosen.source, "seeds": results})


if __name__ == "__main__":
    run_script(main)
