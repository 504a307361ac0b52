"""The real loop makes DrQ-v2 better at the fake pixel task."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.agents import returns, train_on_bars


def gain(run_dir: Path, decisions: int) -> float:
    """Train on the bars and return how many times the random policy's mean return the agent reaches."""
    agent = train_on_bars("drqv2", run_dir, decisions, size=24, frame_stack=1)
    return returns(agent, size=24, frame_stack=1) / returns(None, size=24, frame_stack=1)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_the_agent_learns(tmp_path: Path) -> None:
    assert gain(tmp_path, 900) > 2.2


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_the_agent_learns_nearly_all_there_is(tmp_path: Path) -> None:
    assert gain(tmp_path, 2500) > 3.3
