"""From the flags of ``locoeval.py`` and a run to what is evaluated and recorded."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from common.masking import MaskerInfo
from common.paths import output_path
from evaluation.cli import Options
from evaluation.evaluate import PADDED_BATCH, fixed_batch
from evaluation.masker_choice import MaskerChoice
from evaluation.results import Conditions
from evaluation.run_directory import Background, RunDirectory
from evaluation.work import Benchmark, LevelWork

logger = logging.getLogger(__name__)


@dataclass
class Job:
    """One run, evaluated with one masker.

    Attributes:
        run: the run.
        background: levels and protocol.
        choice: which masker.
        benchmark: what to evaluate and where to put it.
        reference: what the masker is to be fitted to; None where it is loaded or reads none.
        masker: the masker, once it is made.
        anchors: the body points that the masker's reference points lie on; None where unknown.
        fast_render: draw cheaper shadows.
        networks: the trained networks, once they are loaded.
        works: what has been done, once that is known.
    """

    run: RunDirectory
    background: Background
    choice: MaskerChoice
    benchmark: Benchmark
    reference: Any = None
    masker: Any = None
    anchors: Sequence[Any] | None = None
    fast_render: bool = False
    networks: Any = None
    works: Sequence[LevelWork] = ()


def plan_background(
    options: Options, run: RunDirectory, expand: Callable[[Sequence[str]], tuple[str, ...]]
) -> Background:
    """Return the run's background with everything that the flags change.

    Args:
        options: the flags.
        run: the run.
        expand: turns names of levels, combinations and groups into levels of the run's domain, or raises.
    """
    return run.with_background(
        levels=expand(options.modes or run.background().levels),
        source=options.source,
        data_dir=options.data_dir,
        protocol=options.protocol,
        key=options.key,
    )


def choose_fast_render(options: Options, run: RunDirectory) -> bool:
    """Return whether to draw cheaper shadows: as in training, unless the flags say otherwise."""
    if options.fast_render is None or options.fast_render == run.fast_render:
        return run.fast_render
    logger.warning(
        "the agent was trained with fast_render=%s and is evaluated with fast_render=%s: some pixels differ",
        str(run.fast_render).lower(),
        str(options.fast_render).lower(),
    )
    return options.fast_render


def choose_threads(options: Options, cores: int) -> int:
    """Return the threads of the networks on a CPU: half of the cores, unless the flags say otherwise.

    The simulators need the other half. The number of processes has no say in it: sums over other threads
    differ in their last bits, and an episode must not depend on what is played beside it.
    """
    return options.num_threads or max(cores // 2, 1)


def choose_processes(options: Options, cores: int) -> int:
    """Return how many environments go side by side, at most one per episode.

    Unless the flags say otherwise, as many as the cores that the networks leave, and one that waits for them.
    """
    several = min(cores - choose_threads(options, cores) + 1, cores, PADDED_BATCH)
    return min(options.num_envs or several, options.episodes)


def plan_benchmark(
    options: Options, run: RunDirectory, background: Background, variant: str, on_gpu: bool
) -> Benchmark:
    """Return what to evaluate and where to put it; with several runs, ``--out`` gets a folder for each."""
    out = output_path(options.out) if options.out else None
    if out is not None and len(options.model_dirs) > 1:
        out = out / run.path.name
    videos = (out or run.videos_dir) if options.save_video else None
    return Benchmark(
        levels=background.levels,
        source=background.source,
        masker_name=variant,
        seed=options.seed,
        episodes=options.episodes,
        out=out or run.eval_dir,
        videos=videos,
        overwrite=options.overwrite,
        random_baseline=options.random_baseline,
        frame_stack=int(run.config.frame_stack),
        padded_batch=options.padded_batch or fixed_batch(on_gpu),
    )


def record_conditions(
    run: RunDirectory,
    benchmark: Benchmark,
    background: Background,
    level_facts: dict[str, Any],
    masker: MaskerInfo,
    manifest: dict[str, Any],
) -> Conditions:
    """Return what the result of one level says besides its numbers.

    Args:
        run: the evaluated run.
        benchmark: what is evaluated.
        background: under which protocol.
        level_facts: what ``envs.levels.describe_level`` says, ``level`` included.
        masker: the masker used.
        manifest: of the snapshot, with at least ``agent_steps``.
    """
    agent_steps, repeat = int(manifest["agent_steps"]), int(run.config.action_repeat)
    updates = manifest.get("updates")
    return Conditions(
        task=run.task,
        level=str(level_facts["level"]),
        source=background.source,
        protocol=background.protocol,
        key=background.key,
        colors=background.colors,
        level_facts=level_facts,
        masker=masker.to_dict(),
        training_masker=run.trained_masker(manifest),
        padded_batch=benchmark.padded_batch,
        algorithm=run.algorithm,
        agent={**manifest.get("agent", {}), **run.agent_options},
        agent_steps=agent_steps,
        frames=agent_steps * repeat,
        updates=None if updates is None else int(updates),
        action_repeat=repeat,
        seed=benchmark.seed,
        train_seed=int(run.config.seed),
    )


def background_rules(background: Background) -> dict[str, Any]:
    """Return the arguments that ``envs`` functions take besides the level."""
    rules = dataclasses.asdict(background)
    rules.pop("levels")
    return rules
