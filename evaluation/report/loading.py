"""Find and read everything a report is made of: result files, run directories, pictures."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from common.errors import ConfigError, InputError, SnapshotError
from common.paths import resolve
from evaluation.results import Conditions, EvaluationResult, load_result
from evaluation.run_directory import RunDirectory

OWN_FILES = ("report.json", "status.json")  # of reports, and of runs that failed before they began
CURVES = ("eval", "train")


@dataclass(frozen=True)
class Entry:
    """One result file.

    Attributes:
        path: where it lies.
        result: its content.
        method: name of what was evaluated: the user's, else algorithm and masker.
        level: name of its level in the tables.
    """

    path: Path
    result: EvaluationResult
    method: str
    level: str

    @property
    def conditions(self) -> Conditions:
        """Everything the file says besides its numbers."""
        return self.result.conditions


@dataclass(frozen=True)
class Run:
    """What a run directory has to say about learning.

    Attributes:
        path: the directory.
        task: its task.
        method: name of what was trained: the user's, else algorithm and masker.
        seed: training seed.
        action_repeat: simulator steps per decision.
        points: for ``eval`` and ``train`` the (agent step, episode return) pairs of the run's tables.
    """

    path: Path
    task: str
    method: str
    seed: int
    action_repeat: int
    points: dict[str, list[tuple[int, float]]]


@dataclass(frozen=True)
class Picture:
    """A picture found beside results.

    Attributes:
        path: PNG file.
        whose: task and method.
        caption: for readers.
    """

    path: Path
    whose: str
    caption: str


@dataclass
class Inputs:
    """Everything that was found, in the order of the paths given."""

    entries: list[Entry] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)


def parse_labels(texts: Sequence[str]) -> dict[Path, str]:
    """Return the names that ``NAME=PATH`` give to everything at or below a path.

    Raises:
        ConfigError: a text has another form, or a path has two names.
    """
    labels: dict[Path, str] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not (equals and name.strip() and path):
            raise ConfigError(
                f"--label '{text}' is not NAME=PATH.", "Write such as --label 'tiny=runs/tiny'."
            )
        place = resolve(path).resolve()
        if place in labels:
            raise ConfigError(f"--label names {path} twice.", "Name each path once.")
        labels[place] = name.strip()
    return labels


def method_name(conditions: Conditions) -> str:
    """Return such as ``drqv2 + tiny``, with the masker of training where it was another."""
    variant = str(conditions.masker.get("variant"))
    trained = (conditions.training_masker or {}).get("variant", variant)
    name = f"{conditions.algorithm} + {variant}"
    return name if trained == variant else f"{name} (trained with {trained})"


def read_inputs(paths: Sequence[str | Path], labels: dict[Path, str] | None = None) -> Inputs:
    """Read result files, folders of them and run directories.

    A run directory gives ``eval/*.json``, the pictures beside them and its learning curves; any other
    folder gives all its ``*.json``, the pictures beside them, and its subfolders. What is hidden, and
    an earlier report, is passed over.

    Args:
        paths: files and folders; named twice, one counts once.
        labels: see ``parse_labels``; their paths are read too.

    Raises:
        InputError: a path does not exist, files are damaged or no results of this version (all are named), or
            there is nothing at all.
    """
    labels = labels or {}
    places = list(dict.fromkeys([*(resolve(path).resolve() for path in paths), *labels]))
    missing = [str(place) for place in places if not place.exists()]
    if missing:
        raise InputError(f"{', '.join(missing)}: no such file or folder.", "Check the paths.")
    results: dict[Path, None] = {}
    runs: dict[Path, None] = {}
    for place in places:
        _collect(place, results, runs)
    found = Inputs(*_read_all(list(results), list(runs), labels))
    folders = dict.fromkeys(path.parent for path in results) | {run.path / "eval": None for run in found.runs}
    found.pictures = [picture for folder in folders for picture in _pictures(folder, found.entries)]
    if not found.entries and not any(points for run in found.runs for points in run.points.values()):
        raise InputError(
            f"No results in {', '.join(map(str, places))}.",
            "Name result files of locoeval.py, folders of them, or run directories of train.py.",
        )
    return found


def _collect(place: Path, results: dict[Path, None], runs: dict[Path, None]) -> None:
    """Sort what lies at ``place`` into result files and run directories, in a fixed order."""
    if place.is_file():
        results[place] = None
        return
    if (place / "config.yaml").is_file():
        runs[place] = None
        results.update(dict.fromkeys(_files(place / "eval", ".json")))
        return
    if any((place / name).is_file() for name in OWN_FILES):
        return
    results.update(dict.fromkeys(_files(place, ".json")))
    for folder in sorted(place.iterdir()):
        if folder.is_dir() and not folder.name.startswith("."):
            _collect(folder, results, runs)


def _files(folder: Path, suffix: str) -> list[Path]:
    return [path for path in sorted(folder.glob(f"*{suffix}")) if not path.name.startswith(".")]


def _read_all(
    results: Sequence[Path], runs: Sequence[Path], labels: dict[Path, str]
) -> tuple[list[Entry], list[Run]]:
    """Read all files, and only then complain, about all of them at once."""
    entries, known, faults = [], [], []
    for path in results:
        try:
            result = load_result(path)
        except (InputError, OSError) as error:
            faults.append(getattr(error, "message", str(error)))
            continue
        name = _given(path, labels) or method_name(result.conditions)
        entries.append(Entry(path, result, name, result.conditions.level))
    for path in runs:
        try:
            known.append(_read_run(path, labels))
        except (InputError, SnapshotError, OSError) as error:
            faults.append(getattr(error, "message", str(error)))
    if faults:
        count = f"{len(faults)} of {len(results) + len(runs)} inputs cannot be used"
        raise InputError(
            "\n  ".join([f"{count}:", *faults]),
            "Leave them out, or evaluate again with locoeval.py --overwrite.",
        )
    return entries, known


def _given(path: Path, labels: dict[Path, str]) -> str | None:
    """Return the user's name for ``path``: that of the nearest folder that has one."""
    for place in (path, *path.parents):
        if place in labels:
            return labels[place]
    return None


def _read_run(path: Path, labels: dict[Path, str]) -> Run:
    try:
        config = OmegaConf.load(path / "config.yaml")
        run = RunDirectory(path, config)  # type: ignore[arg-type]
        name = _given(path, labels) or f"{run.algorithm} + {run.masker_variant}"
        task, seed, repeat = run.task, int(config.seed), int(config.action_repeat)
    except (OmegaConfBaseException, YAMLError, UnicodeDecodeError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path / 'config.yaml'} is no configuration of a run: {reason}.",
            "Restore it, or leave the run out.",
        ) from error
    return Run(path, task, name, seed, repeat, {kind: _points(path / f"{kind}.csv") for kind in CURVES})


def _points(path: Path) -> list[tuple[int, float]]:
    """Return (agent step, episode return) of the complete rows of a run's table; none where it is absent."""
    if not path.is_file():
        return []
    rows = csv.DictReader(path.read_text(errors="replace").rpartition("\n")[0].splitlines())
    points = []
    for row in rows:
        try:
            points.append((int(row["agent_steps"]), float(row["episode_return"])))
        except (KeyError, TypeError, ValueError):
            continue  # a row that a crash has cut off, or one without a return
    return points


def _pictures(folder: Path, entries: Sequence[Entry]) -> list[Picture]:
    """Return the PNG files of a folder that holds results, captioned with whose they are."""
    here = [entry for entry in entries if entry.path.parent == folder]
    whose = ", ".join(dict.fromkeys(f"{entry.conditions.task}, {entry.method}" for entry in here))
    seeds = sorted({entry.conditions.train_seed for entry in here})
    words = [whose, f"training seed {', '.join(map(str, seeds))}"] if here else []
    return [
        Picture(path, whose or str(folder), ", ".join([*words, path.stem])) for path in _files(folder, ".png")
    ]
