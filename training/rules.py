"""What the values of a configuration must be."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, OmegaConf

from algos.pieg import BN_MODES
from algos.schedules import parse_schedule
from common.errors import ConfigError
from training.demonstrations.choosing import OUTCOMES
from training.replay_cache import CACHES


def _is_int(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value: Any, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


_Rule = tuple[Callable[[Any], bool], str]
_POSITIVE_INT: _Rule = (lambda v: _is_int(v, 1), "a whole number of at least 1")
_COUNT: _Rule = (lambda v: _is_int(v, 0), "a whole number of at least 0")
_BOOL: _Rule = (lambda v: isinstance(v, bool), "true or false")
_FRACTION: _Rule = (lambda v: _is_number(v, 0, 1), "a number from 0 to 1")
_NOT_NEGATIVE: _Rule = (lambda v: _is_number(v, 0, math.inf), "a number of at least 0")
_RATE: _Rule = (lambda v: _is_number(v, 1e-12, 1), "a number above 0 and at most 1")

_RULES: dict[str, _Rule] = {
    **dict.fromkeys(
        (
            "frame_stack",
            "action_repeat",
            "num_train_frames",
            "num_envs",
            "batch_size",
            "nstep",
            "feature_dim",
        ),
        _POSITIVE_INT,
    ),
    "replay_buffer_size": _POSITIVE_INT,
    "replay.cache": (lambda v: v in CACHES, "auto, ram, memmap or gpu"),
    "replay.cache_dir": (lambda v: v is None or isinstance(v, str), "null or a folder"),
    "fast_render": _BOOL,
    "render_device": (lambda v: v == "auto" or _is_int(v, 0), "auto or the number of a GPU"),
    **dict.fromkeys(
        ("eval_every_frames", "snapshot_every_frames", "num_seed_frames", "num_eval_episodes", "seed"), _COUNT
    ),
    **dict.fromkeys(("use_tb", "use_wandb", "save_video", "debug", "replay.prefetch"), _BOOL),
    **dict.fromkeys(("sweep.retry_failed", "sweep.check_disk"), _BOOL),
    "sweep.pack": _POSITIVE_INT,
    "image_size": (lambda v: _is_int(v, 36), "a whole number of at least 36"),
    **dict.fromkeys(("discount", "replay.max_lost"), _FRACTION),
    "lr": _RATE,
    "num_threads": (lambda v: v is None or _is_int(v, 1), "null or a whole number of at least 1"),
    "resume": (lambda v: v in ("auto", "must", "never"), "auto, must or never"),
    "protocol": (lambda v: v in ("dmcgb", "samg"), "dmcgb or samg"),
    "camera": (
        lambda v: v is None or isinstance(v, str) or (OmegaConf.is_list(v) and len(v) > 0),
        "null, the name of a camera, or a list of names",
    ),
    "env": (lambda v: v in ("dmc", "adroit"), "dmc or adroit"),
    "background.type": (lambda v: v in ("original", "color", "video"), "original, color or video"),
    "background.difficulty": (lambda v: v in ("easy", "hard"), "easy or hard"),
    "background.source": (lambda v: v in ("dmcgb", "procedural"), "dmcgb or procedural"),
    "data.overlay_dir": (lambda v: v is None or isinstance(v, str), "null or a folder"),
    "data.overlay_images": _POSITIVE_INT,
    "demonstrations": (lambda v: v is None or (isinstance(v, str) and bool(v)), "null, a file or a folder"),
    "demonstration_filter.outcome": (lambda v: v in OUTCOMES, " or ".join(OUTCOMES)),
    "demonstration_filter.least_return": (
        lambda v: v is None or _is_number(v, -math.inf, math.inf),
        "null or a number",
    ),
    "demonstration_filter.most": (
        lambda v: v is None or _is_int(v, 1),
        "null or a whole number of at least 1",
    ),
}


# Of the keys of the agents, of which each has some. Agents check their own as well, when they are built.
_AGENT_RULES: dict[str, _Rule] = {
    "num_expl_steps": _COUNT,
    **dict.fromkeys(
        ("feature_dim", "hidden_dim", "update_every_steps", "overlay_images", "target_views", "critic_views"),
        _POSITIVE_INT,
    ),
    **dict.fromkeys(("lr", "aux_lr"), _RATE),
    **dict.fromkeys(("critic_target_tau", "overlay_alpha", "mask_probability"), _FRACTION),
    **dict.fromkeys(
        ("max_frequency", "max_width"), (lambda v: _is_number(v, 0, 0.5), "a number from 0 to 0.5")
    ),
    **dict.fromkeys(
        (
            *("stddev_clip", "consistency_weight", "encoder_lr_scale", "offline_stddev", "offline_bc_weight"),
            *("cql_weight", "bc_weight", "safe_q_threshold", "pretanh_threshold", "pretanh_penalty"),
        ),
        _NOT_NEGATIVE,
    ),
    **dict.fromkeys(
        ("momentum_encoder", "shared_optimizer", "keep_original", "offline_update_encoder"), _BOOL
    ),
    "offline_updates": _COUNT,
    "cql_random_actions": _POSITIVE_INT,
    **dict.fromkeys(("bc_decay", "safe_q_exponent"), _FRACTION),
    "encoder_tau": _RATE,
    "aux_beta": (lambda v: _is_number(v, 0, 1) and v < 1, "a number of at least 0 and below 1"),
    "sgqn_quantile": (lambda v: _is_number(v, 0, 1) and 0 < v < 1, "a number between 0 and 1"),
    **dict.fromkeys(
        ("init_temperature", "cql_temp"), (lambda v: _is_number(v, 1e-12, math.inf), "a number above 0")
    ),
    "overlay_dir": (lambda v: v is None or isinstance(v, str), "null or a folder"),
    "encoder_weights": (lambda v: isinstance(v, str) and bool(v), "imagenet, random or a file"),
    "bn_eval": (lambda v: v in BN_MODES, " or ".join(BN_MODES)),
}


def check_values(cfg: DictConfig) -> None:
    """Check type and range of every value.

    Raises:
        ConfigError: a value is not possible; it says what would be.
    """
    rules = dict(_RULES)
    rules |= {f"agent.{key}": rule for key, rule in _AGENT_RULES.items() if key in cfg.agent}
    for key, (accepts, expected) in rules.items():
        value = OmegaConf.select(cfg, key)
        if not accepts(value):
            raise ConfigError(f"{key}={value} is not possible.", f"{key} must be {expected}.")
    for key in ("stddev_schedule", "agent.stddev_schedule"):
        parse_schedule(OmegaConf.select(cfg, key))
