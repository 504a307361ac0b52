"""Draw what a masker makes of a task's frames, or of your own; see ``--help``."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import run_script

if TYPE_CHECKING:
    from common.masking import ObservationMasker
    from evaluation.run_directory import RunDirectory


def main(argv: Sequence[str]) -> None:
    """Draw frames with similarity map, points, the masks of all passes, and what the agent would see.

    python visualize.py --task_name walker_walk --level video_hard --background_source procedural
    python visualize.py --model_dir RUN --level color_hard
    python visualize.py --images DIR --original_image robot.png --masked_image robot_mask.png

    Without --model_dir the actions are random and the reference is the task's own, unless --original_image
    and --masked_image are given. Beside the picture lie a video of the same panels and a JSON file with
    points, boxes, mask areas and, where a simulator knows, IoU of every frame.
    """
    from envs.levels import LEVELS
    from evaluation.showing import parse_flags
    from samg import VARIANTS

    flags = parse_flags(argv, inspect.cleandoc(main.__doc__ or ""), VARIANTS, LEVELS)
    for path in show_footage(flags) if flags.footage else show_task(flags):
        sys.stdout.write(f"wrote {path}\n")


def show_task(flags: Any) -> list[Path]:
    """Draw an episode; every input is checked before a network is loaded."""
    import envs
    from common.devices import resolve_device
    from envs.levels import get_level
    from evaluation.plan import background_rules
    from evaluation.run_directory import canonical_task, task_from_flags
    from evaluation.scenes import agent_policy, as_vector, play, random_policy
    from evaluation.showing import Showing, choose_background, open_run, task_config
    from training.factory import make_agent
    from training.snapshot import load_agent

    run = open_run(flags)
    task = task_from_flags(None, flags.task_name, run.task if run else "walker_walk")
    task = canonical_task(envs.find_task(task).name)
    background = choose_background(flags, run.background() if run else None)
    rules = {"level": get_level(background.levels[0]).name, **background_rules(background)}
    fit, seen = run_masker(flags, run) if run else own_masker(flags, *task_config(flags, task))
    rules |= {**seen, "action_repeat": int(run.config.action_repeat) if run else 2}
    with closing(envs.make_env(task, seed=flags.seed, foreground=True, **rules)) as env:
        masker = fit()
        policy, actor = random_policy(env.action_space, flags.seed), "random actions"
        if run:
            networks, manifest = load_agent(run.path)
            agent = make_agent(run.config, as_vector(env), resolve_device(flags.device))
            agent.load_networks(networks)
            policy = agent_policy(agent, int(run.config.frame_stack), int(manifest["agent_steps"]))
            actor = f"{run.algorithm} after {manifest['agent_steps']:,} decisions"
        showing = Showing.of_task(flags, task, rules, actor, masker.info)
        return showing.show(play(env, masker, policy, showing.total, flags.seed))


def show_footage(flags: Any) -> list[Path]:
    """Draw pictures or a video of the user's; every file is checked before a network is loaded."""
    from evaluation.footage import open_footage
    from evaluation.scenes import footage_scenes
    from evaluation.showing import Showing

    fit, seen = own_masker(flags)
    footage = open_footage(flags.images, flags.video_file, seen["image_size"])
    masker = fit()
    showing = Showing.of_footage(flags, footage, masker.info)
    return showing.show(footage_scenes(footage.frames(showing.total), masker))


def own_masker(flags: Any, *task: str) -> tuple[Callable[[], ObservationMasker], dict[str, Any]]:
    """Check masker and reference; return what fits it, and ``image_size`` and ``camera`` of its frames."""
    from common.devices import resolve_device
    from evaluation.run_directory import chosen_cameras
    from evaluation.showing import masker_reference, masker_settings
    from samg import build_masker, load_reference
    from training.config import compose_config

    config = compose_config([*task, f"masker={flags.masker}"])
    builder = build_masker(device=resolve_device(flags.device), **masker_settings(flags, config))
    chosen = masker_reference(flags, config)
    reference = load_reference(chosen) if chosen else None
    size = reference.size if reference else config.image_size
    return functools.partial(builder.fit, reference), {"image_size": size, "camera": chosen_cameras(config)}


def run_masker(flags: Any, run: RunDirectory) -> tuple[Callable[[], ObservationMasker], dict[str, Any]]:
    """Choose the masker of a run, or another for it; return what ``own_masker`` does."""
    from common.devices import resolve_device
    from evaluation.masker_choice import choose_masker
    from evaluation.showing import reference_flags
    from samg import build_masker, load_masker, load_reference

    device = resolve_device(flags.device)
    choice = choose_masker(run, flags.run_masker, None, reference_flags(flags))
    seen = {"image_size": int(run.config.image_size), "camera": run.camera}
    reference = load_reference(choice.reference, seen["image_size"]) if choice.reference else None
    if choice.load:
        saved = (run.masker_dir, device, choice.settings.get("weights"), choice.settings)
        return functools.partial(load_masker, *saved), seen
    return functools.partial(build_masker(choice.variant, device, **choice.settings).fit, reference), seen


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]), debug="--debug" in sys.argv)
