"""What is to be evaluated, where it goes, and what of it has been done before."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import ConfigError
from evaluation.partial import SUFFIX, Partial, differences, plain
from evaluation.results import (
    Conditions,
    EvaluationResult,
    library_versions,
    load_result,
    refuse_existing,
    result_stem,
)

_MOST_NAMED = 5  # levels in the name of a picture


@dataclass(frozen=True)
class Benchmark:
    """What to evaluate and where to put it.

    Attributes:
        levels: benchmark levels, in order.
        source: ``dmcgb`` or ``procedural``.
        masker_name: variant, part of the file names.
        seed: evaluation seed.
        episodes: episodes per level.
        out: directory of results and picture.
        videos: directory of the videos; None for none.
        overwrite: replace results that exist.
        random_baseline: measure uniform random actions, too.
        frame_stack: frames per observation.
        padded_batch: the one batch size of policy and masker.
    """

    levels: tuple[str, ...]
    source: str
    masker_name: str
    seed: int
    episodes: int
    out: Path
    videos: Path | None
    overwrite: bool
    random_baseline: bool
    frame_stack: int
    padded_batch: int

    def stem(self, level: str) -> str:
        """Return the file name, without suffix, of everything that belongs to ``level``."""
        return result_stem(level, self.source, self.masker_name, self.seed)

    def result_path(self, level: str) -> Path:
        """Return where the result of ``level`` goes."""
        return self.out / f"{self.stem(level)}.json"

    def video_path(self, level: str, episode: int) -> Path | None:
        """Return where the video of an episode goes; None where none is asked for."""
        return self.videos / f"{self.stem(level)}-e{episode}.mp4" if self.videos else None

    @property
    def picture_path(self) -> Path:
        """Where the picture of all levels goes."""
        plain_names = len(self.levels) == 1 or not any("+" in level for level in self.levels)
        named = plain_names and len(self.levels) <= _MOST_NAMED
        levels = "+".join(self.levels) if named else f"{len(self.levels)}_levels"
        return self.out / f"{self.stem(levels)}.png"


def check_outputs(benchmarks: Sequence[Benchmark]) -> None:
    """Refuse, before any work, what would write over something.

    Where a result is missing, those that are there are kept if they fit (see ``open_levels``), so that a call
    that was interrupted can be repeated.

    Raises:
        ConfigError: everything has been evaluated already and nothing may be overwritten, or two benchmarks
            would write the same file.
    """
    paths = [benchmark.result_path(level) for benchmark in benchmarks for level in benchmark.levels]
    for number, path in enumerate(paths):
        if path in paths[:number]:
            raise ConfigError(
                f"{path} would be written twice.",
                "Name every run once; with --out, runs need names of their own.",
            )
    if all(path.exists() for path in paths):
        refuse_existing(paths, any(benchmark.overwrite for benchmark in benchmarks))


@dataclass
class LevelWork:
    """One level of a benchmark and what has been done of it.

    Attributes:
        level: its name.
        conditions: what to record with the result.
        partial: the episodes that are there.
        result: the whole result, where it is there.
    """

    level: str
    conditions: Conditions
    partial: Partial
    result: EvaluationResult | None = None


def open_levels(
    benchmark: Benchmark, conditions: Callable[[str], Conditions], snapshot: str = ""
) -> list[LevelWork]:
    """Find out what has been done of every level; nothing is played or written.

    Args:
        benchmark: what is to be evaluated.
        conditions: what to record with the result of a level.
        snapshot: digest of the agent, so that episodes of another are not taken for its own.

    Raises:
        ConfigError: a result or an unfinished evaluation belongs to something else, and nothing may be
            overwritten.
        InputError: one of them is damaged.
    """
    found = []
    for level in benchmark.levels:
        facts, path = conditions(level), benchmark.result_path(level)
        asked = {"conditions": dataclasses.asdict(facts), "versions": library_versions()}
        partial = Partial.open(
            path.with_name(f"{path.name.removesuffix('.json')}{SUFFIX}"),
            {**asked, "snapshot": snapshot},
            benchmark.overwrite,
        )
        work = LevelWork(level, facts, partial)
        if path.exists() and not benchmark.overwrite:
            work.result = load_result(path)
            theirs = {
                "conditions": dataclasses.asdict(work.result.conditions),
                "versions": work.result.versions,
            }
            _refuse_other(
                path, {**theirs, "episodes": work.result.episodes}, {**asked, "episodes": benchmark.episodes}
            )
        found.append(work)
    return found


def _refuse_other(path: Path, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    differing = differences(plain(theirs), plain(ours))
    if differing:
        raise ConfigError(
            f"{path} exists already, but was made under other conditions: {'; '.join(differing)}.",
            "Add --overwrite to replace it, or choose another folder with --out.",
        )
