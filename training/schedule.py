"""When things are due, so that the loop does not count frames itself; frames = decisions x action repeat."""

from __future__ import annotations

from algos.schedules import parse_schedule

__all__ = ["Every", "Until", "parse_schedule"]


class Until:
    """True until that many frames have passed; None means always."""

    def __init__(self, frames: int | None, action_repeat: int = 1) -> None:
        self.steps = None if frames is None else frames // action_repeat

    def __call__(self, agent_steps: int) -> bool:
        """Return whether fewer than the given frames have passed after ``agent_steps`` decisions."""
        return self.steps is None or agent_steps < self.steps


class Every:
    """True when a multiple of that many frames has just been reached; None or 0 means never.

    Args:
        frames: the period in frames.
        action_repeat: frames per decision.
        stride: decisions made between two questions (the number of environments).
    """

    def __init__(self, frames: int | None, action_repeat: int = 1, stride: int = 1) -> None:
        self.steps = max(frames // action_repeat, 1) if frames else 0
        self.stride = stride

    def __call__(self, agent_steps: int) -> bool:
        """Return whether a multiple was reached by the last ``stride`` of ``agent_steps`` decisions."""
        if not self.steps:
            return False
        return agent_steps // self.steps != (agent_steps - self.stride) // self.steps
