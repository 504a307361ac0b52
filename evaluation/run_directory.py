"""What evaluation reads of a run directory: its configuration and where its parts lie."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from common.errors import ConfigError, SnapshotError, unknown_choice
from common.files import read_json
from common.paths import PROJECT_ROOT, resolve

REQUIRED = (
    "task_name",
    "action_repeat",
    "frame_stack",
    "image_size",
    "seed",
    "agent._target_",
    "masker.variant",
)
REFERENCE_KEYS = ("original_image", "masked_image", "extra_points_list", "extra_masked_images_list")
ALIASES = {"ball_in_cup": "cup"}
BACKGROUND_TYPES = ("original", "color", "video")
DIFFICULTIES = ("easy", "hard")


@dataclass(frozen=True)
class Background:
    """What the agent is evaluated under.

    Attributes:
        levels: benchmark levels, in order.
        source: ``dmcgb`` or ``procedural``.
        data_dir: folder of the benchmark's data, or None.
        protocol: ``dmcgb`` or ``samg``.
        key: how video pixels are chosen, or None for the protocol's own.
        colors: colour scheme, or None for the protocol's own.
    """

    levels: tuple[str, ...]
    source: str
    data_dir: str | None
    protocol: str
    key: str | None
    colors: str | None


@dataclass(frozen=True)
class RunDirectory:
    """A finished or running training run.

    Attributes:
        path: the directory.
        config: its resolved ``config.yaml``, with ``agent_options``.
        agent_options: keys of the agent that this evaluation sets, and their values.
    """

    path: Path
    config: DictConfig
    agent_options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, directory: str | Path, agent_options: Sequence[str] = ()) -> RunDirectory:
        """Read and check a run directory.

        Args:
            directory: of the run.
            agent_options: ``key=value`` of the agent, to act otherwise than the run is configured.

        Raises:
            SnapshotError: it does not exist, is no run directory, or holds no snapshot.
            ConfigError: the agent has no such option.
        """
        path = resolve(directory)
        if not path.is_dir():
            raise SnapshotError(f"The run directory {directory} does not exist.", "Name the folder of a run.")
        if not (path / "config.yaml").is_file():
            raise SnapshotError(
                f"{directory} is not a run directory: it has no config.yaml.", _not_a_run_hint(path)
            )
        config = _read_config(path / "config.yaml")
        if not cls(path, config).begun:
            raise SnapshotError(
                f"{directory} holds no snapshot.",
                "Train for longer: a snapshot is written at the end at last.",
            )
        return cls(path, config, _set_agent_options(config, agent_options))

    @property
    def task(self) -> str:
        """Name of the task, such as ``cup_catch``."""
        return canonical_task(str(self.config.task_name))

    @property
    def masker_dir(self) -> Path:
        """Where the masker of the run was saved."""
        return self.path / "masker"

    @property
    def eval_dir(self) -> Path:
        """Where results belong."""
        return self.path / "eval"

    @property
    def videos_dir(self) -> Path:
        """Where videos belong."""
        return self.path / "videos"

    @property
    def failures_dir(self) -> Path:
        """Where frames are kept on which the masker fails."""
        return self.path / "masker_failures"

    @property
    def begun(self) -> bool:
        """Whether there is a snapshot, whatever its state."""
        return any((self.path / "snapshots").glob("step_*"))

    @property
    def algorithm(self) -> str:
        """Name of the agent's configuration, such as ``drqv2``; else its class."""
        target = str(self.config.agent._target_)
        for name, known in _agent_targets().items():
            if known == target:
                return name
        return target.rsplit(".", 1)[-1]

    @property
    def masker_variant(self) -> str:
        """Variant the agent was trained with."""
        return str(self.config.masker.variant)

    @property
    def fast_render(self) -> bool:
        """Whether the agent was trained on cheaper shadows; runs older than the option were not."""
        return bool(self.config.get("fast_render", False))

    def masker_settings(self, variant: str) -> dict[str, Any]:
        """Return the settings of a masker: the run's own for its variant, else the variant's defaults."""
        if variant == self.masker_variant:
            found: Any = self.config.masker
        else:
            found = OmegaConf.load(PROJECT_ROOT / "cfgs" / "masker" / f"{variant}.yaml")
        settings: dict[str, Any] = OmegaConf.to_container(found, resolve=True)  # type: ignore[assignment]
        settings.pop("variant", None)
        return settings

    def trained_masker(self, manifest: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        """Return name, variant, fingerprint and numerics of training's masker; None when it was not saved.

        Args:
            manifest: of a snapshot, which knows on what the training went on that led to it; without one the
                numerics are those of the run's beginning.
        """
        path = self.masker_dir / "masker.json"
        if not path.is_file():
            return None
        record = read_json(path, "masker record")
        named = {key: str(record.get(key)) for key in ("name", "variant", "fingerprint")}
        latest = (manifest or {}).get("masker", {}).get("numerics")
        return {**named, "numerics": latest or record.get("numerics", {})}

    @property
    def camera(self) -> str | list[str] | None:
        """What observes, as ``envs.make_env`` takes it; None for the task's own camera."""
        return chosen_cameras(self.config)

    def reference(self) -> dict[str, Any] | list[dict[str, Any]]:
        """Return the run's reference as ``samg.load_reference`` takes it; see ``chosen_reference``."""
        return chosen_reference(self.config)

    def background(self) -> Background:
        """Return what the run was trained under; absent keys have the defaults of ``cfgs/config.yaml``.

        Raises:
            ConfigError: there is no such ``background.type`` or ``background.difficulty``.
        """
        chosen = OmegaConf.select(self.config, "background") or {}
        kind, difficulty = str(chosen.get("type") or "original"), str(chosen.get("difficulty") or "easy")
        if kind not in BACKGROUND_TYPES:
            raise unknown_choice("background.type", kind, BACKGROUND_TYPES)
        if difficulty not in DIFFICULTIES:
            raise unknown_choice("background.difficulty", difficulty, DIFFICULTIES)
        return Background(
            levels=("train" if kind == "original" else f"{kind}_{difficulty}",),
            source=str(chosen.get("source") or "dmcgb"),
            data_dir=chosen.get("data_dir"),
            protocol=str(OmegaConf.select(self.config, "protocol") or "dmcgb"),
            key=chosen.get("key"),
            colors=chosen.get("colors"),
        )

    def check_task(self, domain_name: str | None, task_name: str | None) -> None:
        """Raise ``ConfigError`` when the flags name another task than the run's."""
        asked = task_from_flags(domain_name, task_name, self.task)
        if asked != self.task:
            raise ConfigError(
                f"The run was trained on {self.task}, but the flags name {asked}.",
                "Leave out --domain_name and --task_name: the run knows its task.",
            )

    def check_algorithm(self, algorithm: str | None) -> None:
        """Raise ``ConfigError`` when ``--algorithm`` is unknown or not the run's."""
        if algorithm is None or algorithm == self.algorithm:
            return
        known = _agent_targets()
        if algorithm not in known:
            raise unknown_choice("algorithm", algorithm, known)
        raise ConfigError(
            f"The run was trained with {self.algorithm}, not with {algorithm}.",
            "Leave out --algorithm: the run knows its agent.",
        )

    def with_background(self, **changes: Any) -> Background:
        """Return ``background()`` with the given values; another protocol brings its own key and colours."""
        chosen = {name: value for name, value in changes.items() if value is not None}
        if "protocol" in chosen:
            chosen = {"key": None, "colors": None, **chosen}
        return dataclasses.replace(self.background(), **chosen)


def chosen_cameras(config: Any) -> str | list[str] | None:
    """Return a configuration's ``camera``: a name, names, or None; runs older than the key have none."""
    return _plain(OmegaConf.select(config, "camera"))


def chosen_views(config: Any) -> int:
    """Return how many cameras observe at once."""
    cameras = chosen_cameras(config)
    return len(cameras) if isinstance(cameras, list) else 1


def chosen_reference(config: Any) -> dict[str, Any] | list[dict[str, Any]]:
    """Return a configuration's reference as ``samg.load_reference`` takes it.

    A camera has the one of its name in ``camera_references``; where there is none, that of the top level.
    Cameras that all have the same share it, and with it one masker.

    Returns:
        arguments of ``samg.Reference.load``, or such arguments for every camera; without paths where there is
        no reference.
    """
    common = {key: _plain(OmegaConf.select(config, key)) for key in REFERENCE_KEYS}
    cameras, own = chosen_cameras(config), _plain(OmegaConf.select(config, "camera_references")) or {}
    names = cameras if isinstance(cameras, list) else [cameras or ""]
    nothing: dict[str, Any] = {key: None if key.endswith("image") else [] for key in REFERENCE_KEYS}
    references = [{**nothing, **own[name]} if name in own else common for name in names]
    return references[0] if all(one == references[0] for one in references) else references


def has_reference(values: dict[str, Any] | list[dict[str, Any]]) -> bool:
    """Return whether what ``chosen_reference`` returned names an image and a mask for every camera."""
    each = [values] if isinstance(values, dict) else values
    return all(one["original_image"] and one["masked_image"] for one in each)


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def canonical_task(name: str) -> str:
    """Return the name this project gives a task: ``ball_in_cup_catch`` is ``cup_catch``."""
    for alias, ours in ALIASES.items():
        if name.startswith(f"{alias}_"):
            return f"{ours}_{name.removeprefix(f'{alias}_')}"
    return name


def task_from_flags(domain_name: str | None, task_name: str | None, default: str) -> str:
    """Return the task that ``--domain_name walker --task_name walk`` or ``--task_name walker_walk`` name."""
    if domain_name is None and task_name is None:
        return default
    domain = ALIASES.get(domain_name or "", domain_name)
    if task_name is None:
        # A domain alone only has to fit the run's task.
        return default if default.startswith(f"{domain}_") else f"{domain}_{default.rsplit('_', 1)[-1]}"
    task = canonical_task(task_name)
    if domain is None:
        return task if "_" in task else f"{default.split('_', 1)[0]}_{task}"
    return task if task.startswith(f"{domain}_") else f"{domain}_{task}"


def _agent_targets() -> dict[str, str]:
    """Return agent name -> class path for every file in ``cfgs/agent``."""
    targets = {}
    for path in sorted((PROJECT_ROOT / "cfgs" / "agent").glob("*.yaml")):
        targets[path.stem] = str(OmegaConf.select(OmegaConf.load(path), "agent._target_"))
    return targets


def _read_config(path: Path) -> DictConfig:
    try:
        config = OmegaConf.load(path)
    except (OmegaConfBaseException, YAMLError, UnicodeDecodeError) as error:
        raise SnapshotError(
            f"{path} cannot be read: {str(error).splitlines()[0]}", "Restore the file."
        ) from error
    if not isinstance(config, DictConfig):
        raise SnapshotError(f"{path} is not a configuration.", "Restore the file.")
    for key in REQUIRED:
        if OmegaConf.select(config, key) is None:
            raise SnapshotError(f"{path} lacks {key}.", "Restore the file, or name a run of train.py.")
    return config


def _set_agent_options(config: DictConfig, options: Sequence[str]) -> dict[str, Any]:
    known = [str(key) for key in config.agent if not str(key).startswith("_")]
    chosen = {}
    for option in options:
        key, equals, _ = option.partition("=")
        if not equals:
            raise ConfigError(f"--agent {option} is not KEY=VALUE.", "Write such as --agent bn_eval=batch.")
        if key not in known:
            raise unknown_choice("option of the run's agent", key, known)
        chosen[key] = OmegaConf.from_dotlist([option])[key]
        config.agent[key] = chosen[key]
    return chosen


def _not_a_run_hint(path: Path) -> str:
    if any(path.glob("*.pt")):
        return "Pickled snapshots (.pt) of the original code cannot be loaded; train again with train.py."
    below = sorted(p.parent.name for p in path.glob("*/config.yaml"))
    if below:
        return f"Name the run itself, such as {below[0]}."
    return "Name a folder that train.py has written (hydra.run.dir)."
