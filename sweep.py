"""Plan, watch and evaluate sweeps of ``train.py``; see ``--help``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from common.errors import ConfigError, run_script, unknown_choice

os.environ.setdefault("MUJOCO_GL", "egl")


def main(argv: Sequence[str]) -> int:
    """Plan, watch and evaluate sweeps of train.py.

    python sweep.py plan +suite=samg8 masker=tiny +launcher=slurm
    python sweep.py status runs/suite/samg8 --watch
    python sweep.py evaluate runs/suite/samg8 --mode all +launcher=slurm
    python report.py runs/suite/samg8 --out runs/suite/samg8/report

    plan [--rate N] ARGUMENTS...
        Checks a command as train.py --multirun would, and shows its runs: decisions, memory, disk, and hours
        by the speed of runs that are there already, else by the last benchmark, or by N decisions per second.
    status DIR [--watch [SECONDS]]
        Runs that are done, running, waiting, stopped (saved by a signal), interrupted or failed, with their
        speed, the time left and the last error. --watch renews the table (every 5 seconds).
    evaluate DIR FLAGS... [+launcher=local|slurm|ray] [hydra.launcher.KEY=VALUE]
        locoeval.py with these flags over all finished runs. Given again, it does what is missing.
    """
    commands = {"plan": plan, "status": status, "evaluate": evaluate}
    if not argv or {"-h", "--help"} & set(argv[:1]):
        import inspect

        sys.stdout.write(f"{inspect.cleandoc(main.__doc__ or '')}\n")
        return 0
    if argv[0] not in commands:
        raise unknown_choice("command", argv[0], commands)
    return commands[argv[0]](list(argv[1:]))


def plan(arguments: list[str]) -> int:
    """Show what a command would run."""
    from rich.console import Console

    from training.config import prepare_overrides
    from training.sweeps.expand import chosen_launcher
    from training.sweeps.plan import check_disk, make_plan, plan_summary, plan_table

    rate = _take(arguments, "--rate")
    if rate is not None and not _is_positive(rate):
        raise ConfigError(f"--rate {rate} is no speed.", "Give decisions per second, such as --rate 60.")
    completed = prepare_overrides(arguments)
    made = make_plan(completed, chosen_launcher(completed), float(rate) if rate else None)
    console = Console(highlight=False, width=_width())
    console.print(plan_table(made))
    for line in plan_summary(made):
        console.print(line, markup=False, soft_wrap=True)
    check_disk(made)
    return 0


def status(arguments: list[str]) -> int:
    """Show how the runs of a folder stand."""
    from rich.console import Console

    from training.sweeps.overview import overview, watch

    every = _take(arguments, "--watch", default="5")
    if every is not None and not _is_positive(every):
        raise ConfigError(f"--watch {every} is no time.", "Give seconds, such as --watch 10.")
    directory, console = _directory(arguments), Console(highlight=False, width=_width())
    if every is not None and console.is_terminal:
        watch(directory, float(every), console)
    else:
        console.print(overview(directory))
    return 0


def evaluate(arguments: list[str]) -> int:
    """Evaluate all finished runs of a folder."""
    from training.sweeps.evaluation import evaluate as evaluate_all

    own = [text for text in arguments if text.startswith(("+launcher=", "hydra.", "sweep.", "+hydra."))]
    rest = [text for text in arguments if text not in own]
    return evaluate_all(_directory(rest[:1]), rest[1:], own)


def _directory(arguments: Sequence[str]) -> Path:
    if len(arguments) != 1 or arguments[0].startswith("-"):
        given = " ".join(arguments) or "nothing"
        raise ConfigError(f"Expected the folder of a sweep, got {given}.", "See sweep.py --help.")
    return Path(arguments[0]).expanduser().absolute()


def _width() -> int | None:
    return None if sys.stdout.isatty() else 200  # a file or a pipe cuts nothing off


def _take(arguments: list[str], flag: str, default: str | None = None) -> str | None:
    """Remove ``flag`` and the value behind it from the arguments; return the value, None without the flag."""
    if flag not in arguments:
        return None
    place = arguments.index(flag)
    following = arguments[place + 1 : place + 2]
    alone = default is not None and not (following and _is_positive(following[0]))
    del arguments[place : place + (1 if alone else 2)]
    return default if alone else "".join(following)


def _is_positive(text: str) -> bool:
    return text.replace(".", "", 1).isdigit() and float(text) > 0


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]), debug=bool(os.environ.get("SAMG_DEBUG")))
