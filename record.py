"""Record demonstrations with a trained policy or a simple one; see ``--help``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from common.errors import run_script
from common.stopping import run_until_stopped

# Every environment process imports this file again: what is slow to import is imported where it is used.
if TYPE_CHECKING:
    from evaluation.console import EpisodeProgress
    from training.demonstrations.command import Options
    from training.demonstrations.recording import Attempt


def main(argv: Sequence[str]) -> int:
    """Record episodes that train.py can begin with: demonstrations=FILE.

    python record.py --model_dir runs/adroit_door/vrl3-tiny-s0 --episodes 25 --out door.npz
    python record.py --task pen --policy still --episodes 10 --attempts 200 --out pen.npz

    Episodes are played until enough of them are kept: by default those that succeed, where the task tells.
    The file holds seeds, where each episode began, actions, return and success, no pictures: train.py plays
    the actions again, drawn and masked for the run that learns from them. It is written whole at the end, or
    not at all. Policies without a run see nothing: random actions, or still, every actuator in its middle.
    """
    from training.demonstrations.command import parse_options

    options = parse_options(argv, main.__doc__ or "")
    return run_until_stopped(
        lambda stop: write(options),
        lambda: print("Stopped; nothing was written.", file=sys.stderr),  # noqa: T201
    )


def write(options: Options) -> None:
    """Play, choose and write."""
    import envs
    from evaluation.console import EpisodeProgress
    from training.demonstrations.formats import write_archive
    from training.demonstrations.recording import attempts_of_policy, record

    with ExitStack() as stack:
        env = stack.enter_context(closing(envs.make_env(options.task, action_repeat=options.action_repeat)))
        progress = stack.enter_context(EpisodeProgress())
        progress.begin(f"{options.task}, {options.policy}", options.attempts)
        if options.run is None:
            attempts = attempts_of_policy(options.policy, env, options.decisions, options.seed)
            about = {"policy": options.policy}
        else:
            attempts, about = trained_attempts(options, progress, stack)
        kept, made = record(env, attempts, options.wanted, options.attempts, progress.finish)
    about |= {"seed": options.seed, "attempts": made, "outcome": options.wanted.outcome}
    write_archive(options.out, options.task, options.action_repeat, kept, about)
    mean = sum(episode.total_reward for episode in kept) / len(kept)
    solved = [episode.success for episode in kept if episode.success is not None]
    told = f", {sum(solved)} successful" if solved else ""
    few = "" if len(kept) == options.wanted.most else f" ({options.wanted.most} were wanted)"
    print(f"{options.out}: {len(kept)} of {made} episodes{few}, mean return {mean:.1f}{told}.")  # noqa: T201
    print(f"To begin with them: python train.py ... demonstrations={options.out}")  # noqa: T201


def trained_attempts(
    options: Options, progress: EpisodeProgress, stack: ExitStack
) -> tuple[Iterator[Attempt], dict[str, object]]:
    """Return the episodes of a run's agent, and what is written of it; ``stack`` closes what is opened."""
    import envs
    from common.devices import resolve_device
    from evaluation.evaluate import fixed_batch
    from evaluation.plan import background_rules
    from samg import load_masker
    from training.demonstrations.recording import attempts_of_agent
    from training.factory import make_agent
    from training.snapshot import load_agent

    run, device = options.run, resolve_device(options.device)
    assert run is not None
    envs.check_rendering()
    background, settings = run.background(), run.masker_settings(run.masker_variant)
    masker = load_masker(run.masker_dir, device, settings.get("weights"), settings)
    networks, manifest = load_agent(run.path)
    venv = envs.make_vector_env(
        options.task, options.num_envs, level=background.levels[0], seed=options.seed, learner=device,
        image_size=int(run.config.image_size), action_repeat=options.action_repeat,
        foreground=run.masker_variant == "groundtruth", fast_render=run.fast_render, camera=run.camera,
        **background_rules(background),
    )  # fmt: skip
    stack.callback(venv.close)
    agent = make_agent(run.config, venv, device)
    agent.load_networks(networks)
    attempts = attempts_of_agent(
        agent, venv, options.seed, progress.see, masker=masker, agent_step=int(manifest["agent_steps"]),
        frame_stack=int(run.config.frame_stack), padded_batch=fixed_batch(device.type == "cuda"),
    )  # fmt: skip
    about = {"policy": run.algorithm, "agent_steps": int(manifest["agent_steps"])}
    return attempts, {**about, "masker": masker.info.fingerprint}


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]), debug="--debug" in sys.argv)
