"""An agent that updates as DrQ-v2's published code does: what the project's own speed is compared with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from algos import DrQV2Agent


class PlainUpdates(DrQV2Agent):
    """Takes optimiser steps as PyTorch's manual shows them, and as the published code does.

    Adam goes through the parameters one by one with a pass for each of its operations, and every loss is
    differentiated for whatever it depends on: the actor's for the critic too, which nobody reads.
    """

    def adam(self, *networks: nn.Module, lr: float | None = None, beta: float = 0.9) -> torch.optim.Adam:
        """Return an optimiser that computes as PyTorch's does by default."""
        made = super().adam(*networks, lr=lr, beta=beta)
        for group in made.param_groups:
            group["fused"] = None
        return made

    def minimise(self, loss: Tensor, *optimizers: torch.optim.Optimizer) -> None:
        """Take one step of each optimiser down the gradient of ``loss``."""
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()


def as_published(agent: DrQV2Agent) -> DrQV2Agent:
    """Let a fresh agent of any algorithm take its steps plainly, and return it."""
    kind = type(agent)
    agent.__class__ = type(f"Plain{kind.__name__}", (PlainUpdates, kind), {})
    agent.build_optimizers()
    return agent
