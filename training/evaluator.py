"""The evaluation inside training: episodes with the mean action, a row of numbers, a video on request."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch

from algos.drqv2 import DrQV2Agent
from common.masking import ObservationMasker
from common.seeding import derive_seed
from evaluation.evaluate import EpisodeResult, StepView, evaluate, fixed_batch
from evaluation.videos import VideoRecorder


class Evaluator:
    """Evaluates the agent in environments that exist only as long as the evaluation.

    The episodes are the same ones every time, so that two evaluations of a run can be compared.

    Args:
        cfg: with ``num_envs``, ``num_eval_episodes``, ``frame_stack``, ``seed`` and ``save_video``.
        make_venv: makes an unmasked vector environment from a number, ``seed`` and ``foreground``.
        masker: masks its frames, as in training.
        device: where the networks are; decides the fixed batch size.
        videos: directory for a video of the first episode of every evaluation.
    """

    def __init__(
        self,
        cfg: Any,
        make_venv: Callable[..., Any],
        masker: ObservationMasker,
        device: torch.device,
        videos: Path,
    ) -> None:
        self._episodes, self._frame_stack = cfg.num_eval_episodes, cfg.frame_stack
        self._seed = derive_seed(cfg.seed, "evaluation")
        count = min(cfg.num_envs, max(cfg.num_eval_episodes, 1))
        self._make_venv = functools.partial(make_venv, count, seed=self._seed, foreground=True)
        self._masker = masker
        self._padded_batch = fixed_batch(device.type == "cuda")
        self._videos = videos if cfg.save_video else None

    def __call__(self, agent: DrQV2Agent, agent_step: int) -> dict[str, float]:
        """Return the numbers of one evaluation: return (mean, std, least, most), length, masks, success."""
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
    if all(result.success is not None for result in results):
        row["success_rate"] = float(np.mean([result.success for result in results]))
    return row
