"""What runs need: decisions, memory, disk, hours; computed before anything starts.

Bytes follow from the configuration, hours from figures that were measured: those of the same runs in this
folder, else the last benchmark's (``benchmarks/data/speed.json``), which say of which machine they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from common.cores import count_gpus
from common.files import read_json
from common.paths import PROJECT_ROOT
from evaluation.run_directory import chosen_views
from training.demonstrations.reading import planned_transitions
from training.settings import TrainSettings
from training.status import is_done, read_status, saved_steps
from training.sweeps.expand import PlannedRun, Sweep

SPEED = PROJECT_ROOT / "benchmarks" / "data" / "speed.json"
_OTHER_BYTES = 888  # of a transition, besides its frame
_MARGIN = 1.25


@dataclass(frozen=True)
class Needs:
    """What one run still needs.

    Attributes:
        decisions: of the whole run.
        left: decisions that are not in a snapshot yet.
        memory: bytes, of all its processes.
        disk: bytes, beyond what is there.
        cpus: cores.
        gpu: whether it would use one.
        hours: for what is left; None where nothing is known.
        rate: decisions per second behind ``hours``.
        measured: whether ``rate`` was measured in this folder.
    """

    decisions: int
    left: int
    memory: int
    disk: int
    cpus: int
    gpu: bool
    hours: float | None
    rate: float | None
    measured: bool


@cache
def speed() -> dict[str, Any]:
    """Return the figures of the last benchmark."""
    return dict(read_json(SPEED, "benchmark figures"))


def all_needs(sweep: Sweep, rate: float | None = None) -> list[Needs]:
    """Return what every run of a sweep needs.

    Args:
        sweep: its runs.
        rate: decisions per second to reckon with; None for measured ones.
    """
    rates = _measured_rates(sweep)
    return [run_needs(run, sweep.folder(run), rate or rates.get(_kind(run)), not rate) for run in sweep.runs]


def run_needs(run: PlannedRun, folder: Path, rate: float | None, measured: bool) -> Needs:
    """Return what one run needs; see ``Needs``."""
    cfg, settings, figures = run.config, TrainSettings.from_config(run.config), speed()
    decisions = settings.planned_decisions
    there = decisions if is_done(folder, decisions) else min(saved_steps(folder) or 0, decisions)
    frame = 3 * chosen_views(cfg) * int(cfg.image_size) ** 2
    memory = figures["memory_mb"]
    base = memory["process"] + memory["environment"] * settings.num_envs + memory.get(_masker(cfg), 0)
    masked = _masker(cfg) != "none"
    stored = figures["disk"]["masked_bytes_per_transition" if masked else "raw_bytes_per_transition"]
    given = planned_transitions(cfg, folder)
    written = there + given if there else 0
    kept = settings.replay_capacity(given) - min(written, settings.replay_buffer_size)
    gpu = str(cfg.device) != "cpu"
    known = rate or (None if gpu and count_gpus() else _benchmark_rate(cfg, settings))
    left = decisions - there
    return Needs(
        decisions=decisions,
        left=left,
        memory=int((base << 20) * _MARGIN) + settings.replay_capacity(given) * (frame + _OTHER_BYTES),
        disk=int(
            kept * stored * (frame / (3 * figures["image_size"] ** 2))
            + (2 * figures["disk"]["snapshot_mb"] << 20) * bool(left)
        ),
        cpus=settings.num_envs + int(cfg.num_threads or 1),
        gpu=gpu,
        hours=left / known / 3600 if known else None,
        rate=known,
        measured=bool(rate) and measured,
    )


def _masker(cfg: DictConfig) -> str:
    return str(cfg.masker.variant)


def _agent(cfg: DictConfig) -> str:
    return str(cfg.agent._target_).rsplit(".", 1)[-1].removesuffix("Agent").lower()


def _benchmark_rate(cfg: DictConfig, settings: TrainSettings) -> float | None:
    """Return decisions per second by the last benchmark, evaluations included.

    What networks compute grows with the image; the maskers resize every image to the same size. The picture
    of every camera is drawn and masked; of the agents PIE-G alone encodes each by itself.
    """
    figures, agent = speed(), _agent(cfg)
    if agent not in figures["act_ms"] or _masker(cfg) not in figures["masker_ms"]:
        return None
    size = (int(cfg.image_size) / figures["image_size"]) ** 2
    views = chosen_views(cfg)
    size *= views if agent == "pieg" else 1
    seen = views * (figures["environment_ms"] + figures["masker_ms"][_masker(cfg)])
    seen += figures["act_ms"][agent] * size
    update = figures["update_ms"][agent] * size * settings.batch_size / figures["update_batch"]
    evaluation = 0.0
    if settings.eval_every_frames:  # an episode is 1000 frames
        evaluation = 1000 * settings.num_eval_episodes / settings.eval_every_frames * seen
    return 1000 / (seen + update / settings.update_every_steps + evaluation)


def _kind(run: PlannedRun) -> tuple[str, ...]:
    return tuple(text for text in run.overrides if not text.startswith("seed="))


def _measured_rates(sweep: Sweep) -> dict[tuple[str, ...], float]:
    """Return decisions per second of runs of this folder, over all seeds."""
    found: dict[tuple[str, ...], list[float]] = {}
    for run in sweep.runs:
        status = read_status(sweep.folder(run))
        if status is not None and status.seconds > 60 and status.agent_steps:
            found.setdefault(_kind(run), []).append(status.agent_steps / status.seconds)
    return {kind: sum(rates) / len(rates) for kind, rates in found.items()}


def most(needs: Sequence[Needs]) -> Needs:
    """Return the needs of a job that suits every run."""
    hours = [need.hours for need in needs]
    return Needs(
        decisions=max(need.decisions for need in needs),
        left=max(need.left for need in needs),
        memory=max(need.memory for need in needs),
        disk=sum(need.disk for need in needs),
        cpus=max(need.cpus for need in needs),
        gpu=any(need.gpu for need in needs),
        hours=None if None in hours else max(hour for hour in hours if hour is not None),
        rate=None,
        measured=all(need.measured for need in needs),
    )


def gibibytes(count: float) -> int:
    """Return bytes as whole GiB, rounded up."""
    return math.ceil(count / (1 << 30))
