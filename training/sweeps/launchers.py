"""Which launcher needs what to be installed, and what it is told about the runs of a sweep."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from common.cores import count_cores, count_gpus
from common.errors import ConfigError, DependencyError, nearest
from common.paths import PROJECT_ROOT
from training.memory import available_memory
from training.sweeps.expand import Sweep
from training.sweeps.needs import Needs, gibibytes, most

PLUGINS = {
    "local": "hydra_plugins.hydra_joblib_launcher",
    "slurm": "hydra_plugins.hydra_submitit_launcher",
    "ray": "hydra_plugins.hydra_ray_launcher",
}
_INSTALL = {"ray": "Run make setup-ray once, then the same command with .venv-ray/bin/python."}
_LONGEST = 24 * 60  # minutes of a job's turn
_SLACK = 1.5  # of the time that benchmarks predict


def check_launcher(launcher: str) -> None:
    """Check that a launcher can be used here.

    Raises:
        DependencyError: its packages, or SLURM itself, are not installed.
    """
    plugin = PLUGINS.get(launcher)
    if plugin and not _is_installed(plugin):
        raise DependencyError(
            f"launcher={launcher} needs packages that are not installed.",
            _INSTALL.get(launcher, f"Install them: .venv/bin/python -m pip install '.[{launcher}]'"),
        )
    if launcher == "slurm" and shutil.which("sbatch") is None:
        raise DependencyError(
            "launcher=slurm needs SLURM, but there is no sbatch here.",
            "Start it on a machine of the cluster, or use +launcher=local.",
        )


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def derived_settings(sweep: Sweep, needs: Sequence[Needs], pack: int, given: Sequence[str]) -> list[str]:
    """Return the launcher's overrides that follow from the runs; those that were given stay.

    Args:
        sweep: what is launched.
        needs: of its runs.
        pack: runs side by side on one GPU (slurm: in one job).
        given: overrides of the command line.

    Raises:
        ConfigError: the SLURM partition does not exist.
    """
    if not needs:
        return []
    run = most(needs)
    settings: dict[str, Any] = {}
    if sweep.launcher == "local":
        settings["n_jobs"] = _side_by_side(run, pack, len(needs))
    elif sweep.launcher == "slurm":
        partition = check_partition(sweep.launcher_config.get("partition"))
        settings = {
            "cpus_per_task": run.cpus * pack,
            "mem_gb": gibibytes(run.memory) * pack,
            "gpus_per_node": 1 if run.gpu and "gpu" in partition else None,
            "timeout_min": _minutes(run.hours),
        }
    elif sweep.launcher == "ray":
        settings = ray_settings(run.cpus, run.gpu, pack, given)
    return not_given(settings, given)


def ray_settings(cpus: int, gpu: bool, pack: int, given: Sequence[str]) -> dict[str, Any]:
    """Return what Ray is to reserve for a job; more than its machines have, it would wait for without end.

    Args:
        cpus: cores of a job.
        gpu: whether a job uses a GPU where there is one.
        pack: jobs side by side on one GPU.
        given: the command line's overrides.
    """
    address = any(text.lstrip("+").startswith("hydra.launcher.ray.init.address=") for text in given)
    if not (address or "RAY_ADDRESS" in os.environ):  # a Ray of our own, on this machine
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # no token of its own in the home directory
        cpus = min(cpus, count_cores())
    share = round(1 / pack, 3) if gpu and count_gpus() else None
    return {"ray.remote.num_cpus": cpus, "ray.remote.num_gpus": share}


def not_given(settings: Mapping[str, Any], given: Sequence[str]) -> list[str]:
    """Return launcher settings as overrides, without those that the command line names itself.

    Args:
        settings: name -> value; None leaves the launcher's own.
        given: the command line's overrides.
    """
    names = {text.split("=", 1)[0].lstrip("+") for text in given}
    return [
        f"{'+' if key.startswith('ray.') else ''}hydra.launcher.{key}={value}"  # Ray's are in no schema
        for key, value in settings.items()
        if value is not None and f"hydra.launcher.{key}" not in names
    ]


def let_jobs_import() -> None:
    """Let processes that launchers start, wherever they do, import what jobs are made of: our functions."""
    paths = [str(PROJECT_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)


def _side_by_side(run: Needs, pack: int, runs: int) -> int:
    """Return how many runs this machine carries at once."""
    limits = [max(count_cores() // max(run.cpus - 1, 1), 1), runs]
    memory = available_memory()
    if memory is not None:
        limits.append(max(memory // run.memory, 1))
    if run.gpu and count_gpus():
        limits.append(count_gpus() * pack)
    return min(limits)


def _minutes(hours: float | None) -> int:
    """Return the time of a job: longer runs take several turns."""
    return _LONGEST if hours is None else min(max(int(hours * 60 * _SLACK), 10), _LONGEST)


def check_partition(name: Any) -> str:
    """Return what SLURM says of a partition's resources (or of the default one's).

    Raises:
        ConfigError: there is no such partition.
        DependencyError: SLURM does not answer.
    """
    asked = subprocess.run(["sinfo", "-h", "-o", "%P %G"], capture_output=True, text=True, check=False)
    if asked.returncode:
        reason = (asked.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise DependencyError(f"SLURM does not answer: {reason}.", "Is slurmctld running? Try sinfo.")
    found = {line.split()[0]: line.split()[-1] for line in asked.stdout.splitlines() if line.split()}
    known = {key.rstrip("*"): value for key, value in found.items()}
    if name is None:
        return next((value for key, value in found.items() if key.endswith("*")), "")
    missing = [part for part in str(name).split(",") if part not in known]
    if missing:
        raise ConfigError(
            f"There is no SLURM partition '{missing[0]}'.",
            f"{nearest(missing[0], known)}Choose one of: {', '.join(known)}.",
        )
    return known[str(name).split(",")[0]]
