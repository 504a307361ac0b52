"""The command line of ``locoeval.py``: flags as documented for SAM-G, plus our own."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from common.errors import ConfigError, nearest, unknown_choice
from evaluation.masker_choice import ReferenceFlags

MASKERS = ("run", "none", "tiny", "fast", "paper", "groundtruth")
SOURCES = ("dmcgb", "procedural")
PROTOCOLS = ("dmcgb", "samg")
EPISODES = 100
EPISODES_WITH_VIDEO = 10


@dataclass(frozen=True)
class Options:
    """The parsed flags of ``locoeval.py``; None or empty where not given. See its manual for their meaning.

    ``modes`` are names of levels, combinations and groups as they were given.
    """

    model_dirs: tuple[str, ...]
    domain_name: str | None
    task_name: str | None
    algorithm: str | None
    agent: tuple[str, ...]
    seed: int
    use_sam_g: bool | None
    maskers: tuple[str, ...]
    reference: ReferenceFlags
    modes: tuple[str, ...]
    episodes: int
    save_video: bool
    random_baseline: bool
    num_envs: int | None
    num_threads: int | None
    source: str | None
    data_dir: str | None
    protocol: str | None
    key: str | None
    out: str | None
    overwrite: bool
    allow_masker_mismatch: bool
    device: str
    padded_batch: int | None
    fast_render: bool | None
    debug: bool


class Parser(argparse.ArgumentParser):
    """A parser whose errors are ours and whose long flags may be written with ``-`` or ``_``.

    Args:
        program: name of the script.
        manual: text above the flags in ``--help``.
    """

    def __init__(self, program: str, manual: str) -> None:
        form = argparse.RawDescriptionHelpFormatter
        super().__init__(program, description=manual, formatter_class=form, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raise the error in the form all others have."""
        raise ConfigError(f"{message[:1].upper()}{message[1:]}.", f"See {self.prog} --help.")

    def parse_flags(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse ``argv``; an unknown flag names the nearest."""
        parsed, unknown = self.parse_known_args([_underscored(argument) for argument in argv])
        if unknown:
            near = nearest(unknown[0].split("=")[0], self._option_string_actions)
            raise ConfigError(f"Unknown argument '{unknown[0]}'.", f"{near}See {self.prog} --help.")
        return parsed


def parse_options(argv: Sequence[str], levels: Sequence[str], manual: str = "") -> Options:
    """Parse the command line of ``locoeval.py``.

    Args:
        argv: arguments without the program's name.
        levels: names for the help of ``--mode``; what was given is checked against the task's domain later.
        manual: text of ``--help``.

    Raises:
        ConfigError: a flag is unknown or its value impossible.
    """
    flags = _parser(manual, levels).parse_flags(argv)
    if flags.model_dir is None:
        raise ConfigError("--model_dir is missing.", "Name the run directory that train.py has written.")
    return Options(
        model_dirs=tuple(flags.model_dir),
        domain_name=flags.domain_name,
        task_name=flags.task_name,
        algorithm=flags.algorithm,
        agent=tuple(flags.agent),
        seed=flags.seed,
        use_sam_g=flags.use_SAM_g,
        maskers=tuple(_choice("masker", masker, MASKERS) or "" for masker in flags.masker),
        reference=ReferenceFlags(
            flags.original_image, flags.masked_image, flags.extra_points_list, flags.extra_masked_images_list
        ),
        modes=tuple(flags.mode),
        episodes=flags.episodes or (EPISODES_WITH_VIDEO if flags.save_video else EPISODES),
        save_video=flags.save_video,
        random_baseline=flags.random_baseline,
        num_envs=flags.num_envs,
        num_threads=flags.num_threads,
        source=_choice("background source", flags.background_source, SOURCES),
        data_dir=flags.data_dir,
        protocol=_choice("protocol", flags.protocol, PROTOCOLS),
        key=flags.key,
        out=flags.out,
        overwrite=flags.overwrite,
        allow_masker_mismatch=flags.allow_masker_mismatch,
        device=flags.device,
        padded_batch=flags.padded_batch,
        fast_render=flags.fast_render,
        debug=flags.debug,
    )


def whole_number(least: int) -> type[int]:
    """Return an argparse type: a whole number of at least ``least``."""

    def convert(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is less than {least}")
        return value

    convert.__name__ = f"whole number of at least {least}"
    return convert  # type: ignore[return-value]


def truth(text: str) -> bool:
    """Return an argparse value: ``true`` or ``false``."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"'{text}' is neither true nor false")
    return text.lower() == "true"


def _parser(manual: str, levels: Sequence[str]) -> Parser:
    parser = Parser("locoeval.py", inspect.cleandoc(manual))
    positive = whole_number(1)

    run = parser.add_argument_group("the run")
    run.add_argument(
        "--model_dir",
        nargs="+",
        metavar="DIR",
        help="run directory of train.py; several: one after the other",
    )
    run.add_argument("--domain_name", metavar="NAME", help="checked against the run")
    run.add_argument("--task_name", metavar="NAME", help="checked against the run")
    run.add_argument("--algorithm", metavar="NAME", help="checked against the run")
    run.add_argument(
        "--agent", nargs="+", default=[], metavar="KEY=VALUE", help="its options for acting: bn_eval=batch"
    )
    run.add_argument("--seed", type=whole_number(0), default=0, help="evaluation seed (default 0)")

    masker = parser.add_argument_group("the masker (default: the one the agent was trained with)")
    masker.add_argument("--use_SAM_g", nargs="?", const=True, default=None, type=truth, metavar="true|false")
    masker.add_argument(
        "--masker", nargs="+", default=[], metavar="|".join(MASKERS), help="several: results for each of them"
    )
    masker.add_argument("--original_image", metavar="FILE", help="reference frame")
    masker.add_argument("--masked_image", metavar="FILE", help="its mask")
    masker.add_argument(
        "--extra_points_list", nargs="*", metavar="X Y", help="further points, pairs of pixels"
    )
    masker.add_argument("--extra_masked_images_list", nargs="*", metavar="FILE", help="masks of single parts")
    masker.add_argument(
        "--allow_masker_mismatch", action="store_true", help="another masker than in training"
    )

    level = parser.add_argument_group("the benchmark (default: the run's own background)")
    level.add_argument(
        "--mode", nargs="+", default=[], metavar="LEVEL", help=f"{', '.join(levels)}; join several with '+'"
    )
    level.add_argument("--background_source", metavar="|".join(SOURCES))
    level.add_argument(
        "--data_dir", metavar="DIR", help="benchmark data (default: SAMG_DATA, then the cache)"
    )
    level.add_argument("--protocol", metavar="|".join(PROTOCOLS))
    level.add_argument("--key", metavar="green|black|segmentation", help="how video pixels are chosen")

    work = parser.add_argument_group("the evaluation")
    work.add_argument(
        "--episodes", "--eval_episodes", type=positive, help="default 100; 10 with --save_video"
    )
    work.add_argument(
        "--num_envs", type=positive, help="environment processes side by side (default: what the cores feed)"
    )
    work.add_argument(
        "--num_threads", type=positive, help="of the networks on a CPU (default: half of the cores)"
    )
    work.add_argument("--random_baseline", action="store_true", help="measure uniform random actions, too")
    work.add_argument("--save_video", action="store_true", help="raw and masked view of every episode as MP4")
    work.add_argument("--out", metavar="DIR", help="where results go (default: eval/ of the run)")
    work.add_argument("--overwrite", action="store_true", help="replace results that exist")
    work.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    work.add_argument(
        "--padded_batch", type=positive, help="fixed batch of all networks (8 on a GPU, else 1)"
    )
    work.add_argument(
        "--fast_render",
        nargs="?",
        const=True,
        type=truth,
        metavar="true|false",
        help="cheaper shadows, other pixels (default: as in training)",
    )
    work.add_argument("--debug", action="store_true", help="tracebacks instead of two-line errors")
    return parser


def _choice(what: str, value: str | None, choices: Sequence[str]) -> str | None:
    if value is not None and value not in choices:
        raise unknown_choice(what, value, choices)
    return value


def _underscored(argument: str) -> str:
    """Write a long flag the way the parser knows it: ``--num-envs=2`` becomes ``--num_envs=2``."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument[2:].partition("=")
    return f"--{name.replace('-', '_')}{equals}{value}"
