"""What a run will need, asked before it starts rather than found out after days."""

from __future__ import annotations

import copy
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from algos.agent import Batch
from algos.drqv2 import DrQV2Agent
from common.errors import ResourceError

_SNAPSHOTS = 3  # two are kept, and a third is there while it is written
_OPEN_EPISODE = 500  # frames of the episode being collected, which are stored as they are


def disk_needed(frames: np.ndarray, transitions: int, networks: Mapping[str, nn.Module]) -> dict[str, int]:
    """Return about how many bytes the replay files and the snapshots of a run will take.

    Args:
        frames: uint8 (N, 3, H, W), first frames of the run; all others are taken to compress as well.
        transitions: that the replay buffer is made for.
        networks: of the agent; two moments per parameter come with them.
    """
    values = [value for network in networks.values() for value in network.state_dict().values()]
    per_frame = len(zlib.compress(np.ascontiguousarray(frames).tobytes(), 1)) / max(len(frames), 1)
    return {
        "replay": int(transitions * per_frame),
        "snapshots": _SNAPSHOTS * (3 * sum(value.nbytes for value in values) + frames.nbytes * _OPEN_EPISODE),
    }


def check_disk(run_dir: Path, needed: dict[str, int]) -> None:
    """Refuse to start a run whose files will not fit; what it has written already counts as there.

    Raises:
        ResourceError: ``needed`` bytes, by what they are for, are more than what is free.
    """
    written = {
        name: sum(file.stat().st_size for file in (run_dir / name).rglob("*") if file.is_file())
        for name in needed
    }
    missing = {name: max(bytes_ - written[name], 0) for name, bytes_ in needed.items()}
    free = shutil.disk_usage(run_dir).free
    if sum(missing.values()) > free:
        parts = ", ".join(f"{name} {_mega(bytes_)}" for name, bytes_ in missing.items())
        raise ResourceError(
            f"The run will write about {_mega(sum(missing.values()))} ({parts}), but only {_mega(free)} are "
            f"free on the disk of {run_dir}.",
            "Free some, choose another hydra.run.dir, or set a smaller replay_buffer_size.",
        )


def _mega(bytes_: int) -> str:
    return f"{bytes_ / 1e6:,.1f} MB"


def rehearse_update(agent: DrQV2Agent, batch_size: int) -> None:
    """Make one update from an empty batch and undo it, so that a GPU too small is found out at the start.

    Raises:
        ResourceError: the device has not enough memory.
    """
    before = copy.deepcopy(agent.state_dict())
    obs = torch.zeros((batch_size, *agent.obs_shape), dtype=torch.uint8, device=agent.device)
    action, zeros, state = (
        torch.zeros((batch_size, width), device=agent.device)
        for width in (agent.action_dim, 1, agent.state_dim)
    )
    try:
        agent.update(Batch(obs, action, zeros, zeros, obs, state, state), 0)
    except torch.OutOfMemoryError as error:
        raise ResourceError(
            f"An update with batch_size={batch_size} does not fit into the memory of {agent.device} "
            f"({str(error).partition('. ')[0]}).",
            "Set a smaller batch_size or num_envs, end what else runs on the device, or choose device=...",
        ) from error
    agent.load_state_dict(before)
