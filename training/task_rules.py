"""What a configuration says of its task, compared with the table of tasks."""

from __future__ import annotations

from omegaconf import DictConfig

from common.errors import ConfigError, unknown_choice
from evaluation.run_directory import REFERENCE_KEYS, chosen_cameras


def check_cameras(cfg: DictConfig) -> None:
    """Raise ``ConfigError`` where a camera or the reference of one is none of the task's."""
    from envs.tasks import find_camera, find_cameras, find_task, task_names

    if cfg.task_name not in task_names():
        return
    task = find_task(cfg.task_name)
    find_cameras(task, chosen_cameras(cfg))
    for name, values in (cfg.camera_references or {}).items():
        find_camera(task, str(name))
        for key in values:
            if key not in REFERENCE_KEYS:
                raise unknown_choice(f"key of camera_references.{name}", key, REFERENCE_KEYS)


def check_suite(cfg: DictConfig) -> None:
    """Raise ``ConfigError`` where ``env`` is not the simulator of the task."""
    from envs.tasks import find_task, task_names  # loads torch, which composing a configuration does without

    if cfg.task_name in task_names() and (suite := find_task(cfg.task_name).suite) != cfg.env:
        raise ConfigError(
            f"{cfg.task_name} is a task of env={suite}, not of env={cfg.env}.",
            f"Leave env out: task={cfg.task_name.removeprefix('adroit_')} sets it.",
        )
