"""Agents: what maps a stack of masked frames to an action and learns from a batch of transitions."""

from algos.agent import Agent, Batch
from algos.curl import CURLAgent
from algos.drq import DrQAgent
from algos.drqv2 import DrQV2Agent
from algos.pieg import PIEGAgent
from algos.sgqn import SGQNAgent
from algos.srm import SRMAgent
from algos.svea import SVEAAgent
from algos.vrl3 import VRL3Agent

__all__ = [
    "Agent",
    "Batch",
    "CURLAgent",
    "DrQAgent",
    "DrQV2Agent",
    "PIEGAgent",
    "SGQNAgent",
    "SRMAgent",
    "SVEAAgent",
    "VRL3Agent",
]
