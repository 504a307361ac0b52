"""What a run will need, asked before it starts rather than found out after days."""

from __future__ import annotations

import contextlib
import copy
import math
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from algos.agent import Batch
from algos.drqv2 import DrQV2Agent
from algos.recorded_update import UPDATES_BEFORE_REPLAY
from common.errors import ResourceError
from common.peak_memory import peak_bytes
from evaluation.evaluate import fixed_batch
from training.memory import available_memory
from training.replay_cache import available_gpu_memory

_SNAPSHOTS = 3  # two are kept, and a third is there while it is written
_UNSEEN = 1.6  # what a process takes, kernels and gaps included, as a factor of its tensors
_PLENTY = 1000  # no agent's update takes so many times the bytes of its observations; a test measures it
_TELLING = 32  # size of a batch from which the growth of smaller ones tells that of larger ones
_SURE = 0.8  # of the number that is thought to fit
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


def check_disk(run_dir: Path, needed: dict[str, int], mapped: int = 0) -> None:
    """Refuse to start a run whose files will not fit; what it has written already counts as there.

    Args:
        run_dir: of the run.
        needed: bytes, by the folder in ``run_dir`` that they are for.
        mapped: bytes that the replay buffer's memory map will still take on the same disk.

    Raises:
        ResourceError: all that is more than what is free.
    """
    written = {
        name: sum(file.stat().st_size for file in (run_dir / name).rglob("*") if file.is_file())
        for name in needed
    }
    missing = {name: max(bytes_ - written[name], 0) for name, bytes_ in needed.items()}
    if mapped:
        missing["the replay buffer's memory map"] = mapped
    free = shutil.disk_usage(run_dir).free
    if sum(missing.values()) > free:
        parts = ", ".join(f"{name} {_mega(bytes_)}" for name, bytes_ in missing.items())
        elsewhere = ", a replay.cache_dir on another disk" if mapped else ""
        raise ResourceError(
            f"The run will write about {_mega(sum(missing.values()))} ({parts}), but only {_mega(free)} are "
            f"free on the disk of {run_dir}.",
            f"Free some, choose another hydra.run.dir{elsewhere}, or set a smaller replay_buffer_size.",
        )


def _mega(bytes_: int) -> str:
    return f"{bytes_ / 1e6:,.1f} MB"


def check_update(agent: DrQV2Agent, batch_size: int) -> None:
    """Refuse a batch whose update would not fit; the agent is left as it was.

    On a GPU the update is rehearsed. On a CPU, where running out of memory ends the process without a word,
    it is measured on small batches, unless there is plenty.

    Raises:
        ResourceError: bytes needed and available, and the key to change.
    """
    if agent.device.type != "cpu":
        rehearse_update(agent, batch_size)
        return
    available = available_on(agent.device)
    if available is None or _generous(agent, batch_size) <= available:
        return
    with _undone(agent), agent.numerics.eager():
        shortage = _update_shortage(agent, batch_size)
    if shortage is not None:
        raise _update_error(agent, batch_size, shortage)


def update_bytes(agent: DrQV2Agent, batch_size: int, room: int) -> int:
    """Return about how many bytes of memory the agent's updates keep; the agent is left as it was.

    Measured on small batches, from whose growth that of larger ones follows, unless a bound leaves no doubt.

    Args:
        agent: on a GPU, which has memory of its own, the answer is 0.
        batch_size: of an update, which was found to fit (``check_update``).
        room: bytes; a bound that is no more is returned.
    """
    if agent.device.type != "cpu":
        return 0
    bound = _generous(agent, batch_size)
    if bound <= room:
        return bound
    small, large = min(2, batch_size), min(16, batch_size)
    with _undone(agent), agent.numerics.eager():
        measure = _update_measure(agent, batch_size)
        less, more = measure(small), measure(large)
    share = max(more - less, 0) / max(large - small, 1)
    return int(_UNSEEN * (more + share * (batch_size - large)))


def rehearse_update(agent: DrQV2Agent, batch_size: int) -> None:
    """Make an update from an empty batch and undo it, so that a GPU too small is found out at the start.

    Where updates are recorded, so many are made that one is: it takes memory of its own.

    Raises:
        ResourceError: the device has not enough memory.
    """
    with _undone(agent):
        try:
            for _ in range(UPDATES_BEFORE_REPLAY if agent.numerics.cuda_graph else 1):
                _update(agent, batch_size)
        except torch.OutOfMemoryError as error:
            reason, shortage = str(error).partition(". ")[0], None
            with contextlib.suppress(torch.OutOfMemoryError):  # raised by small batches as well
                shortage = _update_shortage(agent, batch_size)
            raise _update_error(agent, batch_size, shortage, reason) from error


def check_masking(masker: Any, num_envs: int, cameras: int = 1, evaluating: bool = False) -> None:
    """Refuse to mask the frames of all environments at once where they would not fit.

    One frame has been masked when the masker was fitted; of more, one is measured and the others follow.
    What masking keeps (``SamGMasker.reserve``) is taken now, so that later checks see what is left.

    Args:
        masker: any; one without networks needs next to nothing.
        num_envs: environments whose frames it masks; on a GPU, evaluation masks a padded batch of
            observations at once.
        cameras: of each environment.
        evaluating: for whoever has no say in ``masker.batch_size``.

    Raises:
        ResourceError: bytes needed and available, and the keys to change.
    """
    if not hasattr(masker, "measure_memory"):
        return
    device = masker.device
    evaluated = fixed_batch(on_gpu=device.type == "cuda")
    count = masker.batch_for(cameras * max(num_envs, evaluated))
    shortage = find_shortage(masker.measure_memory, count, available_on(device), 1) if count > 1 else None
    if shortage is None:
        masker.reserve(count)
        return
    envs, batch = shortage.fits // cameras, max(shortage.fits // getattr(masker, "views", 1), 1)
    ways = [f"set num_envs to {envs} or less"] if max(evaluated, 1) <= envs < num_envs else []
    ways += [] if evaluating else [f"set masker.batch_size to {batch} or less"]
    raise ResourceError(
        f"Masking {count} frames at once needs about {shortage.needed:,} bytes on {device}, and only "
        f"{shortage.available:,} are available.",
        ", ".join([*ways, "choose a smaller masker or another device"]).capitalize() + ".",
    )


def available_on(device: torch.device) -> int | None:
    """Return the bytes that tensors on ``device`` can still take; None where that cannot be told."""
    if device.type != "cuda":
        return available_memory()
    torch.cuda.empty_cache()  # what we hold and do not use is free; what recordings hold is not
    return available_gpu_memory(device)


class Shortage(NamedTuple):
    """What does not fit: bytes needed, bytes available, and the number that would fit (at least 1)."""

    needed: int
    available: int
    fits: int


def find_shortage(
    measure: Callable[[int], int], count: int, available: int | None, first: int
) -> Shortage | None:
    """Find out whether a batch fits without making it.

    What a batch takes is a constant and a share for each of its members, at its worst moment: at most in
    proportion to their number, and about what it grew between two smaller ones. Batches are doubled until
    one of the two decides, and not beyond what is certain to fit once the growth is known.

    Args:
        measure: returns the bytes that a batch of so many takes.
        count: size of the batch in question.
        available: bytes; None: everything fits.
        first: size of the first batch that is measured.

    Returns:
        None: it fits.
    """
    if available is None:
        return None
    room, size = available / _UNSEEN, min(first, count)
    taken = measure(size)
    share = taken / size
    while taken * count > room * size and size < count and taken <= room:
        bigger = min(2 * size, count)
        more = measure(bigger)
        share, size, taken = max(more - taken, 0) / (bigger - size), bigger, more
        if 2 * taken > room or (size >= _TELLING and taken + share * (count - size) > room):
            break
    least = taken + share * (count - size)
    if least <= room or taken * count <= room * size:
        return None
    fits = max(int(_SURE * (count - (least - room) / max(share, 1))), 1)
    return Shortage(int(least * _UNSEEN), available, fits)


@contextlib.contextmanager
def _undone(agent: DrQV2Agent) -> Iterator[None]:
    """Put the agent back into its present state at the end."""
    before = copy.deepcopy(agent.state_dict())
    try:
        yield
    finally:
        agent.load_state_dict(before)


def _generous(agent: DrQV2Agent, batch_size: int) -> int:
    """Return more bytes than an update takes: copies of the networks and a multiple of the observations."""
    values = [value for network in agent.networks().values() for value in network.state_dict().values()]
    return 8 * sum(value.nbytes for value in values) + _PLENTY * batch_size * math.prod(agent.obs_shape)


def _update(agent: DrQV2Agent, batch_size: int) -> None:
    """Make the agent's updates, offline and online, from an empty batch."""
    obs = torch.zeros((batch_size, *agent.obs_shape), dtype=torch.uint8, device=agent.device)
    action, zeros, state = (
        torch.zeros((batch_size, width), device=agent.device)
        for width in (agent.action_dim, 1, agent.state_dim)
    )
    batch = Batch(obs, action, zeros, zeros, obs.clone(), state, state)
    if agent.offline_updates:
        agent.update_offline(batch)
    agent.update(batch, 0)


def _update_measure(agent: DrQV2Agent, batch_size: int) -> Callable[[int], int]:
    """Return what measures the bytes of an update, the optimisers' moments included, by its batch's size."""
    _update(agent, min(2, batch_size))  # optimisers make their moments, which stay
    states = [state for optimizer in agent.optimizers().values() for state in optimizer.state.values()]
    moments = sum(value.nbytes for state in states for value in state.values() if torch.is_tensor(value))

    def measure(size: int) -> int:
        return moments + peak_bytes(lambda: _update(agent, size), agent.device)

    return measure


def _update_shortage(agent: DrQV2Agent, batch_size: int) -> Shortage | None:
    available = available_on(agent.device)
    return find_shortage(_update_measure(agent, batch_size), batch_size, available, first=2)


def _update_error(
    agent: DrQV2Agent, batch_size: int, shortage: Shortage | None, reason: str = ""
) -> ResourceError:
    if shortage is None:
        numbers, fits = f" ({reason})", "a smaller batch_size"
    else:
        numbers = f": it needs about {shortage.needed:,} bytes, and only {shortage.available:,} are available"
        fits = f"batch_size={shortage.fits} or less"
    return ResourceError(
        f"An update with batch_size={batch_size} does not fit into the memory of {agent.device}{numbers}.",
        f"Set {fits}, end what else runs on the device, or choose device=...",
    )
