"""Evaluate one agent with one masker on several levels: results, videos and one picture; resumable."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from common.masking import ObservationMasker
from common.stopping import StopSignal
from evaluation.console import EpisodeProgress, make_console, results_table, title
from evaluation.evaluate import ActingAgent, EpisodeResult, StepView, evaluate, random_policy_returns
from evaluation.pictures import Scene, explain_frame, iou_note, level_picture
from evaluation.results import EvaluationResult, make_result, save_result
from evaluation.videos import VideoRecorder
from evaluation.work import Benchmark, LevelWork

PICTURE_STEP = 50
RANDOM_EPISODES = 10


@dataclass
class Report:
    """What ``run_benchmark`` found.

    Attributes:
        results: one per level, in order.
        files: paths of the results, in order.
        videos: paths of the videos.
        picture: path of the picture; None where nothing was seen.
        random_returns: of uniform random actions; None when not measured.
    """

    results: list[EvaluationResult] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    videos: list[Path] = field(default_factory=list)
    picture: Path | None = None
    random_returns: list[float] | None = None


def run_benchmark(
    benchmark: Benchmark,
    works: Sequence[LevelWork],
    make_venv: Callable[[str], Any],
    make_agent: Callable[[Any], ActingAgent],
    masker: ObservationMasker,
    console: Console | None = None,
    stop: StopSignal | None = None,
    random_returns: list[float] | None = None,
) -> Report:
    """Evaluate every level that is not done; each episode is kept as soon as it has ended.

    Args:
        benchmark: what to do.
        works: its levels, from ``open_levels``.
        make_venv: makes the vector environment of a level; closed here.
        make_agent: makes the trained agent for a vector environment; called once.
        masker: masks the frames.
        console: where the progress goes; None for standard error.
        stop: its signals end the evaluation between two steps.
        random_returns: of uniform random actions, where they are known.

    Raises:
        Stopped: a signal came; the same call goes on where this one stopped.
    """
    report, scenes = Report(random_returns=random_returns), []
    agent: ActingAgent | None = None
    with EpisodeProgress(console) as progress:
        for work in works:
            watcher = _Watcher(work, benchmark, progress)
            if work.result is None:
                # Signals wait for the end of a step, and for files that are being written.
                with (
                    stop.deferred() if stop else contextlib.nullcontext(),
                    closing(make_venv(work.level)) as venv,
                ):
                    agent = agent or make_agent(venv)
                    player = _Player(benchmark, work, venv, stop)
                    report.random_returns = report.random_returns or player.random_returns(progress)
                    work.result = player.play(agent, masker, watcher, report.random_returns)
                    save_result(benchmark.result_path(work.level), work.result, benchmark.overwrite)
            elif benchmark.random_baseline:
                report.random_returns = report.random_returns or work.result.random_returns
            report.results.append(work.result)
            report.files.append(benchmark.result_path(work.level))
            report.videos += watcher.videos()
            scenes += watcher.scenes(masker)
    if scenes:
        level_picture(benchmark.picture_path, scenes, title(report.results))
        report.picture = benchmark.picture_path
    for work in works:
        work.partial.remove()
    return report


@dataclass
class _Player:
    """Plays what is missing of one level."""

    benchmark: Benchmark
    work: LevelWork
    venv: Any
    stop: StopSignal | None

    def random_returns(self, progress: EpisodeProgress) -> list[float] | None:
        """Return the returns of random actions, where they are asked for.

        Rewards of random actions do not depend on what is seen: one level stands for all.
        """
        if not self.benchmark.random_baseline:
            return None
        episodes, known = min(self.benchmark.episodes, RANDOM_EPISODES), self.work.partial.random_returns
        progress.begin("random actions", episodes, len(known))

        def keep(episode: int, value: float) -> None:
            self.work.partial.add_random(episode, value)
            progress.finish()

        return random_policy_returns(
            self.venv,
            episodes=episodes,
            seed=self.benchmark.seed,
            finished=known,
            on_episode=keep,
            should_stop=self._should_stop,
        )

    def play(
        self, agent: ActingAgent, masker: ObservationMasker, watcher: _Watcher, random: list[float] | None
    ) -> EvaluationResult:
        """Return the result of the level."""
        benchmark, conditions = self.benchmark, self.work.conditions
        episodes = evaluate(
            agent,
            self.venv,
            episodes=benchmark.episodes,
            seed=benchmark.seed,
            agent_step=conditions.agent_steps,
            masker=masker,
            padded_batch=benchmark.padded_batch,
            frame_stack=benchmark.frame_stack,
            finished=watcher.begin(),
            on_frame=watcher.see,
            on_episode=watcher.finish,
            should_stop=self._should_stop,
        )
        return make_result(conditions, episodes, random)

    def _should_stop(self) -> bool:
        return self.stop is not None and self.stop.number is not None


class _Watcher:
    """Keeps finished episodes, one frame for the picture, and videos if asked; counts for the progress."""

    def __init__(self, work: LevelWork, benchmark: Benchmark, progress: EpisodeProgress) -> None:
        self._work, self._benchmark, self._progress = work, benchmark, progress
        self._view: StepView | None = work.partial.view
        self._recorders: dict[int, VideoRecorder] = {}

    def begin(self) -> list[EpisodeResult]:
        """Start counting and return the episodes that need not be played again."""
        paths = {e.episode: self._benchmark.video_path(self._work.level, e.episode) for e in self._known()}
        kept = [e for e in self._known() if (path := paths[e.episode]) is None or path.exists()]
        self._progress.begin(self._work.level, self._benchmark.episodes, len(kept))
        return kept

    def see(self, view: StepView) -> None:
        """Look at one frame."""
        self._progress.see()
        if view.episode == 0 and view.step <= PICTURE_STEP:
            self._view = view
        if self._benchmark.videos is not None:
            self._recorders.setdefault(view.episode, VideoRecorder()).add(view.raw, view.masked)

    def finish(self, result: EpisodeResult) -> None:
        """Keep an episode that has ended, its video first."""
        path = self._benchmark.video_path(self._work.level, result.episode)
        if path is not None:
            self._recorders.pop(result.episode).save(path)
        self._work.partial.add_episode(result, self._view if result.episode == 0 else None)
        self._progress.finish()

    def videos(self) -> list[Path]:
        """Return the paths of the videos that are there."""
        paths = (self._benchmark.video_path(self._work.level, e) for e in range(self._benchmark.episodes))
        return [path for path in paths if path is not None and path.exists()]

    def scenes(self, masker: ObservationMasker) -> list[Scene]:
        """Return the picture's row: episode 0 at agent step 50, or its last frame; none where unknown."""
        view = self._view
        if view is None:
            return []
        note = iou_note(view.mask, view.foreground)
        explanation = explain_frame(masker, view.raw)
        return [Scene(self._work.level, view.raw, view.mask, view.masked, explanation, note)]

    def _known(self) -> list[EpisodeResult]:
        return [e for e in self._work.partial.episodes if e.episode < self._benchmark.episodes]


def print_report(reports: Sequence[Report], console: Console | None = None) -> None:
    """Print one table over the reports of one agent, and the paths of everything that was written."""
    console = console or make_console()
    console.print(results_table([result for report in reports for result in report.results]))
    for report in reports:
        pictures = [report.picture] if report.picture else []
        for label, paths in (("result", report.files), ("video", report.videos), ("picture", pictures)):
            for path in paths:
                console.print(f"{label:8} {path}", soft_wrap=True)
