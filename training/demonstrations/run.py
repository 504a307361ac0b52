"""From a run's configuration to the episodes that it begins with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from functools import cached_property
from importlib import metadata
from typing import Any

import torch

import envs
from common.files import sha256_file
from common.masking import ObservationMasker
from common.paths import resolve
from evaluation.console import EpisodeProgress
from evaluation.run_directory import RunDirectory, canonical_task
from training.demonstrations.cache import cached_episodes
from training.demonstrations.choosing import Filter, choose
from training.demonstrations.formats import content_file
from training.demonstrations.playing import play_again
from training.demonstrations.reading import Demonstration, read_demonstrations
from training.episodes import Episode
from wrappers import BatchMasker


class RunDemonstrations:
    """The demonstrations of a run: read, checked and chosen at once, played when the masker is there.

    Args:
        run: its configuration says ``demonstrations`` (null for none) and ``demonstration_filter``. Once it
            has begun its replay holds the demonstrations, and nothing is looked at unless that turns out to
            be needed.
        level: what the run is trained under.
        rules: further arguments of ``envs.make_env`` that change what is seen.

    Raises:
        InputError: the file is missing, damaged, of another task, or nothing of it is taken.
        DependencyError: it needs a package that is not installed.
    """

    def __init__(self, run: RunDirectory, level: str, rules: Mapping[str, Any]) -> None:
        self._cfg, self._level, self._rules = run.config, level, dict(rules)
        self._failures, self._camera = run.failures_dir, run.camera
        if self._cfg.demonstrations is not None and not run.begun:
            _ = self.chosen

    @cached_property
    def chosen(self) -> list[Demonstration]:
        """The demonstrations that the run takes, by how they end without being drawn."""
        cfg = self._cfg
        with closing(envs.make_env(cfg.task_name)) as env:
            shapes = {name: value.shape for name, value in env.start_state.items()}
            (action_dim,) = env.action_space.shape  # type: ignore[misc]
        found = read_demonstrations(
            cfg.demonstrations, action_dim, shapes, canonical_task(str(cfg.task_name))
        )
        with closing(envs.make_env(cfg.task_name, **_room(found))) as env, EpisodeProgress() as progress:
            progress.begin("demonstrations, without drawing", len(found))
            return choose(env, found, Filter(**cfg.demonstration_filter), progress.finish)

    def key(self, masker: ObservationMasker) -> dict[str, Any]:
        """Return what the played episodes follow from, as JSON values."""
        cfg, clean = self._cfg, self._level == "train"
        return {
            "file": sha256_file(content_file(resolve(cfg.demonstrations))),
            "filter": dict(cfg.demonstration_filter),
            "task": str(cfg.task_name),
            "level": None if clean else {"name": self._level, "seed": int(cfg.seed), **self._rules},
            "camera": self._camera,
            "image_size": int(cfg.image_size),
            "fast_render": bool(cfg.fast_render),
            "masker": masker.info.to_dict(),
            "mask_every": int(getattr(masker, "every", 1)),
            "mujoco": metadata.version("mujoco"),
        }

    def episodes(
        self, masker: ObservationMasker, make_venv: Callable[..., Any], device: torch.device
    ) -> list[Episode]:
        """Return the episodes as the run's agent would have seen them, masked; none where none are wanted.

        Args:
            masker: of the run.
            make_venv: makes the run's unmasked vector environment from a number and further options.
            device: where frames go.
        """
        if self._cfg.demonstrations is None:
            return []

        def play() -> list[Episode]:
            chosen = self.chosen
            count = min(int(self._cfg.num_envs), len(chosen))
            with closing(make_venv(count, **_room(chosen))) as venv, EpisodeProgress() as progress:
                progress.begin("demonstrations", len(chosen))
                masking = BatchMasker(masker, device=device, keep_failed=self._failures)
                return play_again(venv, chosen, masking, progress.see, progress.finish)

        return cached_episodes(self.key(masker), play)


def _room(demonstrations: list[Demonstration]) -> dict[str, Any]:
    """Return the options of an environment in which none of the demonstrations is cut off.

    Recorded hands may take longer than a task's episodes last, as VRL3 lets them.
    """
    repeat = demonstrations[0].action_repeat
    longest = max(len(demonstration.actions) for demonstration in demonstrations)
    return {"action_repeat": repeat, "horizon": repeat * longest}
