"""Broken inputs by the hundred: strategies that spoil what is whole, and a runner that counts and limits."""

from __future__ import annotations

import contextlib
import copy
import signal
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import SamgError

LONGEST_CASE = 30.0  # seconds; a case that takes longer counts as hanging, also on a busy machine

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.just("x" * 5000)
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def spoilt(whole: bytes) -> st.SearchStrategy[bytes]:
    """Return strategies for bytes like ``whole``: cut, flipped, lengthened, zeroed; or quite other ones."""
    places = st.integers(0, len(whole))
    edits = st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=12)
    return st.one_of(
        edits.map(lambda flips: _flipped(whole, flips)),
        places.map(lambda end: whole[:end]),
        st.tuples(places, places).map(lambda cut: whole[: min(cut)] + whole[max(cut) :]),
        st.tuples(places, st.binary(max_size=40)).map(
            lambda more: whole[: more[0]] + more[1] + whole[more[0] :]
        ),
        st.tuples(places, st.integers(1, 64)).map(lambda zero: _zeroed(whole, *zero)),
        st.binary(max_size=300),
    )


def _flipped(whole: bytes, flips: list[tuple[int, int]]) -> bytes:
    content = bytearray(whole)
    for place, value in flips:
        if place < len(content):
            content[place] = value
    return bytes(content)


def _zeroed(whole: bytes, start: int, length: int) -> bytes:
    return whole[:start] + bytes(min(length, len(whole) - start)) + whole[start + length :]


@st.composite
def altered(draw: st.DrawFn, whole: Any) -> Any:
    """Return strategies for JSON like ``whole`` with up to three values replaced, removed or added."""
    content = copy.deepcopy(whole)
    for _ in range(draw(st.integers(1, 3))):
        at = content
        while isinstance(at, dict | list) and at:
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            key = draw(st.sampled_from(keys))
            action = draw(st.sampled_from(("deeper", "replace", "remove", "add")))
            if action == "deeper" and isinstance(at[key], dict | list) and at[key]:
                at = at[key]
                continue
            if action == "remove":
                del at[key]
            elif action == "add" and isinstance(at, dict):
                at[draw(st.text(max_size=6))] = draw(ANYTHING)
            else:
                at[key] = draw(ANYTHING)
            break
        else:
            return draw(ANYTHING)
    return content


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise ``TimeoutError`` in a block that takes longer."""

    def ring(*_: object) -> None:
        raise TimeoutError(f"no answer within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def fuzz(
    strategy: st.SearchStrategy[Any],
    read: Callable[[Any], Any],
    cases: int,
    allowed: tuple[type[Exception], ...] = (),
) -> tuple[int, int]:
    """Let ``read`` have ``cases`` inputs; it returns, or raises an error with a cure.

    Args:
        strategy: of inputs.
        read: the reader.
        cases: how many.
        allowed: other errors that its documentation names.

    Returns:
        how many inputs there were, and how many of them were refused.
    """
    count = [0, 0]

    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def one(value: Any) -> None:
        count[0] += 1
        try:
            with time_limit(LONGEST_CASE):
                read(value)
        except SamgError as error:
            count[1] += 1
            assert error.hint and error.message and error.exit_code in (2, 3, 6), repr(error)
        except allowed:
            count[1] += 1

    one()
    return count[0], count[1]
