"""Agents: what maps a stack of masked frames to an action and learns from a batch of transitions."""

from algos.agent import Agent, Batch
from algos.drqv2 import DrQV2Agent

__all__ = ["Agent", "Batch", "DrQV2Agent"]
