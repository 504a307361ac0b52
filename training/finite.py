"""Numbers that are not finite: found before they are stored, kept for whoever looks for the cause."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.errors import NonFiniteError
from common.files import atomic_directory, write_json

FOLDER = "nonfinite"
CURE = "Resume from the last snapshot with a smaller lr, or look at the rewards."


def check_metrics(metrics: dict[str, Tensor]) -> None:
    """Raise ``NonFiniteError`` naming the first scalar metric that is not finite; waits for the device."""
    for name, value in metrics.items():
        if not math.isfinite(value.item()):
            raise NonFiniteError(f"The update's {name} is {value.item()}, which is not finite.", CURE)


def check_state(state: Any, name: str) -> None:
    """Raise ``NonFiniteError`` naming the first tensor of nested ``state`` that is not finite."""
    if isinstance(state, Tensor):
        if state.is_floating_point() and not torch.isfinite(state).all():
            raise NonFiniteError(f"{name} is not finite; no snapshot was written.", CURE)
    elif isinstance(state, dict):
        for key, value in state.items():
            check_state(value, f"{name}.{key}")


def check_step(obs: dict[str, np.ndarray], rewards: np.ndarray, agent_steps: int) -> None:
    """Raise ``NonFiniteError`` unless the rewards and every observation that is not a picture are finite."""
    for name, values in {"reward": rewards, **obs}.items():
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            kind = name if name == "reward" else f"observation '{name}'"
            raise NonFiniteError(
                f"The {kind} at decision {agent_steps} is not finite: {_short(values)}.", CURE
            )


def check_actions(actions: np.ndarray, agent_steps: int) -> None:
    """Raise ``NonFiniteError`` unless all actions are finite."""
    if not np.isfinite(actions).all():
        raise NonFiniteError(
            f"The agent's action at decision {agent_steps} is not finite: {_short(actions)}.", CURE
        )


def _short(values: np.ndarray) -> str:
    return np.array2string(values, threshold=8, precision=4).replace("\n", " ")


@contextlib.contextmanager
def evidence(
    run_dir: Path,
    agent_steps: int,
    updates: int,
    env_states: Callable[[], Sequence[dict[str, Any]]],
    arrays: Callable[[], Mapping[str, np.ndarray]],
) -> Iterator[None]:
    """Write what was at hand into a new folder of ``nonfinite/`` when a number in the block is not finite.

    Args:
        run_dir: the run.
        agent_steps, updates: how far it was.
        env_states: tells what restores each environment: ``actions`` and plain values; asked only then.
        arrays: tells whatever else may show the cause; asked only then.

    Raises:
        NonFiniteError: that of the block, naming the folder.
    """
    try:
        yield
    except NonFiniteError as error:
        facts: dict[str, Any] = {"error": error.message, "agent_steps": agent_steps, "updates": updates}
        kept = dict(arrays())
        for env, state in enumerate(env_states()):
            facts[f"env_{env}"] = {key: value for key, value in state.items() if key != "actions"}
            kept[f"actions_{env}"] = state["actions"]
        name = f"step_{agent_steps:010d}"
        path = run_dir / FOLDER / f"{name}-{len(list((run_dir / FOLDER).glob(f'{name}-*'))) + 1}"
        with atomic_directory(path) as stage:
            write_json(stage / "facts.json", facts)
            np.savez_compressed(stage / "arrays.npz", **kept)  # type: ignore[arg-type]
        raise NonFiniteError(error.message, f"{error.hint} What was known is in {path}.") from error
