"""Checkpoints of programs that train networks by themselves: read only where they may be continued."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from common.errors import InputError


def read_checkpoint(
    path: Path,
    device: str | torch.device,
    mine: Mapping[str, Any],
    theirs: Callable[[dict[str, Any]], Mapping[str, Any]],
    changeable: Collection[str] = (),
) -> dict[str, Any] | None:
    """Read a checkpoint, if there is one.

    Args:
        path: of the file (``torch.save``; nothing in it is run).
        device: where tensors go.
        mine: what identifies this program's run, as JSON values.
        theirs: returns the same of a checkpoint's content.
        changeable: keys that may differ, such as a budget.

    Raises:
        InputError: it is damaged, or belongs to another run.
    """
    if not path.exists():
        return None
    hint = "Choose another output folder, or delete this one."
    try:
        state = dict(torch.load(path, map_location=device, weights_only=True))
        found = theirs(state)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise InputError(f"The checkpoint {path} cannot be read ({error!r}).", hint) from error
    for key, value in mine.items():
        if key not in changeable and found.get(key) != value:
            raise InputError(
                f"The checkpoint {path} was made with another {key}: {found.get(key)}, not {value}.", hint
            )
    return state
