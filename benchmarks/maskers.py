"""Maskers as scripts here need them: fitted to a task's own reference, full-size ones with drawn weights."""

from __future__ import annotations

from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from common.masking import ObservationMasker
from samg import Reference, build_masker
from samg.build import DRAWN
from training.config import MASKERS_WITHOUT_REFERENCE, compose_config

_KEYS = ("original_image", "masked_image", "extra_points_list", "extra_masked_images_list")


def drawn_weights(variant: str) -> str | None:
    """Return what to give as ``weights``: full-size networks come without any, and get drawn ones."""
    return DRAWN if variant in ("paper", "fast") else None


def task_reference(cfg: DictConfig) -> Reference:
    """Return the reference of a configuration's task."""
    return Reference.load(**{key: cfg[key] for key in _KEYS})


def fitted_masker(
    variant: str, task: str, device: torch.device, options: dict[str, Any] | None = None
) -> ObservationMasker:
    """Return a masker fitted to the reference that comes with a task.

    Args:
        variant: one of ``samg.build.VARIANTS``.
        task: such as ``walker_walk``.
        device: where it runs.
        options: of ``samg.build_masker``.
    """
    if variant in MASKERS_WITHOUT_REFERENCE:
        return build_masker(variant, device).fit(None)
    builder = build_masker(variant, device, weights=drawn_weights(variant), **(options or {}))
    return builder.fit(task_reference(compose_config([f"task={task}"])))


def parsed_options(choices: list[str]) -> dict[str, Any]:
    """Return ``["compile=true", "passes=1"]`` as a mapping with values of their types."""
    return dict(OmegaConf.to_container(OmegaConf.from_dotlist(choices)))  # type: ignore[arg-type]
