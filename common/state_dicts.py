"""What a state dict must be to fit a network."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def differences(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """Return one line for each name that is missing, not expected, or of another shape."""
    lines = [f"{name} is missing" for name in expected if name not in state]
    lines += [f"{name} is not expected" for name in state if name not in expected]
    for name, tensor in expected.items():
        if name in state and state[name].shape != tensor.shape:
            lines.append(f"{name} has shape {tuple(state[name].shape)}, not {tuple(tensor.shape)}")
    return lines
