"""The command line of ``pretrain_encoder.py``: what can be said, and what cannot be meant."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

from algos.pretraining.loop import Recipe
from common.cores import count_cores
from common.errors import ConfigError
from common.flags import check_least, output_folder

_LEAST: dict[str, float] = {
    "epochs": 1,
    "batch_size": 2,
    "decay_every": 1,
    "weight_decay": 0,
    "size": 32,
    "least_side": 1,
    "save_every": 1,
    "seed": 0,
    "workers": 1,
    "threads": 0,
}


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line; ``out`` comes back as an absolute path and ``recipe`` is made.

    Raises:
        ConfigError: a number is impossible, or ``--out`` is a file.
    """
    chosen = _parser().parse_args(list(arguments))
    check_least(chosen, _LEAST)
    for name, most in {"learning_rate": math.inf, "val_share": 1.0}.items():
        if not 0 < (value := getattr(chosen, name)) < most:
            flag = f"--{name.replace('_', '-')}"
            limit = "" if most == math.inf else f" and less than {most:g}"
            raise ConfigError(f"{flag} is {value:g}, expected more than 0{limit}.", f"Change {flag}.")
    if not 0 <= chosen.momentum < 1:
        raise ConfigError(f"--momentum is {chosen.momentum:g}, expected 0 to 1.", "The default is 0.9.")
    chosen.out = output_folder(chosen.out)
    chosen.recipe = Recipe(**{name: getattr(chosen, name) for name in Recipe.__dataclass_fields__})
    return chosen


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pretrain_encoder.py",
        description="Train VRL3's encoder (ResNet6) to tell apart the classes of an image folder, the first "
        "of VRL3's three stages. Interrupted, the same command continues where it stopped. The result, "
        "OUT/resnet6.safetensors, is for train.py agent=vrl3 agent.encoder_weights=FILE.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add, recipe = parser.add_argument, Recipe()
    add(
        "images",
        help="folder with a sub-folder per class, or with train/ and val/ that have those (ImageNet)",
    )
    add("--val", default=None, help="folder to validate on; none: images/val, else a share is held out")
    add("--val-share", type=float, default=0.1, help="of each class, held out where there is no such folder")
    add("--out", default="runs/encoder", help="folder for checkpoint, curve and weights")
    add("--epochs", type=int, default=recipe.epochs, help="how often every image is seen")
    add("--batch-size", type=int, default=recipe.batch_size, help="images per step")
    add("--learning-rate", type=float, default=recipe.learning_rate, help="of SGD, at first")
    add("--decay-every", type=int, default=recipe.decay_every, help="epochs until it is divided by ten")
    add("--momentum", type=float, default=recipe.momentum, help="of SGD")
    add("--weight-decay", type=float, default=recipe.weight_decay, help="of SGD")
    add("--size", type=int, default=recipe.size, help="pixels of a side that the encoder sees")
    add("--least-side", type=int, default=32, help="pixels that the shorter side of an image must have")
    add("--skip-unusable", action="store_true", help="leave out images that are damaged or too small")
    add("--save-every", type=int, default=recipe.save_every, help="steps between checkpoints within an epoch")
    add("--seed", type=int, default=recipe.seed, help="of weights, order, crops and what is held out")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    add("--threads", type=int, default=0, help="CPU threads of the network (0: PyTorch's default)")
    add("--workers", type=int, default=count_cores(), help="threads that read images")
    return parser
