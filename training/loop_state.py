"""What the training loop itself knows, as a snapshot keeps it, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from common.seeding import generator_states, restore_generators

if TYPE_CHECKING:
    from training.workspace import Workspace


def loop_state(run: Workspace) -> dict[str, Any]:
    """Return everything but agent and counters that a resumed run needs; ``training.flatten`` stores it."""
    return {
        "updated_steps": run.updated_steps,
        "pending": run.pending,
        "done": run.done,
        "generators": generator_states(),
        "config": run.config,
        "next_episode": run.next_episode,
        "episodes": run.episodes,
        "evaluation_due": run.evaluation_due,
        "mask_sums": run.mask_sums,
        "metrics": run.logger.metrics.state_dict(),
        "stack": run.stack.frames,
        "state": run.state,
        "replay": run.replay.state_dict(),
        "env_states": run.env_states(),
        "mask_memory": getattr(run.venv, "mask_memory", []),
    }


def restore_loop(run: Workspace, loop: dict[str, Any]) -> None:
    """Restore ``loop_state`` and the counters; replay and environments of ``run`` must be fresh."""
    run.agent_steps, run.updates = loop["agent_steps"], loop["updates"]
    run.updated_steps = loop.get("updated_steps", run.agent_steps)  # absent in older snapshots, as below
    run.pending = loop.get("pending")
    run.done = loop.get("done", np.zeros(run.num_envs, bool))
    run.next_episode, run.episodes = loop["next_episode"], loop["episodes"]
    run.mask_sums = loop["mask_sums"]
    run.logger.metrics.load_state_dict(loop["metrics"], run.agent.device)
    run.evaluation_due = loop["evaluation_due"] and run.logger.last_step("eval") != run.agent_steps
    run.replay.load_state_dict(loop["replay"])
    run.stack.frames = loop["stack"]
    height, width = run.frame_shape[-3:-1]
    run.obs = run.stack.frames.reshape(run.num_envs, -1, height, width)
    run.state = loop.get("state")
    run.starts = loop["env_states"]
    if not run.done.all():
        run.venv.set_attr("state", run.starts)
    if loop.get("mask_memory"):
        run.venv.mask_memory = loop["mask_memory"]
    if "generators" in loop:
        restore_generators(loop["generators"])
