"""What an evaluation says while it works."""

import io

import pytest
from rich.console import Console

from evaluation import console


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_now_and_then(clock):
    written = io.StringIO()
    with console.EpisodeProgress(Console(file=written, width=160)) as progress:
        progress.begin("video_hard", total=4, kept=1)
        for frame in range(90):
            clock[0] += 1.0
            progress.see()
            if frame == 40:
                progress.finish()
    assert written.getvalue().splitlines() == [
        "video_hard: 1 of 4 episodes are there already",
        "video_hard: 1 of 4 episodes, 1.0 frames per second",
        "video_hard: 2 of 4 episodes, 1.0 frames per second",
        "video_hard: 2 of 4 episodes, 1.0 frames per second",
    ]


def test_a_terminal_gets_a_bar_instead():
    written = io.StringIO()
    with console.EpisodeProgress(Console(file=written, width=100, force_terminal=True)) as progress:
        progress.begin("train", total=3)
        progress.finish()
        progress.see()
    shown = written.getvalue()
    assert "train" in shown and "1/3" in shown and "frames per second" not in shown
