"""Episodes: one being collected, and the immutable file a finished one becomes."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from common import faults
from common.files import atomic_path, sha256_file
from common.views import channels_first

_NAME = re.compile(r"episode_(\d{10})_(\d+)\.npz")
# Masked frames shrink 12 to 80 times at level 1, for 30 ms of an episode of 500; level 6 takes twice that.
_LEVEL = 1
_ARRAYS = ("frames", "action", "reward", "discount")
#: What reading a damaged archive raises.
DAMAGE = (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error)


@dataclass
class Episode:
    """A finished episode of T decisions.

    Attributes:
        index: number of the episode in the run.
        frames: uint8 (T + 1, C, H, W), masked single frames, C = 3 per camera; frame t is what decision t was
            made on.
        action: float32 (T, A).
        reward: float32 (T,).
        discount: float32 (T,), 0 where the episode terminated, else 1.
        state: float32 (T + 1, S), proprioception beside the frames; S = 0, and nothing of it in the file,
            where there is none.
    """

    index: int
    frames: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    discount: np.ndarray
    state: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.float32))

    def __post_init__(self) -> None:
        if not self.state.size:
            self.state = np.empty((len(self.frames), 0), np.float32)

    def __len__(self) -> int:
        return len(self.reward)

    @property
    def name(self) -> str:
        """File name of the episode."""
        return f"episode_{self.index:010d}_{len(self)}.npz"

    @property
    def total_reward(self) -> float:
        """Undiscounted return."""
        return float(self.reward.sum(dtype=np.float64))

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the four arrays, or five, by name."""
        return {name: getattr(self, name) for name in (*_ARRAYS, *(("state",) if self.state.size else ()))}

    def save(self, directory: Path) -> str:
        """Write the episode atomically into ``directory`` and return the SHA-256 of the file.

        ``numpy.load`` reads it without pickle.
        """
        with (
            atomic_path(directory / self.name, kind="replay") as temporary,
            zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive,
        ):
            for name, array in self.arrays().items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
                faults.point("replay.array")
        return sha256_file(directory / self.name)

    @staticmethod
    def load(path: Path, sha256: str | None = None) -> Episode:
        """Read an episode file.

        Args:
            path: the file.
            sha256: what the digest of the file must be; None where nobody wrote it down.

        Raises:
            one of ``DAMAGE``: the file is missing, truncated, altered or holds something else.
        """
        found = _NAME.fullmatch(path.name)
        if found is None:
            raise ValueError(f"{path.name} is not the name of an episode")
        if sha256 is not None and sha256_file(path) != sha256:
            raise ValueError("sha256 differs: it is damaged, or belongs to another run")
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in (*_ARRAYS, *({"state"} & set(archive.files)))}
        episode = Episode(index=int(found[1]), **arrays)
        lengths = {len(array) for array in (episode.action, episode.reward, episode.discount)}
        lengths |= {len(array) - 1 for array in (episode.frames, episode.state)}
        if lengths != {int(found[2])}:
            raise ValueError(f"{path.name} holds arrays of other lengths: {sorted(lengths)}")
        return episode


def length_of(name: str) -> int:
    """Return the number of decisions in the episode whose file has this name."""
    found = _NAME.fullmatch(name)
    return int(found[2]) if found else 0


@dataclass
class OpenEpisode:
    """An episode being collected; lists grow by one per decision, ``frames`` and ``state`` are one ahead."""

    index: int
    frames: list[np.ndarray]
    action: list[np.ndarray] = field(default_factory=list)
    reward: list[float] = field(default_factory=list)
    discount: list[float] = field(default_factory=list)
    state: list[np.ndarray] = field(default_factory=list)

    def see(self, frame: np.ndarray, state: np.ndarray | None = None) -> None:
        """Append a frame, uint8 ([V,] H, W, 3), and what was observed beside it, float32 (S,)."""
        self.frames.append(np.ascontiguousarray(channels_first(frame, several=frame.ndim == 4)))
        if state is not None:
            self.state.append(np.array(state, np.float32))

    def take(self, action: np.ndarray, reward: float, discount: float) -> None:
        """Append a decision; see ``Episode``."""
        self.action.append(np.array(action, np.float32))
        self.reward.append(reward)
        self.discount.append(discount)

    def close(self) -> Episode:
        """Return what has been collected as arrays."""
        shape = (len(self.reward), -1)
        return Episode(
            index=self.index,
            frames=np.stack(self.frames),
            action=np.asarray(self.action, np.float32).reshape(shape if self.reward else (0, 0)),
            reward=np.asarray(self.reward, np.float32),
            discount=np.asarray(self.discount, np.float32),
            state=np.asarray(self.state, np.float32).reshape(len(self.state), -1 if self.state else 0),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the collected arrays and the index."""
        return {"index": self.index, **self.close().arrays()}

    @staticmethod
    def from_state(state: dict[str, Any]) -> OpenEpisode:
        """Return the episode that ``state_dict`` described."""
        return OpenEpisode(
            index=int(state["index"]),
            frames=list(state["frames"]),
            action=list(state["action"]),
            reward=[float(value) for value in state["reward"]],
            discount=[float(value) for value in state["discount"]],
            state=list(state.get("state", ())),
        )


class ResetEpisodes(Protocol):
    """Begins episodes; ``envs.reset_episodes`` is one."""

    def __call__(
        self, venv: Any, episodes: Sequence[int], done: np.ndarray, seed: int
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Begin ``episodes[i]`` in each environment i that is ``done``; return all observations and infos."""
        ...


def state_of(obs: Mapping[str, np.ndarray], env: int) -> np.ndarray | None:
    """Return the proprioception of one environment, float32 (S,), where observations hold ``state``."""
    return obs["state"][env] if "state" in obs else None


def env_states(
    starts: Sequence[dict[str, Any]], opened: Sequence[OpenEpisode | None], action_dim: int
) -> list[dict[str, Any]]:
    """Return what restores each environment: its state when the episode began, and the ``actions`` since.

    Args:
        starts: what each environment's ``state`` was then.
        opened: the episodes being collected.
        action_dim: A of the actions, float32 (T, A).
    """
    taken = [episode.action if episode is not None else [] for episode in opened]
    return [
        {**start, "actions": np.array(actions, np.float32).reshape(-1, action_dim)}
        for start, actions in zip(starts, taken, strict=True)
    ]
