"""Pretrain the embedded `tiny` masker; `python pretrain.py --help` is the manual."""

from __future__ import annotations

import shlex
import sys
from argparse import Namespace
from pathlib import Path

from common.devices import resolve_device
from common.display import Display
from common.errors import run_script
from common.files import sha256_file
from common.paths import PROJECT_ROOT
from common.stopping import StopSignal, run_until_stopped
from envs.pretraining_domains import KNOWN_DOMAINS, find_domains
from samg.pretraining.arguments import parse
from samg.pretraining.banks import Amounts, prepare_banks
from samg.pretraining.composites import Banks
from samg.pretraining.export import export_weights
from samg.pretraining.loop import Schedule, Trainer, load_checkpoint
from samg.pretraining.presence import calibrate_presence
from samg.pretraining.thinning import read_start, thin_start
from samg.tiny import read_tiny_record


def main(arguments: list[str] | None = None) -> int:
    """Collect, draw, train, export; a signal ends it with what was done saved."""
    given = sys.argv[1:] if arguments is None else arguments
    chosen = parse(given, KNOWN_DOMAINS)
    display = Display()
    command = shlex.join(["python", sys.argv[0], *given])
    return run_until_stopped(
        lambda stop: pretrain(chosen, given, display, stop),
        lambda: display.say(f"Stopped. To continue: {command}"),
    )


def pretrain(chosen: Namespace, given: list[str], display: Display, stop: StopSignal) -> None:
    """Do what the command line asks for; every input is checked before anything is collected."""
    device = resolve_device(chosen.device, chosen.threads)
    domains = find_domains(chosen.domains)
    amounts = Amounts(chosen.frames, chosen.backgrounds, chosen.objects)
    weights, wide, record = None, False, {}
    if chosen.start:
        (weights, wide), record = read_start(chosen.start), read_tiny_record(chosen.start)
    schedule = Schedule(
        steps=chosen.steps,
        minutes=chosen.minutes,
        composites=chosen.composites,
        learning_rate=chosen.learning_rate,
        save_every=chosen.save_every,
        seed=chosen.seed,
        start=sha256_file(chosen.start) if chosen.start else "",
    )
    begun = load_checkpoint(chosen.out, schedule, amounts.describe(domains), device) is not None
    banks = prepare_banks(domains, chosen.out / "data", amounts, chosen.seed, display)
    banks = Banks(banks.frames.to(device), banks.backgrounds.to(device), banks.objects.to(device))
    if weights is not None and wide:  # a run that goes on has weights of its own
        weights = None if begun else thin_start(weights, banks, chosen.seed, display)
    trainer = Trainer(banks, schedule, chosen.out, weights)
    if trainer.step:
        display.say(f"Continuing at step {trainer.step}.")
    with display.progress("Training") as update:
        trainer.run(update, stop)
    display.say("Measuring from which similarity on an object is there ...")
    batches = max(4, min(40, trainer.step // 10))  # a short trial needs no fine threshold
    trainer.networks.presence = calibrate_presence(trainer.networks, banks, chosen.seed, batches)
    made_by = {
        "command": shlex.join(["python", "pretrain.py", *given]),
        "seed": chosen.seed,
        "domains": [domain.name for domain in domains],
        "steps": trainer.step,
        "minutes": round(trainer.seconds / 60, 1),
        "device": str(device),
    }
    if chosen.start:
        made_by["start"] = {"sha256": schedule.start, **record}
    for path in outputs(chosen):
        made = export_weights(trainer.networks, path, made_by)
        display.say(f"{path}: {made['bytes'] / 1e6:.2f} MB, sha256 {made['sha256']}")


def outputs(chosen: Namespace) -> list[Path]:
    """Return where the weights go."""
    shipped = [PROJECT_ROOT / "samg" / "weights" / "tiny.safetensors"] if chosen.ship else []
    return [chosen.out / "tiny.safetensors", *shipped]


if __name__ == "__main__":
    run_script(main)
