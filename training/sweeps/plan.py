"""A sweep on disk and on screen: checked before it starts, written down, read again by whoever watches it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from common.cores import count_gpus
from common.errors import ConfigError, InputError, ResourceError
from common.files import read_json, write_json
from training.config import check_same_experiment, validate
from training.rules import check_values
from training.settings import TrainSettings
from training.status import saved_steps
from training.sweeps.expand import Sweep, expand, name_folders
from training.sweeps.job import HIDDEN
from training.sweeps.launchers import check_launcher, derived_settings
from training.sweeps.needs import Needs, all_needs, gibibytes, speed

PLAN = "plan.json"


@dataclass(frozen=True)
class Plan:
    """A checked sweep.

    Attributes:
        sweep: its runs.
        needs: of its runs, in the same order.
        arguments: the command line, completed by what follows from the runs.
        rate: decisions per second that the user gave, or None.
    """

    sweep: Sweep
    needs: list[Needs]
    arguments: list[str]
    rate: float | None = None


def make_plan(arguments: Sequence[str], launcher: str, rate: float | None = None) -> Plan:
    """Expand and check a command line of ``train.py``; nothing is written.

    Args:
        arguments: as ``training.config.prepare_overrides`` has completed them.
        launcher: its launcher.
        rate: decisions per second to reckon with; None for measured ones.

    Raises:
        SamgError: a launcher or package is missing, a run's values are impossible, or its folder holds
            another experiment.
    """
    check_launcher(launcher)
    named = name_folders(arguments)
    sweep = expand(named)
    _check_runs(sweep)
    needs = all_needs(sweep, rate)
    pack = int(sweep.runs[0].config.sweep.pack) if sweep.runs else 1
    open_needs = [need for need in needs if need.left] or needs
    return Plan(sweep, needs, [*named, *derived_settings(sweep, open_needs, pack, named)], rate)


def _check_runs(sweep: Sweep) -> None:
    seen = set()
    for run in sweep.runs:
        check_values(run.config)
        kind = tuple(text for text in run.overrides if not text.startswith("seed="))
        if kind not in seen:
            seen.add(kind)
            validate(run.config)
        check_same_experiment(run.config, sweep.folder(run), "hydra.sweep.dir=DIR")


def check_disk(plan: Plan) -> None:
    """Raise ``ResourceError`` when the runs will not fit on the disk of the sweep's folder."""
    place = plan.sweep.directory
    while not place.exists():
        place = place.parent
    needed, free = sum(need.disk for need in plan.needs), shutil.disk_usage(place).free
    if needed > free and all(run.config.sweep.check_disk for run in plan.sweep.runs):
        raise ResourceError(
            f"The runs need {gibibytes(needed)} GiB in {plan.sweep.directory}; {free >> 30} GiB are free.",
            "Free some, lower replay_buffer_size, choose another hydra.sweep.dir, or sweep.check_disk=false.",
        )


def write_plan(plan: Plan) -> None:
    """Write down which runs belong to the sweep's folder; those of earlier commands stay.

    Raises:
        ConfigError: the folder is that of a single run.
    """
    directory = plan.sweep.directory
    if (directory / "config.yaml").exists():
        raise ConfigError(
            f"{directory} is the folder of a single run.", "Choose another with hydra.sweep.dir=DIR."
        )
    known = {
        run.subdir: {"overrides": list(run.overrides), "decisions": decisions(run)} for run in plan.sweep.runs
    }
    before: dict[str, Any] = {}
    with contextlib.suppress(InputError):
        before = read_json(directory / HIDDEN / PLAN)["runs"]
    write_json(directory / HIDDEN / PLAN, {"version": 1, "runs": {**before, **known}})


def decisions(run: Any) -> int:
    """Return the decisions that are planned for a run."""
    return TrainSettings.from_config(run.config).planned_decisions


def planned_runs(directory: Path) -> dict[str, int]:
    """Return the runs of a folder, subfolder -> planned decisions; those found beside the plan have 0.

    Raises:
        InputError: there is no such folder, or nothing in it.
    """
    if not directory.is_dir():
        raise InputError(f"{directory} does not exist.", "Name the folder of a sweep (hydra.sweep.dir).")
    found: dict[str, int] = {}
    if (directory / HIDDEN / PLAN).exists():
        stored = read_json(directory / HIDDEN / PLAN, "plan of the sweep")
        found = {name: int(run["decisions"]) for name, run in stored["runs"].items()}
    for path in sorted(directory.rglob("config.yaml")):
        parts = path.parent.relative_to(directory).parts
        if not any(part.startswith(".") for part in parts):
            found.setdefault(str(Path(*parts)), 0)
    if not found:
        raise InputError(f"{directory} holds no runs.", "Name the folder of a sweep (hydra.sweep.dir).")
    return found


def plan_table(plan: Plan) -> Table:
    """Return a table of the runs, those that differ in their seed in one row."""
    table = Table(box=None, header_style="bold")
    table.add_column("runs", overflow="fold")
    for name in ("seeds", "decisions", "left", "memory", "disk", "rate", "hours"):
        table.add_column(name, justify="right")
    groups: dict[tuple[str, ...], list[Needs]] = {}
    for run, need in zip(plan.sweep.runs, plan.needs, strict=True):
        kind = tuple(t for t in run.overrides if not t.startswith(("seed=", "+launcher", "+suite")))
        groups.setdefault(kind, []).append(need)
    for kind, needs in groups.items():
        rate = f"{needs[0].rate:.1f}/s{'*' if needs[0].measured else ''}" if needs[0].rate else "?"
        table.add_row(
            " ".join(kind),
            str(len(needs)),
            f"{needs[0].decisions:,}",
            f"{sum(need.left for need in needs):,}",
            f"{needs[0].memory / (1 << 30):.1f} GiB",
            f"{sum(need.disk for need in needs) / (1 << 30):.1f} GiB",
            rate,
            _hours(needs),
        )
    return table


def _hours(needs: Sequence[Needs]) -> str:
    hours = [need.hours for need in needs if need.hours is not None]
    return f"{sum(hours):,.1f}" if len(hours) == len(needs) else "?"


def plan_summary(plan: Plan) -> list[str]:
    """Return the sums, the launcher's settings and where the hours come from, in lines."""
    sweep, needs = plan.sweep, plan.needs
    finished = sum(not need.left for need in needs)
    begun = sum(saved_steps(sweep.folder(run)) is not None for run in sweep.runs) - finished
    own = [text for text in plan.arguments if "hydra.launcher." in text]
    on_gpu = any(need.gpu for need in needs) and (plan.rate is not None or count_gpus() > 0)
    days = sum(need.hours or 0 for need in needs) / 24
    return [
        f"{len(needs)} runs in {sweep.directory}: {finished} finished, {begun} begun",
        f"{sum(need.left for need in needs):,} decisions are left:"
        f" {_hours(needs)} {'GPU-hours' if on_gpu else 'hours'}"
        f"{f' ({days:,.0f} days)' if days >= 3 else ''}, one run at a time;"
        f" disk {sum(need.disk for need in needs) / (1 << 30):.1f} GiB more",
        f"launcher {sweep.launcher}" + (f": {' '.join(own)}" if own else ""),
        _where_hours_come_from(plan),
    ]


def _where_hours_come_from(plan: Plan) -> str:
    needs = plan.needs
    if plan.rate is not None:
        return f"Hours by the speed that was given: {plan.rate:g} decisions per second."
    if any(need.rate is None for need in needs):
        return "No speed is on record for this machine: give yours with --rate (decisions per second)."
    if all(need.measured for need in needs):
        return "Hours by the speed of these runs so far."
    starred = ", those marked * by runs of this folder" if any(need.measured for need in needs) else ""
    machine = speed()["machine"]
    return f"Hours by the last benchmark ({machine}){starred}; --rate N reckons with N decisions per second."
