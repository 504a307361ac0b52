"""``locoeval.py`` over all finished runs of a sweep, as an array of jobs of any launcher."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from common.errors import InputError, SamgError, report_error
from common.files import read_json, write_json
from common.paths import PROJECT_ROOT
from training.config import CONFIG_DIR
from training.status import DONE, FAILED, error_record, is_done, read_status, recorded, update_status
from training.sweeps.expand import chosen_launcher
from training.sweeps.job import HIDDEN, requeueing
from training.sweeps.launchers import (
    check_launcher,
    check_partition,
    let_jobs_import,
    not_given,
    ray_settings,
)
from training.sweeps.plan import planned_runs

FOLDER = "evaluation"
FLAGS = "flags.json"
_CORES = 2  # of one evaluation
_MEMORY = 6  # GiB of one evaluation


def evaluate(directory: Path, flags: Sequence[str], overrides: Sequence[str]) -> int:
    """Evaluate every finished run; results and episodes that are there already are kept.

    Args:
        directory: of the sweep.
        flags: of ``locoeval.py``, without ``--model_dir``.
        overrides: ``+launcher=...`` and Hydra's own.

    Returns:
        The exit code: 0, or that of the first evaluation that failed.

    Raises:
        InputError: no run is finished.
        SamgError: the launcher cannot be used.
    """
    planned = planned_runs(directory)
    finished = [name for name, decisions in planned.items() if is_done(directory / name, decisions)]
    if not finished:
        raise InputError(f"No run in {directory} is finished.", f"See python sweep.py status {directory}.")
    launcher = chosen_launcher(overrides)
    check_launcher(launcher)
    place = directory / HIDDEN / FOLDER
    write_json(place / FLAGS, list(flags))
    names = ",".join(f"'{name}'" for name in finished)
    settings = not_given(_settings(launcher, overrides), overrides)
    sys.argv[1:] = ["--multirun", f"run={names}", f"hydra.sweep.dir='{place}'", *overrides, *settings]
    if launcher == "slurm":
        from training.sweeps.slurm import install

        install(None)
    let_jobs_import()
    sys.argv.append(f"hydra.searchpath=['file://{CONFIG_DIR}']")  # where the launchers are
    hydra.main(version_base=None, config_path=str(CONFIG_DIR / "sweep"), config_name="evaluation")(_job)()
    return _sum_up(place, finished, len(planned))


def _settings(launcher: str, overrides: Sequence[str]) -> dict[str, object]:
    if launcher == "ray":
        return ray_settings(_CORES, True, 1, overrides)
    if launcher != "slurm":
        return {}
    chosen = [text.partition("=")[2] for text in overrides if text.startswith("hydra.launcher.partition=")]
    gpu = "gpu" in check_partition(chosen[-1] if chosen else None)
    return {
        "cpus_per_task": _CORES,
        "mem_gb": _MEMORY,
        "timeout_min": 240,
        **({"gpus_per_node": 1} if gpu else {}),
    }


def _job(cfg: DictConfig) -> None:
    """Evaluate one run in a process of its own; its end is not the end of the others."""
    place = Path(HydraConfig.get().sweep.dir)
    record = place / cfg.run
    try:
        with recorded(record):
            _run_locoeval(place.parent.parent / cfg.run, read_json(place / FLAGS))
    except SamgError as error:
        report_error(error)
    except Exception as error:
        update_status(record, state=FAILED, error=error_record(error))


def _run_locoeval(run_dir: Path, flags: Sequence[str]) -> None:
    command = [sys.executable, str(PROJECT_ROOT / "locoeval.py"), "--model_dir", str(run_dir), *flags]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:

        def ask() -> bool:
            process.terminate()
            return True

        with requeueing(ask) as requeue:
            _, said = process.communicate()
            sys.stderr.write(said)
            requeue()
    if process.returncode:
        lines = said.strip().splitlines() or [f"locoeval.py ended with exit code {process.returncode}."]
        words = {line.partition(":")[0].strip(): line.partition(":")[2].strip() for line in lines}
        failure = InputError(words.get("error", lines[-1]), words.get("cure", ""))
        failure.exit_code = process.returncode
        raise failure


def _sum_up(place: Path, finished: Sequence[str], planned: int) -> int:
    code = 0
    for name in finished:
        status = read_status(place / name)
        if status is not None and status.state == DONE:
            continue
        error = (status.error if status else None) or {}
        code = code or int(error.get("exit_code", 1))
        sys.stdout.write(f"not evaluated  {name}: {error.get('message', 'interrupted')}\n")
    directory = place.parent.parent
    sys.stdout.write(f"Evaluated {len(finished)} finished runs of {planned} in {directory}.\n")
    sys.stdout.write(f"To report: python report.py {directory} --out {directory / 'report'}\n")
    return code
