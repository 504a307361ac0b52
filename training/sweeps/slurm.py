"""submitit's launcher for SLURM, and more: finished runs cost no job, and a job may hold several runs."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, ClassVar

import cloudpickle
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra_plugins.hydra_submitit_launcher import submitit_launcher

from training.status import FAILED, is_done, read_status
from training.sweeps.expand import PlannedRun, Sweep
from training.sweeps.job import requeueing
from training.sweeps.plan import decisions

log = logging.getLogger(__name__)
_STOCK = submitit_launcher.SlurmLauncher


class SlurmLauncher(_STOCK):  # type: ignore[misc, valid-type]
    """Submits one job per ``sweep.pack`` runs; see ``hydra_plugins.hydra_submitit_launcher``.

    Attributes:
        sweep: what is launched; only in the process that submits.
    """

    sweep: ClassVar[Sweep | None] = None

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Submit what is not finished and wait for it."""
        waiting = [list(overrides) for overrides in job_overrides if not self._is_over(tuple(overrides))]
        pack = int(self.config.sweep.pack)
        log.info("%d of %d runs need a job; %d in one job", len(waiting), len(job_overrides), pack)
        groups = [waiting[first : first + pack] for first in range(0, len(waiting), pack)]
        if not groups:
            return []
        # The stock launcher hands the texts of a job on as they are.
        returned: Sequence[JobReturn] = super().launch(
            [[json.dumps(o) for o in g] for g in groups], initial_job_idx
        )
        return returned

    def _is_over(self, overrides: tuple[str, ...]) -> bool:
        sweep = type(self).sweep
        run = next((run for run in sweep.runs if run.overrides == overrides), None) if sweep else None
        return sweep is not None and run is not None and _is_over(sweep, run)

    def __call__(
        self,
        sweep_overrides: list[str],
        job_dir_key: str,
        job_num: int,
        job_id: str,
        singleton_state: dict[type, Any],
    ) -> JobReturn:
        """Run the runs of one job; this happens on the cluster."""
        group = [json.loads(text) for text in sweep_overrides]
        first = job_num * len(group)
        calls = [(o, job_dir_key, first + n, f"{job_id}_{n}", singleton_state) for n, o in enumerate(group)]
        if len(calls) == 1:
            returned: JobReturn = super().__call__(*calls[0])
            return returned
        return self._side_by_side(calls)

    def _side_by_side(self, calls: Sequence[tuple[Any, ...]]) -> JobReturn:
        context = multiprocessing.get_context("spawn")
        work = [cloudpickle.dumps((_STOCK.__call__, self, call)) for call in calls]
        children = [context.Process(target=_child, args=(one,)) for one in work]
        with requeueing(lambda: _ask_to_stop(children)) as requeue:
            for child in children:
                child.start()
            for child in children:
                child.join()
            requeue()
        done = JobReturn()
        done.overrides = [text for call in calls for text in call[0]]
        done.status = JobStatus.COMPLETED
        done.return_value = None
        return done


def _is_over(sweep: Sweep, run: PlannedRun) -> bool:
    """Return whether a run needs no job: it is done, or has failed and shall be left alone."""
    folder, cfg = sweep.folder(run), run.config
    status = read_status(folder)
    failed = status is not None and status.state == FAILED and not cfg.sweep.retry_failed
    return failed or (cfg.resume != "never" and is_done(folder, decisions(run)))


def _ask_to_stop(children: Sequence[BaseProcess]) -> bool:
    """Send SIGTERM to all that live; return whether there are any."""
    alive = [child for child in children if child.is_alive()]
    for child in alive:
        child.terminate()
    return bool(alive)


def _child(pickled: bytes) -> None:
    """Run one of several runs of a job; a signal that is meant for all of them stops it in good order."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, end)
    os.environ["SAMG_PACKED"] = "1"  # the process above answers SLURM
    signal.signal(signal.SIGUSR2, lambda number, frame: os.kill(os.getpid(), signal.SIGTERM))
    call, launcher, arguments = cloudpickle.loads(pickled)
    call(launcher, *arguments)


def install(sweep: Sweep | None) -> None:
    """Let Hydra take this class where it looks for submitit's launcher; it accepts none from elsewhere."""
    SlurmLauncher.sweep = sweep
    Plugins.instance().class_name_to_class[f"{_STOCK.__module__}.{_STOCK.__name__}"] = SlurmLauncher
