"""Check JSON against the annotations of a dataclass: every field there, none too many, each of its type."""

from __future__ import annotations

import math
import types
import typing
from typing import Any


def field_problem(content: Any, schema: type, prefix: str = "", skip: tuple[str, ...] = ()) -> str | None:
    """Say what keeps ``content`` from being a ``schema``; None where nothing does.

    Args:
        content: anything that was read as JSON.
        schema: a dataclass whose fields are plain types, lists, dicts with names as keys, or unions of them.
        prefix: before the names of fields, such as ``conditions.``.
        skip: fields whose values are not looked at.
    """
    if not isinstance(content, dict):
        return f"{prefix.rstrip('.') or 'it'} is not an object"
    hints = typing.get_type_hints(schema)
    missing, unknown = sorted(hints.keys() - content.keys()), sorted(content.keys() - hints.keys())
    if missing:
        return f"it lacks the field {prefix}{missing[0]}"
    if unknown:
        return f"it has the unknown field {prefix}{unknown[0]}"
    for name, hint in hints.items():
        if name not in skip and not fits(content[name], hint):
            return f"{prefix}{name} is {content[name]!r}"
    return None


def fits(value: Any, hint: Any) -> bool:
    """Tell whether a JSON value fits an annotation (unions, lists, dicts and plain types; finite numbers)."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return any(fits(value, choice) for choice in arguments)
    if origin is list:
        return isinstance(value, list) and all(fits(item, arguments[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(isinstance(key, str) for key in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)
