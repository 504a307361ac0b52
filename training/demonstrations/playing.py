"""Demonstrations, played again and drawn: what an agent would have seen."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from evaluation.lanes import Answer, as_lanes
from training.demonstrations.reading import Demonstration
from training.episodes import Episode, OpenEpisode
from wrappers import BatchMasker, MaskMemory


def play_again(
    venv: Any,
    demonstrations: Iterable[Demonstration],
    masker: BatchMasker | None = None,
    on_frame: Callable[[], None] = lambda: None,
    on_episode: Callable[[], None] = lambda: None,
) -> list[Episode]:
    """Play demonstrations and return what an agent would have seen, as episodes.

    Every frame is masked by itself, so nothing depends on how many environments there are.

    Args:
        venv: environments side by side (``evaluation.lanes``), not masked, of the demonstrations' action
            repeat and with room for the longest; observations ``{"pixels": uint8 (H, W, 3)[, "state":
            float32 (S,)]}``.
        demonstrations: what to play; actions are clipped into the range of the environment's.
        masker: masks the frames; None for none.
        on_frame: called with every frame.
        on_episode: called when an episode has ended.

    Returns:
        episodes numbered from 0 in the order given; one that is cut off has discount 1 at its end, as after a
        time limit.
    """
    lanes = as_lanes(venv)
    low, high = lanes.single_action_space.low, lanes.single_action_space.high
    waiting = deque(
        _Playing(n, demonstration, demonstration.actions.clip(low, high))
        for n, demonstration in enumerate(demonstrations)
    )
    running: dict[int, _Playing] = {}
    episodes: dict[int, Episode] = {}

    def begin(lane: int) -> None:
        if waiting:
            played = running[lane] = waiting.popleft()
            options = {"initial_state_dict": dict(played.start)} if played.start else None
            lanes.begin_episode(lane, played.episode.index, played.seed, options)

    for lane in range(lanes.num_envs):
        begin(lane)
    while running:
        (answer,) = lanes.collect(1)
        lane, played = answer[0], running[answer[0]]
        action = played.see(answer, masker)
        on_frame()
        if action is not None:
            lanes.send_action(lane, action)
            continue
        episodes[played.episode.index] = played.episode.close()
        on_episode()
        del running[lane]
        begin(lane)
    return [episodes[number] for number in sorted(episodes)]


class _Playing:
    """A demonstration that is being played."""

    def __init__(self, number: int, demonstration: Demonstration, actions: np.ndarray) -> None:
        self.seed, self.start = demonstration.seed, demonstration.start
        self.episode = OpenEpisode(number, [])
        self._memory, self._actions = MaskMemory(), actions

    def see(self, answer: Answer, masker: BatchMasker | None) -> np.ndarray | None:
        """Take down what the environment answered; return the next action, None at the end."""
        _, obs, reward, terminated, truncated, info = answer
        done = len(self.episode.action)
        if reward is not None:
            self.episode.take(self._actions[done], float(reward), 0.0 if terminated else 1.0)
            done += 1
        frame = obs["pixels"]
        if masker is not None:
            exact = info.get("foreground")
            masked, _ = masker(frame[None], None if exact is None else exact[None], [self._memory])
            frame = masked[0]
        self.episode.see(frame, obs.get("state"))
        return None if terminated or truncated or done == len(self._actions) else self._actions[done]
