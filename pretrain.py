"""Pretrain the embedded `tiny` masker; `python pretrain.py --help` is the manual."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

os.environ.setdefault("MUJOCO_GL", "egl")

from common.devices import resolve_device
from common.errors import ConfigError, run_script
from common.paths import PROJECT_ROOT, output_path
from envs.pretraining_frames import POSE_TASKS, collect_domain
from samg.pretraining.backgrounds import background
from samg.pretraining.composites import Banks
from samg.pretraining.data import FrameBank, build_bank, cached_stack, load_domain, save_domain
from samg.pretraining.export import export_weights
from samg.pretraining.loop import Schedule, Trainer
from samg.pretraining.objects import object_views


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Train the tiny masker on simulator renders with exact masks, self-made backgrounds and "
        "several labelled objects per frame. Interrupted, the same command continues where it stopped."
    )
    parser.add_argument(
        "--minutes", type=float, default=0.0, help="budget of training time (0: --steps decides)"
    )
    parser.add_argument(
        "--steps", type=int, default=0, help="budget in steps (reproducible; 0: --minutes decides)"
    )
    parser.add_argument(
        "--out", default="runs/pretrain", help="folder for data, checkpoint, curves and weights"
    )
    parser.add_argument(
        "--domains", nargs="+", default=list(POSE_TASKS), metavar="DOMAIN", help="what to train on"
    )
    parser.add_argument("--frames", type=int, default=420, help="poses rendered per domain")
    parser.add_argument("--backgrounds", type=int, default=1600, help="background pictures drawn")
    parser.add_argument("--objects", type=int, default=300, help="random objects drawn")
    parser.add_argument("--composites", type=int, default=Schedule.composites, help="pictures per step")
    parser.add_argument("--learning-rate", type=float, default=Schedule.learning_rate)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (0: PyTorch's default)")
    parser.add_argument("--ship", action="store_true", help="replace the weights in samg/weights")
    chosen = parser.parse_args(arguments)
    if chosen.minutes <= 0 and chosen.steps <= 0:
        raise ConfigError("No budget was given.", "Pass --minutes M, or --steps N.")
    return chosen


def say(line: str) -> None:
    """Print a line at once, also into a log file."""
    print(line, flush=True)  # noqa: T201


def collect(chosen: argparse.Namespace, folder: Path) -> FrameBank:
    """Render the domains, or read what an earlier run rendered."""
    collected = {}
    for domain in chosen.domains:
        path = folder / f"{domain}-{chosen.frames}-s{chosen.seed}.npz"
        if not path.exists():
            say(f"Rendering {chosen.frames} poses of {domain} ...")
            save_domain(path, collect_domain(domain, chosen.frames, chosen.seed))
        collected[domain] = load_domain(path)
    return build_bank(collected)


def main(arguments: list[str] | None = None) -> None:
    """Collect, draw, train, export."""
    given = sys.argv[1:] if arguments is None else arguments
    chosen = parse(given)
    device = resolve_device(chosen.device, chosen.threads)
    out, seed = output_path(chosen.out), chosen.seed
    data = out / "data"
    frames = collect(chosen, data)
    say("Drawing backgrounds and objects ...")
    scenes = cached_stack(
        data / f"backgrounds-s{seed}.npz", chosen.backgrounds, lambda i: background(seed, i)
    )
    objects = cached_stack(data / f"objects-s{seed}.npz", chosen.objects, lambda i: object_views(seed, i))
    banks = Banks(frames.to(device), scenes.to(device), objects.to(device))
    schedule = Schedule(
        steps=chosen.steps,
        minutes=chosen.minutes,
        composites=chosen.composites,
        learning_rate=chosen.learning_rate,
        seed=seed,
    )
    trainer = Trainer(banks, schedule, out)
    trainer.run(say)
    made_by = {
        "command": shlex.join(["python", "pretrain.py", *given]),
        "seed": seed,
        "domains": list(frames.domains),
        "steps": trainer.step,
        "minutes": round(trainer.seconds / 60, 1),
        "device": str(device),
    }
    paths = [out / "tiny.safetensors"]
    if chosen.ship:
        paths.append(PROJECT_ROOT / "samg" / "weights" / "tiny.safetensors")
    for path in paths:
        record = export_weights(trainer.networks, path, made_by)
        say(f"{path}: {record['bytes'] / 1e6:.2f} MB, sha256 {record['sha256']}")


if __name__ == "__main__":
    run_script(main)
