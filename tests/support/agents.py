"""Small agents and batches for the tests of the algorithms, and a pixel task they can learn."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

import algos
from algos import Batch, DrQV2Agent
from tests.support.fake_env import FAKE_MASKER_INFO, FakeVectorEnv, PixelFakeEnv, reset_fake_episodes
from training.workspace import Workspace
from wrappers import FrameStack

SHAPE = (9, 44, 44)  # SVEA's eleven convolutions need 43 pixels
ACTIONS = 3
OVERLAYS: dict[str, Any] = {"overlay_images": 16}
AGENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "drqv2": ("DrQV2Agent", {}),
    "svea": ("SVEAAgent", OVERLAYS),
    "srm": ("SRMAgent", {**OVERLAYS, "mask_probability": 0.9}),
    "sgqn": ("SGQNAgent", OVERLAYS),
    "pieg": ("PIEGAgent", {**OVERLAYS, "encoder_weights": "random"}),
    "curl": ("CURLAgent", {}),
    "curl-rlvigen": ("CURLAgent", {"momentum_encoder": False, "shared_optimizer": True}),
    "vrl3": ("VRL3Agent", {}),
    "drq": ("DrQAgent", {}),
    "drq-original": ("DrQAgent", {"keep_original": True, "target_views": 3, "critic_views": 1}),
}
# What one update moves; ``critic_target`` and ``key_encoder`` follow slowly.
CORE = {"encoder", "actor", "critic", "critic_target"}
MOVED = {
    "drqv2": CORE,
    "svea": CORE,
    "srm": CORE,
    "sgqn": CORE | {"decoder"},
    "pieg": CORE,
    "curl": CORE | {"similarity", "key_encoder"},
    "curl-rlvigen": CORE | {"similarity"},
    "vrl3": CORE,
    "drq": CORE | {"temperature"},
    "drq-original": CORE | {"temperature"},
}


def make_agent(name: str, shape: tuple[int, ...] = SHAPE, **options: Any) -> Any:
    """Return a small agent of ``AGENTS``."""
    kind, own = AGENTS[name]
    sizes = {"feature_dim": 8, "hidden_dim": 16, "num_expl_steps": 10}
    return getattr(algos, kind)(obs_shape=shape, action_shape=(ACTIONS,), **(sizes | own | options))


def make_batch(size: int = 5, seed: int = 0, shape: tuple[int, ...] = SHAPE, state_dim: int = 0) -> Batch:
    """Return random transitions."""
    g = torch.Generator().manual_seed(seed)
    frames = torch.randint(0, 256, (2, size, *shape), generator=g, dtype=torch.uint8)
    action = torch.rand(size, ACTIONS, generator=g) * 2 - 1
    reward, discount = torch.rand(size, 1, generator=g), torch.full((size, 1), 0.97)
    states = torch.randn(2, size, state_dim, generator=g)
    return Batch(frames[0], action, reward, discount, frames[1], *states)


def snapshot(agent: DrQV2Agent) -> dict[str, dict[str, Tensor]]:
    """Return copies of all parameters and buffers by network and name."""
    return {
        name: {key: value.clone() for key, value in network.state_dict().items()}
        for name, network in agent.networks().items()
    }


def moved(agent: DrQV2Agent, before: dict[str, dict[str, Tensor]]) -> set[str]:
    """Return the names of the networks that differ from ``before``."""
    return {
        name
        for name, network in agent.networks().items()
        if any(not torch.equal(value, before[name][key]) for key, value in network.state_dict().items())
    }


def returns(agent: DrQV2Agent | None, size: int, episodes: int = 20, frame_stack: int = 2) -> float:
    """Return the mean return of the mean policy, or of uniformly random actions, on the bars."""
    env, rng, total = PixelFakeEnv(size=size), np.random.default_rng(0), 0.0
    for episode in range(episodes):
        env.episode = episode
        obs, _ = env.reset(seed=10_000 + episode)
        stack = FrameStack(frame_stack, 1, obs["pixels"].shape)
        stacked, over = stack.reset(obs["pixels"][None]), False
        while not over:
            action = rng.uniform(-1, 1, 1) if agent is None else agent.act(stacked, 10**6, eval_mode=True)[0]
            obs, reward, terminated, truncated, _ = env.step(action)
            total, over = total + reward, terminated or truncated
            stacked = stack.push(obs["pixels"][None])
    return total / episodes


def train_on_bars(
    name: str,
    run_dir: Path,
    decisions: int,
    size: int = 48,
    frame_stack: int = 2,
    demonstrations: Any = list,
    **options: Any,
) -> DrQV2Agent:
    """Train an agent of ``AGENTS`` on the bars with the real loop and return it."""
    kind, own = AGENTS[name]
    agent = {"lr": 5e-4, "feature_dim": 32, "hidden_dim": 128, "critic_target_tau": 0.02}
    agent |= {"num_expl_steps": 300, "stddev_schedule": "linear(1.0,0.1,500)"} | own | options
    cfg = {"action_repeat": 1, "num_train_frames": decisions, "num_seed_frames": 300, "update_every_steps": 1}
    cfg |= {"frame_stack": frame_stack, "batch_size": 32, "nstep": 1, "discount": 0.8, "seed": 0}
    cfg |= {"num_envs": 1, "eval_every_frames": 0, "num_eval_episodes": 0, "snapshot_every_frames": 0}
    learner = getattr(algos, kind)((3 * frame_stack, size, size), (1,), **agent)
    run = Workspace(
        SimpleNamespace(**cfg), FakeVectorEnv(1, length=20, size=size), learner, FAKE_MASKER_INFO, run_dir,
        lambda agent, step: {}, reset_fake_episodes, resume_command="train again",
        console=Console(file=io.StringIO()), demonstrations=demonstrations,
    )  # fmt: skip
    run.train()
    return learner
