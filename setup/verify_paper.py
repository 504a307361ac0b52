"""Run the released weights once on this machine and write down what they do; needs network or local weights.

    python setup/verify_paper.py                                    # about 15 minutes on 2 CPU cores
    python setup/verify_paper.py --weights ~/weights --device cuda --source dmcgb
    python setup/verify_paper.py --random-weights --frames 1 --tasks cup_catch --levels train

Each of the seven references is fitted. Printed per task: how many distinct prompt sets fitting met, the IoU
with the simulator's masks on frames of random actions, per level, and that of float32 with bfloat16 encoders;
the same and more goes to a JSON file. With --random-weights the numbers mean nothing, the script is tried.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch  # before the simulators

import envs
from common.devices import resolve_device
from common.errors import run_script
from common.files import write_json
from common.paths import PROJECT_ROOT, output_path
from envs.levels import LEVELS
from evaluation.cli import whole_number
from evaluation.mask_quality import frame_quality
from samg import Reference, SamGMasker, SamgOptions
from samg.build import choose_rules
from samg.fitting import fit_reference
from samg.masker import Source
from samg.numerics import MaskerNumerics
from samg.paper import PaperNetworks
from samg.weights import load_paper_networks, random_paper_networks
from training.config import compose_config

TASKS = tuple(task for task in envs.SAMG8 if task != "walker_stand")  # one per reference
REFERENCE_KEYS = ("original_image", "masked_image", "extra_points_list", "extra_masked_images_list")
EVERY = 20  # agent steps between two compared frames


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--weights", nargs="*", help="folder or files, instead of cache and download")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS, metavar="TASK")
    parser.add_argument("--levels", nargs="+", default=list(LEVELS), choices=list(LEVELS), metavar="LEVEL")
    parser.add_argument("--source", default="procedural", choices=("procedural", "dmcgb"))
    parser.add_argument("--frames", type=whole_number(1), default=4, help="frames per task and level")
    parser.add_argument("--random-weights", action="store_true")
    parser.add_argument("--out", help="default: docs/paper_weights.json; under runs/ with random weights")
    return parser.parse_args(arguments)


def collect(task: str, level: str, source: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return frames uint8 (N, H, W, 3) of random actions and their foregrounds bool (N, H, W)."""
    env = envs.make_env(task, level, source=source, foreground=True)
    generator, pairs = np.random.default_rng(0), []
    with contextlib.closing(env):
        obs, info = env.reset(seed=0)
        for step in range(1 + EVERY * (count - 1)):
            if step % EVERY == 0:
                pairs.append((obs["pixels"].copy(), info["foreground"].copy()))
            action = generator.uniform(env.action_space.low, env.action_space.high)
            obs, _, _, _, info = env.step(action.astype(np.float32))
    frames, foregrounds = zip(*pairs, strict=True)
    return np.stack(frames), np.stack(foregrounds)


def mean_iou(masks: np.ndarray, others: np.ndarray) -> float:
    """Return the mean IoU of two bool (N, H, W) arrays."""
    return float(np.mean([frame_quality(a, b)[0] for a, b in zip(masks, others, strict=True)]))


def verify_task(task: str, networks: PaperNetworks, options: argparse.Namespace) -> dict[str, Any]:
    """Fit one task's reference and compare its masks at every level."""
    config = compose_config([f"task={task}", "masker=paper"])
    reference = Reference.load(**{key: config[key] for key in REFERENCE_KEYS})
    device, rules, settings = networks.device, choose_rules(compat=False), SamgOptions(batch_size=4)
    started = time.perf_counter()
    fit = fit_reference(networks, reference, rules, settings, device)
    result: dict[str, Any] = {"fit_seconds": round(time.perf_counter() - started, 2), **fit.report}
    result |= {"mask_weights": fit.mask_weights.tolist(), "iou": {}, "empty_share": {}}
    low = PaperNetworks(networks.sam, networks.dino, networks.encoders)
    low.tune(MaskerNumerics(precision="bfloat16"), device)
    rest = (reference, fit, rules, settings, Source("paper", ""), device)
    maskers, agreement = [SamGMasker(each, *rest) for each in (networks, low)], []
    for level in options.levels:
        frames, foregrounds = collect(task, level, options.source, options.frames)
        exact, coarse = (masker.mask(torch.from_numpy(frames)).cpu().numpy() for masker in maskers)
        result["iou"][level] = mean_iou(exact, foregrounds)
        result["empty_share"][level] = float((~exact.any((1, 2))).mean())
        agreement.append(mean_iou(coarse, exact))
    return {**result, "bfloat16_iou": float(np.mean(agreement))}


def main(arguments: Sequence[str] | None = None) -> None:
    """Verify every task, print a table and write the JSON file."""
    options = parse(arguments)
    device = resolve_device(options.device)
    if options.random_weights:
        networks, record = random_paper_networks(device=device), None
    else:
        networks, record = load_paper_networks(options.weights or None, device)
    print(f"{'task':20}{'point sets':>12}" + "".join(f"{head:>13}" for head in (*options.levels, "bfloat16")))
    tasks = {}
    for task in options.tasks:
        tasks[task] = found = verify_task(task, networks, options)
        row = "".join(f"{value:13.3f}" for value in (*found["iou"].values(), found["bfloat16_iou"]))
        print(f"{task:20}{found['point_sets']:12}{row}", flush=True)
    usual = PROJECT_ROOT / ("runs" if options.random_weights else "docs") / "paper_weights.json"
    out = output_path(options.out or usual)
    about = {"torch": torch.__version__, "device": str(device), "source": options.source}
    write_json(out, {"weights": record and record.to_dict(), **about, "tasks": tasks})
    print(f"Written: {out}")


if __name__ == "__main__":
    run_script(main)
