"""Random streams that are pure functions of a seed, a name and an index, so that nothing depends on order."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import numpy as np
import torch


def derive_seed(seed: int, stream: str, index: int = 0) -> int:
    """Return a 31-bit seed for item ``index`` of the named ``stream`` of a run seed.

    Streams are independent: the training environment's episode 3 and the evaluation's episode 3 differ.
    """
    digest = hashlib.sha256(f"{seed}/{stream}/{index}".encode()).digest()
    return int.from_bytes(digest[:4], "little") & 0x7FFFFFFF


def counter_rng(seed: int, stream: str, index: int = 0) -> np.random.Generator:
    """Return a counter-based NumPy generator (Philox) for item ``index`` of ``stream``.

    Item ``i`` can be drawn before, after or in another process than item ``i - 1`` with the same result.
    """
    digest = hashlib.sha256(f"{seed}/{stream}".encode()).digest()
    key = int.from_bytes(digest[:16], "little")
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, index]))


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's global generators (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def generator_states() -> dict[str, Any]:
    """Return the states of Python's, NumPy's and torch's global generators; asking advances none of them."""
    states: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def restore_generators(states: dict[str, Any]) -> None:
    """Restore what ``generator_states`` returned; GPUs are left alone where their number differs."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    if len(states.get("cuda", ())) == torch.cuda.device_count() > 0:
        torch.cuda.set_rng_state_all(states["cuda"])
