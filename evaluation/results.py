"""The result file of one evaluation: what was measured, under which conditions, and its reader."""

from __future__ import annotations

import dataclasses
import datetime
import math
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from common.errors import ConfigError, InputError
from common.files import read_json, write_json
from evaluation.evaluate import EpisodeResult
from evaluation.schema import field_problem
from evaluation.statistics import Summary, summarize

SCHEMA_VERSION = 4
PACKAGES = ("torch", "mujoco", "dm_control", "gymnasium", "numpy", "timm")
# Lists of a result, one value per episode, and the fields of ``EpisodeResult`` that fill them.
COLUMNS = {
    "episode_seeds": "seed",
    "episode_lengths": "length",
    "terminated": "terminated",
    "episode_success": "success",
    "episode_mask_iou": "mask_iou",
    "episode_mask_recall": "mask_recall",
    "episode_mask_precision": "mask_precision",
    "episode_empty_share": "empty_share",
    "episode_point_error": "point_error",
}
# Which of them have a mean in the file, and its name.
MEANS = {
    "episode_success": "success_rate",
    "episode_mask_iou": "mask_iou",
    "episode_mask_recall": "mask_recall",
    "episode_mask_precision": "mask_precision",
    "episode_empty_share": "empty_share",
    "episode_point_error": "point_error",
}
HEADLINE = (
    "task",
    "level",
    "source",
    "protocol",
    "masker",
    "algorithm",
    "agent_steps",
    "frames",
    "updates",
    "action_repeat",
    "seed",
    "train_seed",
)


@dataclass(frozen=True)
class Conditions:
    """Everything that names an evaluation besides its numbers.

    Attributes:
        task: such as ``walker_walk``.
        level: ``train``, ``color_hard``, ... or a combination such as ``video_hard+cam_pos_easy``.
        source: ``dmcgb`` or ``procedural``: where colours and clips came from.
        protocol: ``dmcgb`` or ``samg``; ``samg`` clips episode returns at 0 from below.
        key: how video pixels are chosen (``green``, ``black``, ``segmentation``); None: the protocol's own.
        colors: colour scheme; None: the protocol's own.
        level_facts: what the level draws from, as ``envs.levels.describe_level`` says it: how many colours or
            clips, their names and digests.
        masker: ``MaskerInfo.to_dict()`` of the masker used here.
        training_masker: name, variant, fingerprint and numerics of the masker the agent was trained with;
            None when unknown.
        padded_batch: the one batch size of policy and masker.
        algorithm: agent's name, such as ``drqv2``.
        agent: what the snapshot says of the agent besides its numbers (its class, the weights of a frozen
            encoder, the images it learned from) and the options given to the evaluation; may be empty.
        agent_steps: decisions the agent was trained for.
        frames: simulator steps, ``agent_steps * action_repeat``.
        updates: gradient updates; None when unknown.
        action_repeat: simulator steps per decision.
        seed: evaluation seed.
        train_seed: seed of the run.
    """

    task: str
    level: str
    source: str
    protocol: str
    key: str | None
    colors: str | None
    level_facts: dict[str, Any]
    masker: dict[str, Any]
    training_masker: dict[str, Any] | None
    padded_batch: int
    algorithm: str
    agent: dict[str, Any]
    agent_steps: int
    frames: int
    updates: int | None
    action_repeat: int
    seed: int
    train_seed: int

    def headline(self) -> dict[str, Any]:
        """Return what a result file repeats at its top level, so that a reader need not look deeper.

        Returns:
            The fields of ``HEADLINE`` as they are here, and ``key`` (the video key in use), ``fingerprint``
            (of the masker used) and ``training_fingerprint`` (of training's; None when unknown).
        """
        training = self.training_masker or {}
        return {
            **{name: getattr(self, name) for name in HEADLINE},
            "key": self.level_facts.get("key", self.key),
            "fingerprint": self.masker.get("fingerprint"),
            "training_fingerprint": training.get("fingerprint"),
        }


@dataclass(frozen=True)
class EvaluationResult:
    """One result file.

    The file holds these fields and, at its top level, ``Conditions.headline()``.

    Attributes:
        version: version of this schema.
        conditions: what was evaluated.
        episodes: number of episodes.
        episode_seeds: what seeded the physics of each episode.
        episode_returns: one per episode, under the protocol (clipped at 0 by ``samg``).
        episode_lengths: agent steps of each episode.
        terminated: which episodes the task itself ended.
        episode_success: which episodes were successful; None in each where the task has no such flag.
        episode_mask_iou, episode_mask_recall, episode_mask_precision: means over the frames of each episode,
            in [0, 1]; None in an episode without the simulator's foreground.
        episode_empty_share: share of each episode's frames in which the masker found nothing.
        episode_point_error: mean over the frames and points of each episode, see ``point_error``; None in an
            episode that has none.
        mean, std, iqm, iqm_low, iqm_high: see ``evaluation.statistics.Summary``.
        success_rate: share of the successful episodes; None where the task has no such flag.
        mask_iou, mask_recall, mask_precision: means over episodes, in [0, 1]; None without the
            simulator's foreground.
        empty_share: share of the frames in which the masker found nothing, in [0, 1], before it put anything
            else in an empty mask's place.
        point_error: mean distance, in pixels of the observation, between the masker's positive points and
            where the body points that the reference's points lie on are seen now (hidden ones left out; see
            ``evaluation.localisation``); None where the reference is not one of ours or the masker sets no
            points. Like the other means, the mean over the episodes in which it is known.
        random_returns: returns of uniform random actions under the protocol; None when not measured.
        random_return: their mean; None when not measured.
        versions: versions of the libraries that matter, and of Python.
        date: when it was written, UTC, ISO 8601.
    """

    version: int
    conditions: Conditions
    episodes: int
    episode_seeds: list[int]
    episode_returns: list[float]
    episode_lengths: list[int]
    terminated: list[bool]
    episode_success: list[bool | None]
    episode_mask_iou: list[float | None]
    episode_mask_recall: list[float | None]
    episode_mask_precision: list[float | None]
    episode_empty_share: list[float]
    episode_point_error: list[float | None]
    mean: float
    std: float
    iqm: float
    iqm_low: float
    iqm_high: float
    success_rate: float | None
    mask_iou: float | None
    mask_recall: float | None
    mask_precision: float | None
    empty_share: float
    point_error: float | None
    random_returns: list[float] | None
    random_return: float | None
    versions: dict[str, str]
    date: str

    @property
    def summary(self) -> Summary:
        """The aggregates of the returns."""
        return Summary(self.mean, self.std, self.iqm, self.iqm_low, self.iqm_high)

    def to_dict(self) -> dict[str, Any]:
        """Return the file's content as plain JSON values."""
        content = dataclasses.asdict(self)
        return {"version": content.pop("version"), **self.conditions.headline(), **content}


def make_result(
    conditions: Conditions, episodes: Sequence[EpisodeResult], random_returns: Sequence[float] | None = None
) -> EvaluationResult:
    """Aggregate the episodes of one evaluation."""
    returns = protocol_returns([episode.episode_return for episode in episodes], conditions.protocol)
    summary = summarize(returns, conditions.seed)
    columns: dict[str, Any] = {
        column: [getattr(episode, name) for episode in episodes] for column, name in COLUMNS.items()
    }
    means: dict[str, Any] = {name: _mean(columns[column]) for column, name in MEANS.items()}
    clipped_random = protocol_returns(random_returns or [], conditions.protocol)
    return EvaluationResult(
        version=SCHEMA_VERSION,
        conditions=conditions,
        episodes=len(episodes),
        episode_returns=returns,
        **columns,
        **dataclasses.asdict(summary),
        **means,
        random_returns=clipped_random or None,
        random_return=_mean(clipped_random),
        versions=library_versions(),
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def protocol_returns(returns: Sequence[float], protocol: str) -> list[float]:
    """Return episode returns as the protocol counts them: ``samg`` clips them at 0, ``dmcgb`` does not."""
    return [max(0.0, float(value)) if protocol == "samg" else float(value) for value in returns]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that can change a result."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "unknown"
    return found


def result_stem(level: str, source: str, masker: str, seed: int) -> str:
    """Return the file name, without suffix, of a result and of what belongs to it."""
    return f"{level}-{source}-{masker}-s{seed}"


def refuse_existing(paths: Sequence[Path], overwrite: bool) -> None:
    """Stop before any work when a result is there already.

    Raises:
        ConfigError: one of ``paths`` exists and ``overwrite`` is not set.
    """
    existing = [path for path in paths if path.exists()]
    if existing and not overwrite:
        raise ConfigError(
            f"{existing[0]} exists already and would be overwritten.",
            "Add --overwrite to replace it, or choose another folder with --out.",
        )


def save_result(path: Path, result: EvaluationResult, overwrite: bool = False) -> None:
    """Write ``result`` as JSON; the file is whole or absent.

    Raises:
        ConfigError: the file exists and ``overwrite`` is not set.
    """
    refuse_existing([path], overwrite)
    write_json(path, result.to_dict(), kind="result")


def load_result(path: Path) -> EvaluationResult:
    """Read a result file and check every field.

    Raises:
        InputError: the file is missing, is not JSON, has another version, or a field is missing, unknown or
            of the wrong type, or does not fit the others.
    """
    content = read_json(path, "result file")
    if not isinstance(content, dict):
        raise _invalid(path, "it is not a JSON object")
    if content.get("version") != SCHEMA_VERSION:
        raise _invalid(path, f"version is {content.get('version')!r}, expected {SCHEMA_VERSION}")
    conditions, fields = _split_headline(path, content)
    fields = {**fields, "conditions": conditions}
    if problem := field_problem(fields, EvaluationResult, skip=("conditions",)):
        raise _invalid(path, problem)
    result = EvaluationResult(**fields)
    _check_lists(path, result)
    return result


def _check_lists(path: Path, result: EvaluationResult) -> None:
    """Check that every list has one value per episode and every mean is that of its list."""
    for name in ("episode_returns", *COLUMNS):
        count = len(getattr(result, name))
        if count != result.episodes or result.episodes < 1:
            raise _invalid(path, f"{name} has {count} values for {result.episodes} episodes")
    for name, field in {"episode_returns": "mean", **MEANS}.items():
        said, mean = getattr(result, field), _mean(getattr(result, name))
        if (said is None) != (mean is None) or not math.isclose(
            said or 0, mean or 0, rel_tol=1e-6, abs_tol=1e-6
        ):
            raise _invalid(path, f"{field} is {said}, but the mean of {name} is {mean}")


def _split_headline(path: Path, content: dict[str, Any]) -> tuple[Conditions, dict[str, Any]]:
    """Return the conditions, and the content without what only repeats them."""
    if "conditions" not in content:
        raise _invalid(path, "it lacks the field conditions")
    if problem := field_problem(content["conditions"], Conditions, "conditions."):
        raise _invalid(path, problem)
    conditions = Conditions(**content["conditions"])
    headline = conditions.headline()
    for name, expected in headline.items():
        if name not in content:
            raise _invalid(path, f"it lacks the field {name}")
        if content[name] != expected:
            raise _invalid(path, f"{name} is {content[name]!r}, but the conditions say {expected!r}")
    return conditions, {name: value for name, value in content.items() if name not in headline}


def _invalid(path: Path, reason: str) -> InputError:
    return InputError(
        f"{path} is not a valid result file: {reason}.", "Evaluate again with locoeval.py --overwrite."
    )
