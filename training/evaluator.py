"""The evaluation inside training: episodes with the mean action, a row of numbers, a video on request."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from algos.drqv2 import DrQV2Agent
from common.masking import ObservationMasker
from evaluation.evaluate import EpisodeResult, StepView, evaluate
from evaluation.videos import VideoRecorder


class Evaluator:
    """Evaluates the agent in environments that exist only as long as the evaluation.

    Args:
        make_venv: makes the unmasked vector environment.
        masker: masks its frames, as in training.
        episodes: how many.
        seed: of the episodes; the same ones every time, so that two evaluations can be compared.
        frame_stack: frames per observation.
        padded_batch: the one batch size of policy and masker.
        videos: directory for a video of the first episode of every evaluation; None for none.
    """

    def __init__(
        self,
        make_venv: Callable[[], Any],
        masker: ObservationMasker,
        episodes: int,
        seed: int,
        frame_stack: int,
        padded_batch: int,
        videos: Path | None = None,
    ) -> None:
        self._make_venv, self._masker = make_venv, masker
        self._episodes, self._seed = episodes, seed
        self._frame_stack, self._padded_batch = frame_stack, padded_batch
        self._videos = videos

    def __call__(self, agent: DrQV2Agent, agent_step: int) -> dict[str, float]:
        """Return the numbers of one evaluation: return (mean, std, least, most), length, mask quality."""
        recorder = VideoRecorder() if self._videos else None

        def record(view: StepView) -> None:
            if recorder is not None and view.episode == 0:
                recorder.add(view.raw, view.masked)

        with closing(self._make_venv()) as venv:
            results = evaluate(
                agent,
                venv,
                episodes=self._episodes,
                seed=self._seed,
                agent_step=agent_step,
                masker=self._masker,
                padded_batch=self._padded_batch,
                frame_stack=self._frame_stack,
                on_frame=record if recorder else None,
            )
        if recorder is not None and self._videos is not None:
            recorder.save(self._videos / f"step_{agent_step:010d}.mp4")
        return _numbers(results)


def _numbers(results: list[EpisodeResult]) -> dict[str, float]:
    returns = np.array([result.episode_return for result in results])
    row = {
        "episodes": float(len(results)),
        "episode_return": float(returns.mean()),
        "episode_return_std": float(returns.std()),
        "episode_return_min": float(returns.min()),
        "episode_return_max": float(returns.max()),
        "episode_length": float(np.mean([result.length for result in results])),
        "empty_masks": float(np.mean([result.empty_share for result in results])),
    }
    for name in ("mask_iou", "mask_recall", "mask_precision"):
        values = [getattr(result, name) for result in results]
        if all(value is not None for value in values):
            row[name] = float(np.mean(values))
    return row
