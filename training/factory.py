"""From a configuration to an agent that fits an environment, and what is recorded of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig

from algos.drqv2 import DrQV2Agent
from algos.imagenet import find_weights
from algos.overlays import OverlaySource
from common.errors import ConfigError, SamgError
from common.views import stacked_shape, view_count


def make_agent(cfg: DictConfig, venv: Any, device: torch.device) -> DrQV2Agent:
    """Build ``cfg.agent`` for the spaces of a vector environment.

    Args:
        cfg: with ``agent`` (its ``_target_`` and keywords) and ``frame_stack``.
        venv: observations ``{"pixels": uint8 (N, [V,] H, W, 3)}``, and ``"state"``, float32 (N, S), where
            there is proprioception. The views of V cameras are channels of one observation.
        device: where the networks live.

    Returns:
        An agent that can act once its networks are loaded. Nothing that only learning needs has been read, be
        it images or ImageNet weights: a snapshot holds frozen networks too, so that an evaluation needs no
        other file than the run's. Training calls ``prepare_agent``.

    Raises:
        ConfigError: the agent refuses a value.
    """
    space = venv.single_observation_space
    channels, height, width = stacked_shape(space["pixels"].shape)
    views = view_count(space["pixels"].shape)
    return _build(
        cfg,
        obs_shape=(channels * cfg.frame_stack, height, width),
        **({"views": views} if views > 1 else {}),
        action_shape=venv.single_action_space.shape,
        device=str(device),
        state_dim=state_size(space),
    )


def state_size(space: Any) -> int:
    """Return S of the ``state`` in a dictionary space of observations; 0 where it has none.

    Raises:
        ConfigError: it is no float32 vector.
    """
    if "state" not in space.spaces:
        return 0
    state = space["state"]
    if len(state.shape) != 1 or state.dtype != np.float32:
        raise ConfigError(
            f"The observation's state is {state.dtype} of shape {state.shape}.",
            "Let the environment give a float32 vector.",
        )
    return int(state.shape[0])


def check_agent_files(cfg: DictConfig) -> None:
    """Find the files that the agent learns from, before anything slow is done; ImageNet weights are fetched.

    Raises:
        InputError: a file or folder is missing or empty, or cannot be fetched.
    """
    if "encoder_weights" in cfg.agent:
        find_weights(cfg.agent.encoder_weights)
    if cfg.agent.get("overlay_dir"):
        _ = OverlaySource(cfg.agent.overlay_dir, 1, 1, 1, cfg.seed, torch.device("cpu")).files


def _build(cfg: DictConfig, **arguments: Any) -> DrQV2Agent:
    """Instantiate ``cfg.agent``; an error of the agent's own is raised as it is."""
    try:
        return instantiate(cfg.agent, **arguments)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, SamgError):
            raise cause from None
        if isinstance(cause, TypeError):
            raise ConfigError(
                f"{cfg.agent._target_} cannot be made: {cause}.", "Check the keys of agent."
            ) from error
        raise


def prepare_agent(agent: DrQV2Agent) -> dict[str, Any]:
    """Load what the agent learns from besides the batches; return its record: plain JSON values.

    Raises:
        InputError: a file or folder is missing or damaged.
    """
    return {"class": type(agent).__name__, **agent.prepare()}


def describe_agent(record: dict[str, Any]) -> str:
    """Return the record in words, such as ``PIEGAgent (encoder weights: random)``."""
    parts = []
    for key, value in record.items():
        name = value.get("name") if isinstance(value, dict) else value
        if key != "class":
            parts.append(f"{key.replace('_', ' ')}: {str(name)[:64]}")
    return f"{record['class']} ({'; '.join(parts)})" if parts else str(record["class"])


def check_same_agent(saved: dict[str, Any] | None, now: dict[str, Any]) -> None:
    """Refuse to continue a run with another agent or another frozen network.

    Images laid over observations may change (the agent warns): a run can go on with others.

    Args:
        saved: record in the snapshot; None in snapshots older than records.
        now: record of the agent at hand.

    Raises:
        ConfigError: they differ; both are named.
    """
    if saved is None:
        return
    frozen = ("class", "encoder_sha256", "encoder_seed")
    if any(saved.get(key) != now.get(key) for key in frozen):
        raise ConfigError(
            f"The run was trained with {describe_agent(saved)}, not with {describe_agent(now)}.",
            "Choose the same agent and weights again, or another folder with hydra.run.dir=DIR.",
        )
