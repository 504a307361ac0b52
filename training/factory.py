"""From a configuration to an agent that fits an environment."""

from __future__ import annotations

from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from algos.drqv2 import DrQV2Agent


def make_agent(cfg: DictConfig, venv: Any, device: torch.device) -> DrQV2Agent:
    """Build ``cfg.agent`` for the spaces of a vector environment.

    Args:
        cfg: with ``agent`` (its ``_target_`` and keywords) and ``frame_stack``.
        venv: observations ``{"pixels": uint8 (N, H, W, 3)}``.
        device: where the networks live.
    """
    height, width, channels = venv.single_observation_space["pixels"].shape
    return instantiate(
        cfg.agent,
        obs_shape=(channels * cfg.frame_stack, height, width),
        action_shape=venv.single_action_space.shape,
        device=str(device),
    )
