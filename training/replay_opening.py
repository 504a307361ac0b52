"""The replay buffer of a run, in memory that was checked before."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from algos.drqv2 import DrQV2Agent
from common.paths import output_path
from training.preflight import update_bytes
from training.replay_buffer import ReplayBuffer
from training.replay_cache import check_batch, choose_frames
from training.settings import TrainSettings


def open_replay(
    run_dir: Path,
    cfg: TrainSettings,
    frame_shape: Sequence[int],
    num_envs: int,
    agent: DrQV2Agent,
    demonstrated: int = 0,
) -> ReplayBuffer:
    """Return an empty buffer as the settings want it.

    Args:
        run_dir: of the run; episodes lie in its folder ``replay``.
        cfg: of the run.
        frame_shape: (H, W, 3) of one masked frame, or (V, H, W, 3) of V cameras.
        num_envs: environments collecting at the same time.
        agent: for whom batches are made.
        demonstrated: transitions that are there from the start.

    Raises:
        ConfigError: the cache is unknown, or the agent's device has none of that kind.
        ResourceError: a batch would not fit, or the rows, filled in the course of days, beside updates.
    """
    device = agent.device
    capacity = cfg.replay_capacity(demonstrated)
    check_batch(cfg.batch_size, cfg.frame_stack * math.prod(frame_shape), device)
    directory = output_path(cfg.replay_cache_dir) if cfg.replay_cache_dir else run_dir
    pin_memory = device.type == "cuda"
    beside = partial(update_bytes, agent, cfg.batch_size)
    open_frames = choose_frames(cfg.replay_cache, capacity, device, directory, pin_memory, beside)
    return ReplayBuffer(
        run_dir / "replay",
        frame_shape,
        agent.action_dim,
        capacity,
        nstep=cfg.nstep,
        discount=cfg.discount,
        frame_stack=cfg.frame_stack,
        seed=cfg.seed,
        num_envs=num_envs,
        prefetch=cfg.prefetch,
        open_frames=open_frames,
        max_lost=cfg.max_lost,
        state_dim=agent.state_dim,
    )
