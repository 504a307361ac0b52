"""Random streams that are pure functions of a seed, a name and an index, so that nothing depends on order."""

from __future__ import annotations

import hashlib
import random

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
