"""One run, alone or as a job among many: skipped when it is done, recorded, requeued when it is preempted.

Alone, an error ends the process with its exit code. In a sweep it is recorded and the other jobs go on: the
process that launched them sums up at the end (``training.sweeps.front``).
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from common.errors import SamgError, report_error, run_script
from common.stopping import StopSignal
from training.guard import exclusive, in_use
from training.status import FAILED, error_record, is_done, read_status, recorded, update_status

log = logging.getLogger(__name__)

STOP_FILE = "SAMG_SWEEP_STOP"  # names a file; once it is there, no further job of the sweep begins
HIDDEN = ".sweep"  # what belongs to a sweep and not to one of its runs


def run_job(train: Callable[[], None], cfg: DictConfig, run_dir: Path) -> None:
    """Train, unless there is nothing to do.

    Args:
        train: does it.
        cfg: the run's configuration.
        run_dir: its directory.

    Raises:
        SystemExit: a run of its own failed or was stopped.
    """
    from training.config import check_same_experiment

    def single() -> None:
        check_same_experiment(cfg, run_dir)
        reason = _nothing_to_do(cfg, run_dir)
        if reason:
            log.info("%s: %s", run_dir, reason)
            return
        with exclusive(run_dir):  # or it would write into another's status
            pass
        # A run that refuses a used directory says nothing about what is there.
        used = cfg.resume == "never" and read_status(run_dir) is not None
        with contextlib.nullcontext() if used else recorded(run_dir):
            _choose_gpu(cfg)
            # joblib's workers name their own method to their children, who do not know it.
            if multiprocessing.get_start_method(allow_none=True) == "loky":
                multiprocessing.set_start_method("spawn", force=True)
            train()

    if in_sweep():
        _survive(single, run_dir)
    else:
        run_script(single, debug=cfg.debug)


def in_sweep() -> bool:
    """Return whether this is a job of ``--multirun``."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def shared_folder() -> Path | None:
    """Return where the runs of a sweep share what is made once, or None outside of a sweep."""
    return Path(HydraConfig.get().sweep.dir).absolute() / HIDDEN if in_sweep() else None


def _nothing_to_do(cfg: DictConfig, run_dir: Path) -> str | None:
    from training.settings import TrainSettings

    if cfg.resume != "never" and is_done(run_dir, TrainSettings.from_config(cfg).planned_decisions):
        return f"finished before. To evaluate: python locoeval.py --model_dir {run_dir} --mode all"
    if not in_sweep():
        return None
    if in_use(run_dir):
        return "another process is training here; left to it."
    status = read_status(run_dir)
    if status is not None and status.state == FAILED and not cfg.sweep.retry_failed:
        message = (status.error or {}).get("message", "")
        return f"failed before ({message}); left alone without sweep.retry_failed=true."
    return None


def jobs_here() -> bool:
    """Return whether a job of the sweep runs in this process, and not in one of its children."""
    return bool(_running)


_running: list[Path] = []


def _survive(single: Callable[[], None], run_dir: Path) -> None:
    """Run a job so that its end, whatever it is, is not the end of the sweep."""
    stop = Path(os.environ.get(STOP_FILE) or run_dir / HIDDEN / "never")
    if stop.exists():
        return
    with requeueing() as requeue, _stoppable(stop):
        _running.append(run_dir)
        try:
            single()
        except (SystemExit, KeyboardInterrupt) as end:
            if isinstance(end, SystemExit):
                requeue()
            if stop.parent.exists():
                stop.touch()
        except SamgError as error:
            report_error(error)
            _keep(run_dir, error)
        except Exception as error:
            log.error("%s failed", run_dir, exc_info=error)
            _keep(run_dir, error)
        finally:
            _running.pop()


@contextlib.contextmanager
def _stoppable(stop: Path) -> Iterator[None]:
    """In a worker process of a launcher, let SIGTERM end the job and nothing else, and SIGINT nothing at all.

    Ctrl-C reaches all processes of a terminal; a worker that dies of it takes its neighbours with it. The
    process that launched them tells those that train to stop (``training.sweeps.front``).
    """
    ours = stop.parent.name.endswith(f"-{os.getpid()}")
    if ours or not stop.parent.exists() or threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _keep(run_dir: Path, error: Exception) -> None:
    """Record an error of a run that did not begin; what a run said of itself stays."""
    if read_status(run_dir) is None:
        update_status(run_dir, state=FAILED, error=error_record(error))


def _ask_this_process() -> bool:
    """Ask the training in this process to save and stop; return whether there is any."""
    if getattr(signal.getsignal(signal.SIGTERM), "__func__", None) is not StopSignal._receive:
        return False
    os.kill(os.getpid(), signal.SIGTERM)
    return True


@contextlib.contextmanager
def requeueing(ask: Callable[[], bool] = _ask_this_process) -> Iterator[Callable[[], None]]:
    """Let a snapshot come before submitit's own answer to its signal; yield what gives that answer.

    submitit saves its job and asks SLURM to put it back into the queue the moment SIGUSR2 arrives, which
    would lose what was trained since the last snapshot. So the signal first asks those who train to stop, and
    the answer is given when they have. Where nobody trains it comes at once.

    Args:
        ask: asks; returns whether there was anybody to ask.
    """
    before = signal.getsignal(signal.SIGUSR2)
    came: list[int] = []
    if "SUBMITIT_EXECUTOR" not in os.environ or "SAMG_PACKED" in os.environ or not callable(before):
        yield lambda: None
        return

    def receive(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if frame is None:  # handed on by ``StopSignal.leave``: it is saved, and the answer is on its way
            return
        if len(came) == 1 and not ask():  # SLURM may say it several times; once is enough
            answer()

    def answer() -> None:
        if came:
            signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # and a requeued job must not be requeued again
            before(came[0], None)

    signal.signal(signal.SIGUSR2, receive)
    try:
        yield answer
    finally:
        if not came:
            signal.signal(signal.SIGUSR2, before)


def _choose_gpu(cfg: DictConfig) -> None:
    """On a workstation with several GPUs, let the processes of a sweep take turns in choosing one."""
    if not in_sweep() or str(cfg.device) not in ("auto", "cuda") or "CUDA_VISIBLE_DEVICES" in os.environ:
        return
    hydra: Any = HydraConfig.get()
    if str(hydra.launcher.get("_target_", "")).endswith("JoblibLauncher"):
        import torch

        count = torch.cuda.device_count()
        if count > 1:  # for the life of this process: CUDA does not change its mind
            os.environ["CUDA_VISIBLE_DEVICES"] = str(int(hydra.job.num) % count)
