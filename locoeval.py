"""Evaluate a trained agent on the levels of the generalisation benchmark; see ``--help``."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from common.errors import run_script

# Every environment process imports this file again: what is slow to import is imported where it is used.
if TYPE_CHECKING:
    import torch

    from common.masking import ObservationMasker
    from evaluation.masker_choice import MaskerChoice
    from evaluation.run_directory import RunDirectory
    from samg import Reference


def main(argv: Sequence[str]) -> None:
    """Evaluate the agent of a run of train.py on one or several levels of the benchmark.

    python locoeval.py --model_dir RUN --mode train color_hard video_hard --episodes 10

    Without further flags the agent is evaluated as it was trained: its task, its masker, its background. Each
    level gives one JSON file with all episode returns, RUN/eval/LEVEL-SOURCE-MASKER-sSEED.json, and the call
    ends with a table and a picture of what the masker and the agent saw. Nothing that exists is overwritten
    without --overwrite.

    --masker, or the reference flags (--original_image, --masked_image, ...), evaluate with another masker
    than in training; the results record both. --allow-masker-mismatch fits the run's own masker anew when
    its weights have changed since. Flags may be written with hyphens or underscores.
    """
    import envs
    from common.devices import resolve_device
    from envs.levels import LEVELS, build_scene, describe_level
    from evaluation.benchmark import print_report, run_benchmark
    from evaluation.cli import parse_options
    from evaluation.masker_choice import check_masker, choose_masker
    from evaluation.plan import background_rules, plan_background, plan_benchmark, record_conditions
    from evaluation.run_directory import RunDirectory

    # Everything is checked before a network is loaded.
    options = parse_options(argv, LEVELS, main.__doc__ or "")
    run = RunDirectory.open(options.model_dir, options.agent)
    run.check_task(options.domain_name, options.task_name)
    run.check_algorithm(options.algorithm)
    background = plan_background(options, run)
    rules, size = background_rules(background), int(run.config.image_size)
    for level in background.levels:
        build_scene(level, envs.find_task(run.task).domain, image_size=size, **rules)
    envs.check_rendering()
    allow = options.allow_masker_mismatch
    choice = choose_masker(run, options.masker, options.use_sam_g, options.reference, allow)

    from samg import Reference
    from training.snapshot import load_agent

    reference = Reference.load(**choice.reference) if choice.reference else None
    if reference is not None:
        reference.check_resolution(size)
    device = resolve_device(options.device)
    benchmark = plan_benchmark(options, run, background, choice.variant, device.type == "cuda")
    benchmark.check_outputs()

    networks, manifest = load_agent(run.path)
    masker = make_masker(run, choice, reference, device)
    check_masker(masker.info, run.trained_masker(), choice, allow)
    make_venv = functools.partial(
        envs.make_vector_env,
        run.task,
        min(options.num_envs, options.episodes),
        seed=options.seed,
        image_size=size,
        action_repeat=int(run.config.action_repeat),
        foreground=True,
        **rules,
    )
    report = run_benchmark(
        benchmark,
        make_venv=lambda level: make_venv(level=level),
        make_agent=lambda venv: make_trained_agent(run, venv, networks, device),
        masker=masker,
        conditions=lambda level: record_conditions(
            run, benchmark, background, describe_level(level, **rules), masker.info, manifest
        ),
    )
    print_report(report)


def make_masker(
    run: RunDirectory, choice: MaskerChoice, reference: Reference | None, device: torch.device
) -> ObservationMasker:
    """Load the run's masker, or fit the one that was asked for."""
    from samg import build_masker, load_masker

    if choice.load:
        return load_masker(run.masker_dir, device, choice.settings.get("weights"))
    return build_masker(choice.variant, device, **choice.settings).fit(reference)


def make_trained_agent(run: RunDirectory, venv: Any, networks: dict[str, Any], device: torch.device) -> Any:
    """Build the run's agent for the spaces of ``venv`` and load its trained networks."""
    from training.factory import make_agent

    agent = make_agent(run.config, venv, device)
    agent.load_networks(networks)
    return agent


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]), debug="--debug" in sys.argv)
