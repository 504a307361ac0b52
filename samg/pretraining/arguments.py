"""The command line of ``pretrain.py``: what can be said, and what cannot be meant."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from common.errors import ConfigError
from common.flags import check_least, output_folder
from common.paths import resolve
from samg.pretraining.banks import Amounts
from samg.pretraining.loop import Schedule

_LEAST = {
    "minutes": 0,
    "steps": 0,
    "frames": 2,
    "backgrounds": 1,
    "objects": 1,
    "composites": 1,
    "save_every": 1,
    "seed": 0,
    "threads": 0,
}


def parse(arguments: Sequence[str], domains: Sequence[str]) -> argparse.Namespace:
    """Read the command line; ``out`` comes back as an absolute path.

    Args:
        arguments: without the program's name.
        domains: what is trained on when nothing else is said.

    Raises:
        ConfigError: there is no budget, or a number is impossible.
    """
    chosen = _parser(domains).parse_args(list(arguments))
    check_least(chosen, _LEAST)
    if not 0 < chosen.learning_rate < 1:
        raise ConfigError(
            f"--learning-rate is {chosen.learning_rate:g}, expected more than 0 and less than 1.",
            f"The default is {Schedule.learning_rate:g}.",
        )
    if chosen.minutes == 0 and chosen.steps == 0:
        raise ConfigError("No budget was given.", "Pass --minutes M, or --steps N.")
    chosen.out = output_folder(chosen.out)
    chosen.start = resolve(chosen.start) if chosen.start else None
    return chosen


def _parser(domains: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pretrain.py",
        description="Train the tiny masker on simulator renders with exact masks, self-made backgrounds and "
        "several labelled objects per frame. Interrupted, the same command continues where it stopped.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add, amounts, schedule = parser.add_argument, Amounts(), Schedule()
    add("--minutes", type=float, default=0.0, help="budget of training time (0: --steps decides)")
    add("--steps", type=int, default=0, help="budget in steps (reproducible; 0: --minutes decides)")
    add("--out", default="runs/pretrain", help="folder for data, checkpoint, curves and weights")
    add(
        "--domains",
        nargs="+",
        default=list(domains),
        metavar="DOMAIN",
        help="what to train on: names of DMControl domains, or gymnasium environments that give "
        "info['foreground'], written id, module:id or name=module:id (see envs/pretraining_gym.py)",
    )
    add("--frames", type=int, default=amounts.frames, help="frames collected per domain")
    add("--backgrounds", type=int, default=amounts.backgrounds, help="background pictures drawn")
    add("--objects", type=int, default=amounts.objects, help="random objects drawn")
    add("--composites", type=int, default=schedule.composites, help="pictures per step")
    add("--learning-rate", type=float, default=schedule.learning_rate, help="at its peak")
    add("--save-every", type=int, default=schedule.save_every, help="steps between checkpoints")
    add("--seed", type=int, default=schedule.seed, help="of data, weights and pictures")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    add("--threads", type=int, default=0, help="CPU threads (0: PyTorch's default)")
    add(
        "--start",
        metavar="FILE",
        help="weights to start from, made by an earlier run (default: fresh ones); those of samg-tiny-1, "
        "whose encoder was wider, are thinned",
    )
    add("--ship", action="store_true", help="replace the weights in samg/weights")
    return parser
