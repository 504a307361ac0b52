"""What the training loop and the evaluation ask of an agent, and the batch an agent learns from."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

Rows = np.ndarray | Tensor  # one row per environment
_NO_STATE = torch.empty(0, 0)


class Batch(NamedTuple):
    """Transitions over ``n`` decisions, drawn from the replay buffer.

    Attributes:
        obs: uint8 (B, C, H, W) in [0, 255], stacked masked frames.
        action: float32 (B, A) in [-1, 1].
        reward: float32 (B, 1), the discounted sum of the next n rewards.
        discount: float32 (B, 1), what the value of ``next_obs`` is multiplied with; 0 after termination.
        next_obs: uint8 (B, C, H, W), the observation n decisions later.
        state: float32 (B, S), proprioception beside ``obs``, of its newest frame; S = 0 where there is none.
        next_state: float32 (B, S), the same beside ``next_obs``.
    """

    obs: Tensor
    action: Tensor
    reward: Tensor
    discount: Tensor
    next_obs: Tensor
    state: Tensor = _NO_STATE
    next_state: Tensor = _NO_STATE

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on ``device``; copies from pinned memory do not wait."""
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in self))


@runtime_checkable
class Agent(Protocol):
    """A learning policy."""

    def act(self, obs: Rows, step: int, eval_mode: bool, state: Rows | None = None) -> np.ndarray:
        """Return float32 (N, A) actions in [-1, 1] for uint8 (N, C, H, W) observations.

        Args:
            obs: stacked frames.
            step: decisions made so far in the run; drives exploration.
            eval_mode: act by the mean of the policy; draws no random number.
            state: float32 (N, S), what the observations hold beside pixels; None where they hold nothing.
        """
        ...

    def update(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Learn from one batch and return scalar metrics, detached and still on the device."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return everything a resumed run needs: ``networks``, ``optimizers`` and ``generators``."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        ...

    def load_networks(self, networks: dict[str, Any]) -> None:
        """Restore the networks only, which is all an evaluation needs."""
        ...
