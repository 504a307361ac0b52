"""Agents: what maps a stack of masked frames to an action and learns from a batch of transitions."""

from __future__ import annotations

from typing import Any

from algos.agent import Agent, Batch
from algos.drqv2 import DrQV2Agent
from common.errors import unknown_choice

AGENTS: dict[str, type[DrQV2Agent]] = {"drqv2": DrQV2Agent}


def build_agent(name: str, **options: Any) -> DrQV2Agent:
    """Return the agent called ``name``; ``options`` are the keywords of its constructor.

    Raises:
        ConfigError: there is no agent of that name.
    """
    if name not in AGENTS:
        raise unknown_choice("agent", name, AGENTS)
    return AGENTS[name](**options)


__all__ = ["AGENTS", "Agent", "Batch", "DrQV2Agent", "build_agent"]
