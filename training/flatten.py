"""Nested state to tensors plus plain JSON, and back: what lets snapshots do without pickle."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

_MARK = "$"  # key of the one-entry dictionaries that stand for what JSON does not know


def flatten(value: Any, tensors: dict[str, Tensor], path: str = "") -> Any:
    """Return ``value`` as JSON; its tensors and arrays move into ``tensors``, keyed by their place.

    Dictionaries (with text or integer keys), lists, tuples, numbers (infinite ones too), text, None, tensors
    and NumPy arrays survive a round trip through ``restore``; NumPy scalars return as Python's.

    Raises:
        TypeError: something else is in the state.
    """
    if isinstance(value, Tensor):
        tensors[path] = value.detach().to("cpu").contiguous()
        return {_MARK: "tensor", "key": path}
    if isinstance(value, np.ndarray):
        tensors[path] = torch.from_numpy(np.ascontiguousarray(value).reshape(value.shape))
        return {_MARK: "array", "key": path}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {_MARK: "float", "value": repr(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return _flatten_dict(value, tensors, path)
    if isinstance(value, list | tuple):
        items = [flatten(item, tensors, f"{path}.{index}") for index, item in enumerate(value)]
        return items if isinstance(value, list) else {_MARK: "tuple", "items": items}
    raise TypeError(f"state at '{path}': {type(value).__name__} cannot be stored")


def _flatten_dict(value: dict[Any, Any], tensors: dict[str, Tensor], path: str) -> dict[str, Any]:
    if not all(isinstance(key, str | int) for key in value):
        raise TypeError(f"state at '{path}': keys must be text or whole numbers")
    items = {
        key: flatten(item, tensors, f"{path}.{key}" if path else str(key)) for key, item in value.items()
    }
    if all(isinstance(key, str) for key in value) and _MARK not in value:
        return items
    return {_MARK: "dict", "items": [[key, item] for key, item in items.items()]}


def restore(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Return what ``flatten`` took apart."""
    if isinstance(value, list):
        return [restore(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    kind = value.get(_MARK)
    if kind is None:
        return {key: restore(item, tensors) for key, item in value.items()}
    if kind == "dict":
        return {key: restore(item, tensors) for key, item in value["items"]}
    if kind == "tuple":
        return tuple(restore(item, tensors) for item in value["items"])
    if kind == "float":
        return float(value["value"])
    tensor = tensors[value["key"]]
    return tensor if kind == "tensor" else tensor.numpy()
