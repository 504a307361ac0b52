"""Pretrain VRL3's encoder on an image folder; `python pretrain_encoder.py --help` is the manual."""

from __future__ import annotations

import shlex
import sys
from argparse import Namespace

from algos.pretraining.arguments import parse
from algos.pretraining.batches import Batches
from algos.pretraining.export import WEIGHTS, export_encoder
from algos.pretraining.images import check_images, find_folder
from algos.pretraining.loop import EncoderTrainer
from common.devices import resolve_device
from common.display import Display
from common.errors import run_script
from common.stopping import StopSignal, run_until_stopped


def main(arguments: list[str] | None = None) -> int:
    """Check the images, train, measure, export; a signal ends it with what was done saved."""
    given = sys.argv[1:] if arguments is None else arguments
    chosen, display = parse(given), Display()
    command = shlex.join(["python", "pretrain_encoder.py", *given])
    return run_until_stopped(
        lambda stop: pretrain(chosen, command, display, stop),
        lambda: display.say(f"Stopped. To continue: {command}"),
    )


def pretrain(chosen: Namespace, command: str, display: Display, stop: StopSignal) -> None:
    """Do what the command line asks for; every input is checked before anything is trained."""
    recipe = chosen.recipe
    device = resolve_device(chosen.device, chosen.threads)
    images = find_folder(chosen.images, chosen.val, chosen.val_share, recipe.seed)
    with display.progress("Reading every image once") as update:
        record = chosen.out / "images.json"
        images = check_images(images, chosen.least_side, chosen.skip_unusable, record, chosen.workers, update)
    counts = f"{len(images.classes)} classes, {len(images.train)} images, {len(images.val)} to validate"
    display.say(f"{counts}, {images.skipped} left out; on {device}.")
    with Batches(recipe.size, recipe.batch_size, recipe.seed, chosen.workers) as batches:
        trainer = EncoderTrainer(images, recipe, batches, chosen.out, device)
        if trainer.epoch or trainer.batch:
            display.say(f"Continuing in epoch {trainer.epoch + 1} after {trainer.batch} batches.")
        with display.progress("Training") as update:
            trainer.run(update, stop)
    made = export_encoder(trainer, {"command": command, "device": str(device), "seed": recipe.seed})
    shares = {name: f"{100 * made[name]:.2f} %" for name in ("train_accuracy", "val_accuracy")}
    display.say(f"Accuracy: training {shares['train_accuracy']}, validation {shares['val_accuracy']}.")
    display.say(f"{chosen.out / WEIGHTS}: sha256 {made['sha256']}")
    display.say(f"To use it: python train.py agent=vrl3 agent.encoder_weights={chosen.out / WEIGHTS}")


if __name__ == "__main__":
    run_script(main)
