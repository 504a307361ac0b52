"""Evaluate one agent on several levels: results, videos, one picture and one table."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from common.masking import ObservationMasker
from evaluation.evaluate import ActingAgent, EpisodeResult, StepView, evaluate, random_policy_returns
from evaluation.mask_quality import frame_quality
from evaluation.pictures import Scene, explain_frame, level_picture
from evaluation.results import (
    Conditions,
    EvaluationResult,
    make_result,
    refuse_existing,
    result_stem,
    save_result,
)
from evaluation.videos import VideoRecorder

PICTURE_STEP = 50
RANDOM_EPISODES = 10
TABLE_WIDTH = 110


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

    @property
    def picture_path(self) -> Path:
        """Where the picture of all levels goes."""
        return self.out / f"{self.stem('+'.join(self.levels))}.png"

    def check_outputs(self) -> None:
        """Raise ``ConfigError`` when a result would be overwritten."""
        refuse_existing([self.result_path(level) for level in self.levels], self.overwrite)


@dataclass
class Report:
    """What ``run_benchmark`` found.

    Attributes:
        results: one per level, in order.
        files: paths of the results, in order.
        videos: paths of the videos.
        picture: path of the picture.
    """

    results: list[EvaluationResult] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    videos: list[Path] = field(default_factory=list)
    picture: Path | None = None


def run_benchmark(
    benchmark: Benchmark,
    make_venv: Callable[[str], Any],
    make_agent: Callable[[Any], ActingAgent],
    masker: ObservationMasker,
    conditions: Callable[[str], Conditions],
    console: Console | None = None,
) -> Report:
    """Evaluate every level and save each result as soon as it is there.

    Args:
        benchmark: what to do.
        make_venv: makes the (unmasked) vector environment of a level; closed here.
        make_agent: makes the trained agent for a vector environment; called once.
        masker: masks the frames.
        conditions: what to record with the result of a level.
        console: where the progress bar goes.
    """
    benchmark.check_outputs()
    report, scenes = Report(), []
    agent: ActingAgent | None = None
    random_returns: list[float] | None = None
    with _progress(console) as progress:
        for level in benchmark.levels:
            bar = progress.add_task(level, total=benchmark.episodes)
            watcher = _Watcher(level, benchmark, functools.partial(progress.advance, bar))
            facts = conditions(level)
            with closing(make_venv(level)) as venv:
                agent = agent or make_agent(venv)
                if benchmark.random_baseline and random_returns is None:
                    # Rewards of random actions do not depend on what is seen: one level stands for all.
                    random_returns = _random_returns(benchmark, venv)
                episodes = evaluate(
                    agent,
                    venv,
                    episodes=benchmark.episodes,
                    seed=benchmark.seed,
                    agent_step=facts.agent_steps,
                    masker=masker,
                    padded_batch=benchmark.padded_batch,
                    frame_stack=benchmark.frame_stack,
                    on_frame=watcher.see,
                    on_episode=watcher.finish,
                )
            result = make_result(facts, episodes, random_returns)
            save_result(benchmark.result_path(level), result, benchmark.overwrite)
            report.results.append(result)
            report.files.append(benchmark.result_path(level))
            report.videos += watcher.videos
            scenes.append(watcher.scene(masker))
    level_picture(benchmark.picture_path, scenes, _title(report.results))
    report.picture = benchmark.picture_path
    return report


def _random_returns(benchmark: Benchmark, venv: Any) -> list[float]:
    episodes = min(benchmark.episodes, RANDOM_EPISODES)
    return random_policy_returns(venv, episodes=episodes, seed=benchmark.seed)


class _Watcher:
    """Keeps one frame for the picture, records the episodes if asked, and counts them on the progress bar."""

    def __init__(self, level: str, benchmark: Benchmark, advance: Callable[[], None]) -> None:
        self._advance = advance
        self._level = level
        self._benchmark = benchmark
        self._view: StepView | None = None
        self._recorders: dict[int, VideoRecorder] = {}
        self.videos: list[Path] = []

    def see(self, view: StepView) -> None:
        """Look at one frame."""
        if view.episode == 0 and view.step <= PICTURE_STEP:
            self._view = view
        if self._benchmark.videos is not None:
            self._recorders.setdefault(view.episode, VideoRecorder()).add(view.raw, view.masked)

    def scene(self, masker: ObservationMasker) -> Scene:
        """Return the row of the picture: episode 0 at agent step 50, or its last frame."""
        view = self._view
        if view is None:
            raise ValueError("no frame was seen")
        note = ""
        if view.foreground is not None:
            note = f"IoU {frame_quality(view.mask, view.foreground)[0]:.2f}"
        explanation = explain_frame(masker, view.raw)
        return Scene(self._level, view.raw, view.mask, view.masked, explanation, note)

    def finish(self, result: EpisodeResult) -> None:
        """Write the video of an episode that has ended."""
        self._advance()
        episode, folder = result.episode, self._benchmark.videos
        recorder = self._recorders.pop(episode, None)
        if recorder is None or folder is None:
            return
        path = folder / f"{self._benchmark.stem(self._level)}-e{episode}.mp4"
        if recorder.save(path):
            self.videos.append(path)


def _progress(console: Console | None) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("episodes"))
    console = console or make_console(stderr=True)
    hidden = not console.is_terminal  # a log file wants no bar
    return Progress(*columns, TimeElapsedColumn(), console=console, transient=True, disable=hidden)


def make_console(stderr: bool = False) -> Console:
    """Return a console that does not break lines of a log file at 80 characters."""
    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console.width = TABLE_WIDTH
    return console


def _title(results: Sequence[EvaluationResult]) -> str:
    first = results[0].conditions
    title = f"{first.task} · {first.algorithm} · masker {first.masker['variant']}"
    # The level `train` draws nothing from any source.
    drawn = any(_draws_from(result.conditions) for result in results)
    return f"{title} · {first.source} levels" if drawn else title


def results_table(results: Sequence[EvaluationResult]) -> Table:
    """Return the table over the levels of one agent."""
    with_random = any(result.random_return is not None for result in results)
    with_success = any(result.success_rate is not None for result in results)
    table = Table(title=_title(results), caption=_caption(results), caption_justify="left")
    table.add_column("level")
    names = ["return (mean ± std)", "IQM [95 % interval]"]
    names += ["random"] * with_random + ["success"] * with_success + ["mask IoU", "empty masks"]
    for name in names:
        table.add_column(name, justify="right")
    for r in results:
        cells = [f"{r.mean:.1f} ± {r.std:.1f}", f"{r.iqm:.1f} [{r.iqm_low:.1f}, {r.iqm_high:.1f}]"]
        cells += [_number(r.random_return, ".1f")] * with_random
        cells += [_number(r.success_rate, ".0%")] * with_success
        cells += [_number(r.mask_iou, ".2f"), f"{r.empty_share:.1%}"]
        table.add_row(r.conditions.level, *cells)
    return table


def _caption(results: Sequence[EvaluationResult]) -> str:
    first, c = results[0], results[0].conditions
    updates = "unknown" if c.updates is None else f"{c.updates:,}"
    drawn = [_draws_from(result.conditions) for result in results]
    sentences = [
        f"{_count(first.episodes, 'episode')} per level, seed {c.seed}, protocol {c.protocol}.",
        f"Trained for {c.agent_steps:,} decisions = {c.frames:,} frames "
        f"(action repeat {c.action_repeat}), {updates} updates.",
    ]
    if facts := _agent_facts(c.agent):
        sentences.append(f"Agent: {facts}.")
    if any(drawn):
        sentences.append(f"Backgrounds from {c.source}: {', '.join(filter(None, drawn))}.")
    if first.random_returns is not None:
        sentences.append(f"Random: mean of {_count(len(first.random_returns), 'episode')} of random actions.")
    return " ".join(sentences)


def _agent_facts(agent: dict[str, Any]) -> str:
    """Say what the agent was made of: ``encoder weights random, overlay source generated textures``."""
    named = {key: value.get("name") if isinstance(value, dict) else value for key, value in agent.items()}
    hidden = ("class", "encoder_sha256", "encoder_seed")
    return ", ".join(f"{key.replace('_', ' ')} {named[key]}" for key in sorted(named) if key not in hidden)


def _draws_from(conditions: Conditions) -> str:
    """Say what a level draws from, such as ``video_hard 100 clips``; empty for the level ``train``."""
    facts, what = conditions.level_facts, []
    if "colors" in facts:
        what.append(_count(facts["colors"], "colour"))
    if "clips" in facts:
        what.append(_count(facts["clips"], "clip"))
        if conditions.source == "dmcgb" and not facts.get("published"):
            what[-1] += " (not the published benchmark)"
    return f"{conditions.level} {' and '.join(what)}" if what else ""


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def print_report(report: Report, console: Console | None = None) -> None:
    """Print the table and the paths of everything that was written."""
    console = console or make_console()
    console.print(results_table(report.results))
    for label, paths in (
        ("result", report.files),
        ("video", report.videos),
        ("picture", [report.picture] if report.picture else []),
    ):
        for path in paths:
            console.print(f"{label:8} {path}", soft_wrap=True)
