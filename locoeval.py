"""Evaluate trained agents on the levels of the generalisation benchmark; see ``--help``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from common.errors import run_script
from common.stopping import StopSignal, run_until_stopped

# Every environment process imports this file again: what is slow to import is imported where it is used.
if TYPE_CHECKING:
    import torch

    from common.masking import ObservationMasker
    from evaluation.benchmark import Report
    from evaluation.cli import Options
    from evaluation.plan import Job


def main(argv: Sequence[str]) -> int:
    """Evaluate the agents of runs of train.py on one or several levels of the benchmark.

    python locoeval.py --model_dir RUN --mode all
    python locoeval.py --model_dir RUN --mode train video_hard+cam_pos_easy --masker none tiny groundtruth

    Without further flags an agent is evaluated as it was trained: its task, its masker, its background. Each
    level gives one JSON file with all episode returns, RUN/eval/LEVEL-SOURCE-MASKER-sSEED.json, and the call
    ends with a table and a picture of what the masker and the agent saw. Nothing that exists is overwritten
    without --overwrite. What was interrupted, by Ctrl-C or otherwise, continues when the same command is
    given again: finished levels and episodes are kept.

    --masker, or the reference flags (--original_image, --masked_image, ...), evaluate with other maskers than
    in training; the results record both. --allow-masker-mismatch fits the run's own masker anew when its
    weights have changed since. Flags may be written with hyphens or underscores.
    """
    from envs.levels import GROUPS, LEVELS
    from evaluation.cli import parse_options

    options = parse_options(argv, [*LEVELS, *GROUPS], main.__doc__ or "")
    command = shlex.join(["python", sys.argv[0], *argv])
    farewell = f"Stopped; finished episodes are kept. To continue: {command}"
    return run_until_stopped(
        lambda stop: evaluate_runs(options, stop),
        lambda: print(farewell, file=sys.stderr),  # noqa: T201
    )


def evaluate_runs(options: Options, stop: StopSignal) -> None:
    """Check everything, make all maskers, then evaluate run by run and masker by masker."""
    from common.cores import count_cores
    from common.devices import resolve_device
    from evaluation.benchmark import print_report, run_benchmark
    from evaluation.plan import choose_threads
    from samg import load_reference
    from training.judging import make_job_venv, make_trained_agent, plan_jobs, prepare_job

    device = resolve_device(options.device, choose_threads(options, count_cores()))
    jobs = plan_jobs(options, device, load_reference)
    for job in jobs:
        prepare_job(job, options, make_masker(job, device))
    reports: dict[str, list[Report]] = {}
    for job in jobs:
        before = reports.setdefault(str(job.run.path), [])
        report = run_benchmark(
            job.benchmark,
            job.works,
            make_venv=partial(make_job_venv, job, options, device),
            make_agent=partial(make_trained_agent, job, device),
            masker=job.masker,
            stop=stop,
            random_returns=before[0].random_returns if before else None,
        )
        before.append(report)
    for found in reports.values():
        print_report(found)


def make_masker(job: Job, device: torch.device) -> ObservationMasker:
    """Load the run's masker, or fit the one that was asked for."""
    from samg import build_masker, load_masker

    choice = job.choice
    if choice.load:
        return load_masker(job.run.masker_dir, device, choice.settings.get("weights"), choice.settings)
    return build_masker(choice.variant, device, **choice.settings).fit(job.reference)


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]), debug="--debug" in sys.argv)
