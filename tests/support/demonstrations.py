"""Demonstrations of the bars, as DAPG writes its own, by a hand that sees the red bar."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

START: dict[str, tuple[int, ...]] = {"cursor": (), "target": ()}


def bar_records(count: int = 5, length: int = 20, seed: int = 0) -> list[dict[str, Any]]:
    """Return episodes that steer the green bar onto the red one."""
    rng, records = np.random.default_rng(seed), []
    for _ in range(count):
        cursor, target = rng.uniform(-0.8, 0.8, 2)
        place, actions = cursor, []
        for _ in range(length):
            action = float(np.clip((target - place) / 0.25, -1, 1))
            place = float(np.clip(place + 0.25 * action, -1, 1))
            actions.append([action])
        start = {"cursor": np.array(cursor), "target": np.array([target])[0], "qpos": rng.normal(size=30)}
        records.append({"init_state_dict": start, "actions": np.array(actions), "rewards": np.zeros(length)})
    return records


def write_records(path: Path, records: Any, protocol: int = 2) -> Path:
    """Write a pickle and return its path."""
    path.write_bytes(pickle.dumps(records, protocol))
    return path
