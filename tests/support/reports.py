"""Result files and run directories as evaluation and training would leave them, with invented numbers."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from evaluation.evaluate import EpisodeResult
from evaluation.results import Conditions, EvaluationResult, make_result, result_stem, save_result

TASKS = ("walker_walk", "cartpole_swingup", "finger_spin")
LEVELS = ("train", "color_hard", "video_easy", "video_hard")
# How good each invented method is, and how much a level takes from it.
SKILL = {"none": 0.86, "tiny": 0.84, "groundtruth": 0.88}
HARM = {
    "none": (0.0, 0.35, 0.4, 0.85),
    "tiny": (0.0, 0.03, 0.05, 0.13),
    "groundtruth": (0.0, 0.0, 0.01, 0.02),
}
IOU = {"none": 0.08, "tiny": 0.93, "groundtruth": 1.0}


def level_facts(level: str, source: str = "dmcgb") -> dict[str, Any]:
    """Return what a result says about its level."""
    if level == "train":
        return {"level": level}
    return {"level": level, "source": source, "clips": 10, "published": source == "dmcgb"}


def conditions(variant: str = "tiny", **changes: Any) -> Conditions:
    """Return plausible conditions; ``training`` names another masker of training."""
    trained = changes.pop("training", variant)
    task, level = changes.get("task", TASKS[0]), changes.get("level", "train")
    source = changes.get("source", "dmcgb")
    fixed: dict[str, Any] = {
        "task": task,
        "level": level,
        "source": source,
        "protocol": "dmcgb",
        "key": None,
        "colors": None,
        "level_facts": level_facts(level, source),
        "masker": {
            "name": variant,
            "variant": variant,
            "fingerprint": fingerprint(variant, task),
            "numerics": {},
            "method": {"passes": 3},
            "weights": {},
        },
        "training_masker": {"name": trained, "variant": trained, "fingerprint": fingerprint(trained, task)},
        "padded_batch": 8,
        "algorithm": "drqv2",
        "agent": {"class": "DrQV2Agent"},
        "agent_steps": 500_000,
        "frames": 1_000_000,
        "updates": 249_000,
        "action_repeat": 2,
        "seed": 0,
        "train_seed": 1,
    }
    return Conditions(**{**fixed, **changes})


def fingerprint(masker: str, task: str) -> str:
    """Return an invented fingerprint; one masker has one per task, since references differ."""
    return f"{masker}{task}".encode().hex().ljust(64, "0")[:64]


def episode(index: int, value: float, **changes: Any) -> EpisodeResult:
    """Return an episode with the given return."""
    fixed: dict[str, Any] = {
        "seed": 1000 + index,
        "length": 500,
        "terminated": False,
        "success": None,
        "mask_iou": 0.9,
        "mask_recall": 0.95,
        "mask_precision": 0.92,
        "empty_share": 0.01,
        "point_error": 3.5,
    }
    return EpisodeResult(episode=index, episode_return=value, **{**fixed, **changes})


def result(
    returns: Sequence[float],
    variant: str = "tiny",
    random_returns: Sequence[float] | None = None,
    **changes: Any,
) -> EvaluationResult:
    """Return a result of the given episode returns."""
    quality = {"mask_iou": IOU[variant], "point_error": 3.5 if variant == "tiny" else None}
    episodes = [episode(index, float(value), **quality) for index, value in enumerate(returns)]
    return make_result(conditions(variant, **changes), episodes, random_returns)


def drawn_returns(task: str, level: str, masker: str, seed: int, episodes: int = 10) -> np.ndarray:
    """Return invented episode returns, float (episodes,), with spread over seeds and over episodes."""
    rng = np.random.default_rng([seed, TASKS.index(task), LEVELS.index(level), *masker.encode()])
    skill = (SKILL[masker] - 0.12 * TASKS.index(task)) * (1 - HARM[masker][LEVELS.index(level)])
    run = skill + 0.05 * rng.normal()
    return np.clip(1000 * (run + 0.04 * rng.normal(size=episodes)), 0, 1000)


def write_results(
    folder: Path,
    tasks: Sequence[str] = TASKS,
    levels: Sequence[str] = LEVELS,
    maskers: Sequence[str] = tuple(SKILL),
    seeds: Sequence[int] = (1, 2, 3),
    **changes: Any,
) -> list[Path]:
    """Write one run directory per task, masker and seed below ``folder``; return the result files."""
    files = []
    for task in tasks:
        for masker in maskers:
            for seed in seeds:
                run = folder / f"{task}-{masker}-{seed}"
                for level in levels:
                    made = result(
                        drawn_returns(task, level, masker, seed),
                        masker,
                        (20.0, 40.0),
                        **{"task": task, "level": level, "train_seed": seed, **changes},
                    )
                    stem = result_stem(level, made.conditions.source, masker, 0)
                    files.append(run / "eval" / f"{stem}.json")
                    save_result(files[-1], made)
    return files


def write_run(run: Path, task: str, masker: str, seed: int, algorithm: str = "DrQV2Agent") -> None:
    """Add what a training leaves besides results: configuration, tables, a picture."""
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.yaml").write_text(
        f"task_name: {task}\nseed: {seed}\naction_repeat: 2\nagent:\n  _target_: algos.{algorithm}\n"
        f"masker:\n  variant: {masker}\n"
    )
    rng = np.random.default_rng([seed, *masker.encode()])
    steps = np.arange(0, 500_001, 25_000)
    growth = 1000 * (SKILL[masker] - 0.12 * TASKS.index(task)) * (1 - np.exp(-steps / 150_000))
    write_table(run / "eval.csv", steps, growth + 25 * rng.normal(size=steps.size))
    picture = rng.integers(0, 255, (48, 160, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    (run / "eval").mkdir(exist_ok=True)
    Image.fromarray(picture).save(run / "eval" / f"train+video_hard-{masker}.png")


def write_table(path: Path, steps: Sequence[int] | np.ndarray, returns: Sequence[float] | np.ndarray) -> None:
    """Write ``eval.csv`` or ``train.csv`` of a run."""
    with path.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["agent_steps", "frames", "episode_return"])
        writer.writerows(
            [int(step), 2 * int(step), float(value)] for step, value in zip(steps, returns, strict=True)
        )


def write_everything(folder: Path, seeds: Sequence[int] = (1, 2, 3)) -> None:
    """Write runs with results, curves and pictures."""
    write_results(folder, seeds=seeds)
    for task in TASKS:
        for masker in SKILL:
            for seed in seeds:
                write_run(folder / f"{task}-{masker}-{seed}", task, masker, seed)
