"""Configuration of `train.py`: overrides checked before Hydra starts, values before anything is built."""

from __future__ import annotations

import inspect
import logging
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from common.errors import ConfigError, nearest, unknown_choice
from common.files import write_bytes
from common.paths import PROJECT_ROOT
from evaluation.run_directory import chosen_reference, has_reference
from training.factory import check_agent_files
from training.guard import exclusive
from training.rules import check_values
from training.task_rules import check_cameras, check_suite

log = logging.getLogger(__name__)

CONFIG_DIR = PROJECT_ROOT / "cfgs"
GROUPS = ("agent", "masker", "task")
# No groups of every configuration, hence the plus: a study's settings, a set of runs, where runs go.
STUDY, SUITE, LAUNCHER = ADDED = ("+study", "+suite", "+launcher")
MASKERS_WITHOUT_REFERENCE = ("none", "groundtruth")

# Keys of the original code and DrQ-v2 that have another name or place here.
MOVED_KEYS = {
    "handmade_4_SAM.original_image": "original_image",
    "handmade_4_SAM.masked_image": "masked_image",
    "handmade_4_SAM.extra_points_list": "extra_points_list",
    "handmade_4_SAM.extra_masked_images_list": "extra_masked_images_list",
    "handmade_4_SAM.extra_masked_image_list": "extra_masked_images_list",
    "extra_masked_image_list": "extra_masked_images_list",
    "save_snapshot": "snapshot_every_frames (a snapshot is always written at the end)",
    "save_train_video": "save_video",
    "replay_buffer_num_workers": "replay.prefetch",
    "wandb_proj_name": "wandb_project",
    "experiment": "hydra.run.dir",
    "model_dir": "hydra.run.dir",
    "task@_global_": "task",
}

# Of numerics: what rounds to the last bits only.
FREE_CHOICES = ("compile", "cuda_graph", "channels_last")
# What may differ between a run and its continuation without making it another experiment.
FREE_ON_RESUME = (
    "num_train_frames",
    "eval_every_frames",
    "num_eval_episodes",
    "snapshot_every_frames",
    "resume",
    "use_tb",
    "use_wandb",
    "wandb_project",
    "wandb_group",
    "save_video",
    "device",
    "num_threads",
    *(f"{key}.{choice}" for key in ("masker", "agent.numerics") for choice in FREE_CHOICES),
    "debug",
    "replay.prefetch",
    "replay.cache",
    "replay.cache_dir",
    "render_device",
    "replay.max_lost",
    "replay_buffer_size",
    "background.data_dir",
)


# Hydra's own flags whose next word is no override.
_FLAGS_WITH_VALUE = ("--config-name", "-cn", "--cfg", "-c", "--package", "-p", "--config-path", "-cp")
# Names of files whose content the snapshot's record identifies: they may move, but not appear or vanish.
MOVABLE = ("data.overlay_dir", "agent.overlay_dir", "agent.encoder_weights")

# Options of which older runs say nothing, and what they did.
_ADDED = {
    "masker.mask_from": "decoder",
    "masker.every": 1,
    "masker.precision": "float32",
    "masker.dino_size": 448,
    "fast_render": False,
    "agent.state_dim": "???",
    "camera": None,
    "demonstrations": None,
    "demonstration_filter.outcome": "success",
    "demonstration_filter.least_return": None,
    "demonstration_filter.most": None,
}

_BUDGETS = ("easy", "medium", "hard", "adroit")  # what task files build on; no tasks themselves


def _group_choices(group: str) -> list[str]:
    names = sorted(path.stem for path in (CONFIG_DIR / group).glob("*.yaml"))
    return [name for name in names if not (group == "task" and name in _BUDGETS)]


def manual(text: str | None) -> str:
    """Return a docstring followed by the choices of every group, for ``--help``."""
    choices = [f"{group}: {', '.join(_group_choices(group.lstrip('+')))}" for group in (*GROUPS, *ADDED)]
    return "\n".join([inspect.cleandoc(text or ""), "", *choices, "All values: python train.py --cfg job"])


def prepare_command_line(arguments: list[str], about: str | None) -> list[str]:
    """Return the completed command line, or show the manual if it asks for help; ``about`` heads the manual.

    Raises:
        ConfigError: as ``prepare_overrides``.
        SystemExit: help was asked for.
    """
    if {"-h", "--help"} & set(arguments):
        print(manual(about))  # noqa: T201
        sys.exit()
    return prepare_overrides(arguments)


def _config_names() -> list[str]:
    return sorted(path.stem for path in CONFIG_DIR.glob("*.yaml"))


def compose_config(
    overrides: Iterable[str] = (), config_name: str = "config", with_hydra: bool = False
) -> DictConfig:
    """Return the composed configuration without starting Hydra; ``with_hydra`` adds Hydra's own.

    Raises:
        ConfigError: Hydra or OmegaConf refuse the overrides.
    """
    if config_name not in _config_names():
        raise unknown_choice("--config-name", config_name, _config_names())
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONFIG_DIR), version_base=None):
            return compose(config_name, overrides=list(overrides), return_hydra_config=with_hydra)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(
            f"The configuration cannot be composed: {_first_line(error)}", "Check it."
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _known_keys(cfg: DictConfig, prefix: str = "") -> set[str]:
    keys: set[str] = set()
    for key in map(str, cfg):
        name = prefix + key
        keys.add(name)
        if OmegaConf.is_missing(cfg, key) or OmegaConf.is_interpolation(cfg, key):
            continue
        if isinstance(cfg[key], DictConfig):
            keys |= _known_keys(cfg[key], f"{name}.")
    return keys


def split_command_line(arguments: list[str]) -> tuple[str, bool, list[str]]:
    """Return (config name, multirun?, overrides) of a Hydra command line."""
    config_name, multirun, overrides = "config", False, []
    position = 0
    while position < len(arguments):
        argument = arguments[position]
        if argument in _FLAGS_WITH_VALUE and position + 1 < len(arguments):
            position += 1
            if argument in ("--config-name", "-cn"):
                config_name = arguments[position]
        elif argument.startswith("--config-name="):
            config_name = argument.split("=", 1)[1]
        elif argument in ("--multirun", "-m"):
            multirun = True
        elif not argument.startswith("-"):
            overrides.append(argument)
        position += 1
    return config_name.removesuffix(".yaml"), multirun, overrides


def _chosen_names(value: Any) -> list[Any]:
    """Return the single values of an override, several in a sweep."""
    return list(value.list) if hasattr(value, "list") else [value]


def _check_group(override: Override) -> None:
    group = override.get_key_element().lstrip("+~")
    for value in _chosen_names(override.value()):
        if str(value) not in _group_choices(group):
            raise unknown_choice(group, value, _group_choices(group))


def _check_key(key: str, known: set[str]) -> None:
    if key in MOVED_KEYS:
        raise ConfigError(f"The key '{key}' has moved.", f"Write {MOVED_KEYS[key]}.")
    if f"+{key}" in ADDED:
        raise ConfigError(f"A {key} is added to the configuration.", f"Write +{key}=..., with the plus.")
    if key not in known:
        hint = f"{nearest(key, known)}All keys stand in cfgs/config.yaml, cfgs/agent and cfgs/masker."
        raise ConfigError(f"Unknown configuration key '{key}'.", hint)


def prepare_overrides(arguments: list[str]) -> list[str]:
    """Check a Hydra command line before Hydra sees it and return it, completed.

    ``use_SAM_g=false`` without a masker becomes ``masker=none``. Launcher, sweeper and ``hydra.*`` keys are
    left to Hydra.

    Raises:
        ConfigError: an override cannot be parsed, names an unknown key or choice, uses a key that has moved,
            or ``use_SAM_g`` contradicts the masker.
    """
    config_name, multirun, texts = split_command_line(arguments)
    try:
        overrides = OverridesParser.create().parse_overrides(texts)
    except HydraException as error:
        raise ConfigError(f"Cannot read the overrides: {_first_line(error)}", "Write key=value.") from error
    chosen = {o.get_key_element(): o.value() for o in overrides}
    known = _known_keys(compose_config((), config_name))
    # Agents have keys of their own; tasks none but the references of their cameras.
    views = any(key.startswith("camera_references.") for key in chosen)
    for group in ("agent", "task") if views else ("agent",):
        for name in _chosen_names(chosen.get(group)):
            if name in _group_choices(group):
                known |= _known_keys(compose_config([f"{group}={name}"], config_name))
    known |= _study_keys(chosen, config_name) | _suite_keys(chosen)
    # Values of a masker that is not the default one are known too.
    known |= {f"masker.{key}" for key in compose_config(["masker=paper"]).masker}
    for override in overrides:
        key = override.get_key_element()
        if key.startswith(("hydra", "+", "~")) and key not in ADDED:
            continue
        if key in (*GROUPS, *ADDED):
            _check_group(override)
        else:
            _check_key(key, known)
    return arguments + _masker_switch(chosen, multirun)


def _study_keys(chosen: dict[str, Any], config_name: str) -> set[str]:
    """Return the keys that a chosen study adds; a setting that it does not have is refused."""
    study = chosen.get(STUDY)
    if study not in _group_choices("study"):
        return set()
    cfg = compose_config([f"{STUDY}={study}"], config_name)
    for setting in _chosen_names(chosen.get("study.setting")) if "study.setting" in chosen else ():
        if str(setting) not in cfg.study.get("settings", ()):
            raise unknown_choice(f"setting of the study {study}", setting, cfg.study.get("settings", ()))
    return _known_keys(cfg)


def _suite_keys(chosen: dict[str, Any]) -> set[str]:
    """Return the keys that a chosen suite adds; one whose tasks do not exist is refused."""
    suite = chosen.get(SUITE)
    if suite not in _group_choices("suite"):
        return set()
    stored = OmegaConf.load(CONFIG_DIR / "suite" / f"{suite}.yaml")
    tasks = [task.strip() for task in str(OmegaConf.select(stored, "hydra.sweeper.params.task")).split(",")]
    missing = [task for task in tasks if task not in _group_choices("task")]
    if missing and "task" not in chosen:
        raise ConfigError(
            f"The suite {suite} names tasks that this version does not have: {', '.join(missing)}.",
            "Choose tasks it has with task=..., or another suite.",
        )
    return {"suite", *(f"suite.{key}" for key in stored.suite)}


def _masker_switch(chosen: dict[str, Any], multirun: bool) -> list[str]:
    switch, masker = chosen.get("use_SAM_g"), chosen.get("masker")
    if switch is False and masker is None:
        return ["masker=none"]
    contradiction = (switch is False and masker != "none") or (switch is True and masker == "none")
    if contradiction and not multirun:
        raise ConfigError(
            f"use_SAM_g={str(switch).lower()} contradicts masker={masker}.",
            "Give only one of them: use_SAM_g=false is masker=none.",
        )
    return []


def validate(cfg: DictConfig) -> None:
    """Check every value of a composed configuration, and that the files its agent needs are there.

    Raises:
        ConfigError: a value has the wrong type or range, or two values contradict each other.
        InputError: a file or folder that the agent learns from is missing and cannot be fetched.
    """
    check_values(cfg)
    check_suite(cfg)
    if cfg.num_train_frames < cfg.num_seed_frames:
        log.warning(
            "num_train_frames=%d is less than num_seed_frames=%d: no update will ever happen",
            cfg.num_train_frames,
            cfg.num_seed_frames,
        )
    check_cameras(cfg)
    if cfg.masker.variant not in MASKERS_WITHOUT_REFERENCE and not has_reference(chosen_reference(cfg)):
        raise ConfigError(
            f"{cfg.task_name} has no reference image for masker={cfg.masker.variant}.",
            "Set original_image and masked_image (annotate.py makes them), or use masker=none.",
        )
    check_agent_files(cfg)


def _flat(cfg: DictConfig) -> dict[str, Any]:
    resolved = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=False)

    def walk(value: Any, prefix: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            return {prefix[:-1]: value}
        return {
            key: leaf for name, part in value.items() for key, leaf in walk(part, f"{prefix}{name}.").items()
        }

    return walk(resolved, "")


def save_config(cfg: DictConfig, run_dir: Path) -> None:
    """Write the resolved configuration as ``config.yaml`` of a run; an identical experiment may be continued.

    A folder in which nothing was trained yet (an earlier start failed) is free for any experiment.

    Raises:
        ConfigError: the run directory holds another experiment (the changed keys are named), or another
            process is training in it.
    """
    with exclusive(run_dir):
        if check_same_experiment(cfg, run_dir):
            # Fitted under other settings by a start that went no further.
            shutil.rmtree(run_dir / "masker", ignore_errors=True)
        write_bytes(run_dir / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True).encode())


def check_same_experiment(cfg: DictConfig, run_dir: Path, cure: str = "hydra.run.dir=DIR") -> list[str]:
    """Return what differs from the configuration in a folder, which is nothing once it was trained there.

    Args:
        cfg: of the run that would go on.
        run_dir: its folder, which need not exist.
        cure: names another folder.

    Raises:
        ConfigError: the folder holds another experiment; the changed keys are named.
    """
    path = run_dir / "config.yaml"
    if not path.exists():
        return []
    changed = _changes(path, cfg)
    if any((run_dir / "snapshots").glob("step_*")):
        _check_agent(run_dir, OmegaConf.load(path), cfg)
        if changed:
            raise ConfigError(
                f"{run_dir} holds another experiment ({'; '.join(changed[:6])}).",
                f"Choose another folder with {cure}, or restore these values.",
            )
    return changed


def _check_agent(run_dir: Path, before: Any, now: DictConfig) -> None:
    targets = [str(OmegaConf.select(cfg, "agent._target_")).rsplit(".", 1)[-1] for cfg in (before, now)]
    if targets[0] != targets[1]:
        raise ConfigError(
            f"The run in {run_dir} was trained with {targets[0]}, not with {targets[1]}.",
            "Choose that agent again, or another folder with hydra.run.dir=DIR.",
        )


def _same_content_elsewhere(key: str, before: Any, now: Any) -> bool:
    return key in MOVABLE and not {before, now} & {None, "random"}


def _changes(path: Path, cfg: DictConfig) -> list[str]:
    """Return what would make the run in ``path`` another experiment, as ``key: before -> now``."""
    before, now = _flat(OmegaConf.load(path)), _flat(cfg)  # type: ignore[arg-type]
    before |= {key: value for key, value in _ADDED.items() if key in now and key not in before}
    return [
        f"{key}: {before.get(key)} -> {now.get(key)}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
        and key not in FREE_ON_RESUME
        and not key.startswith(("hydra.", "study.", "suite.", "sweep."))
        and not _same_content_elsewhere(key, before.get(key), now.get(key))
    ]
