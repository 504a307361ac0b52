"""What the loop needs to know of a configuration; the keys are DrQ-v2's where DrQ-v2 has them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from common.errors import ConfigError

_MISSING = object()
_NESTED = {
    "prefetch": "replay.prefetch",
    "replay_cache": "replay.cache",
    "replay_cache_dir": "replay.cache_dir",
    "max_lost": "replay.max_lost",
    "update_every_steps": "agent.update_every_steps",
}
_ZERO_ALLOWED = ("seed", "num_seed_frames", "eval_every_frames", "num_eval_episodes", "snapshot_every_frames")


@dataclass(frozen=True)
class TrainSettings:
    """Values of the training loop; frames are simulator steps, decisions are frames / action_repeat.

    Attributes:
        num_train_frames: frames of the whole run.
        num_seed_frames: frames before the first update.
        eval_every_frames, snapshot_every_frames: periods; 0 means never (a snapshot is written at the end).
        num_eval_episodes: 0 means that training does not evaluate.
        update_every_steps: decisions per update.
        replay_buffer_size: transitions kept at most.
        prefetch: gather the next batch in a thread.
        replay_cache: where the frames are kept, a name of ``training.replay_cache.CACHES``.
        replay_cache_dir: folder of the memory map; None for the run directory.
        max_lost: fraction of the replay's transitions that may be missing when a run is resumed.
        resume: ``auto``, ``must`` or ``never``.
    """

    num_train_frames: int
    num_seed_frames: int = 4000
    action_repeat: int = 2
    frame_stack: int = 3
    num_envs: int = 1
    seed: int = 0
    batch_size: int = 256
    nstep: int = 3
    discount: float = 0.99
    update_every_steps: int = 2
    replay_buffer_size: int = 1_000_000
    prefetch: bool = False
    replay_cache: str = "auto"
    replay_cache_dir: str | None = None
    max_lost: float = 0.01
    eval_every_frames: int = 100_000
    num_eval_episodes: int = 10
    snapshot_every_frames: int = 100_000
    resume: str = "auto"
    use_tb: bool = False
    use_wandb: bool = False
    wandb_project: str | None = None
    wandb_group: str | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type == "int":
                least = 0 if field.name in _ZERO_ALLOWED else 1
                if isinstance(value, bool) or not isinstance(value, int) or value < least:
                    raise ConfigError(
                        f"{field.name}={value} is not possible.", f"Use a whole number >= {least}."
                    )
        if self.resume not in ("auto", "must", "never"):
            raise ConfigError(f"resume={self.resume} is not possible.", "Use auto, must or never.")

    @property
    def planned_decisions(self) -> int:
        """Decisions of the whole run, rounded up to whole steps of all environments."""
        decisions = self.num_train_frames // self.action_repeat
        return max(-(-decisions // self.num_envs) * self.num_envs, 1)

    def replay_capacity(self, demonstrated: int = 0) -> int:
        """Return the transitions the replay buffer is made for: never more than it is given and will collect.

        Args:
            demonstrated: transitions of demonstrations, which it begins with.
        """
        return min(self.replay_buffer_size, self.planned_decisions + demonstrated)

    @staticmethod
    def from_config(cfg: Any) -> TrainSettings:
        """Take the values from a configuration with attributes; absent keys keep their defaults."""
        values = {}
        for field in dataclasses.fields(TrainSettings):
            for name in (field.name, _NESTED.get(field.name, field.name)):
                value = _look_up(cfg, name)
                if value is not _MISSING:
                    values[field.name] = value
        return TrainSettings(**values)


def _look_up(cfg: Any, name: str) -> Any:
    for part in name.split("."):
        cfg = getattr(cfg, part, _MISSING)
        if cfg is None:  # an OmegaConf DictConfig returns None for an absent key
            return _MISSING
    return cfg
