"""Pickles of numbers: arrays, scalars, text and containers of these, and nothing that could run code."""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import InputError
from common.files import BROKEN_PICKLE

_NUMBERS = re.compile(r"[<>=|]?[biufcSU?]\d*")  # codes of types whose bytes are no addresses


class _Array:
    """Stands for ``numpy.ndarray`` as a name: a pickle that calls it gets nothing."""


def _dtype(code: str, *options: object) -> np.dtype:
    """Stand for ``numpy.dtype``, for numbers and text only."""
    if not isinstance(code, str) or not _NUMBERS.fullmatch(code):
        raise pickle.UnpicklingError(f"an array of type {code}")
    return np.dtype(code)


def _empty_array(kind: object, shape: tuple[int, ...], dtype: object) -> np.ndarray:
    """Stand for NumPy's ``_reconstruct``, which makes an empty array that the pickle then fills."""
    if kind is not _Array or shape != (0,):
        raise pickle.UnpicklingError("something that pretends to be an array")
    return np.empty(0, np.int8)


def _from_buffer(buffer: bytes, dtype: np.dtype, shape: tuple[int, ...], order: str) -> np.ndarray:
    """Stand for NumPy's ``_frombuffer`` (protocol 5)."""
    return np.frombuffer(buffer, dtype).reshape(shape, order=order).copy()  # type: ignore[call-overload]


def _scalar(dtype: np.dtype, data: bytes | str) -> Any:
    """Stand for NumPy's ``scalar``; Python 2 wrote bytes as text."""
    raw = data.encode("latin1") if isinstance(data, str) else data
    return np.frombuffer(raw, dtype, count=1)[0]


def _encode(text: str, encoding: str = "utf-8") -> bytes:
    """Stand for ``_codecs.encode``, by which old protocols write bytes."""
    return text.encode(encoding)


def _no_bytes() -> bytes:
    """Stand for ``bytes()``, by which old protocols write empty ones."""
    return b""


_KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _empty_array for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _no_bytes,
}


class _NumericUnpickler(pickle.Unpickler):
    """Knows what NumPy's arrays and scalars are made of; every other name is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return _KNOWN[module, name]


def read_numeric_pickle(path: Path, what: str, cure: str) -> Any:
    """Return the content of a pickle of NumPy arrays, of Python 2 or 3; no code of the file is run.

    Args:
        path: the file.
        what: it is, in words.
        cure: what to do about a file that will not do.

    Raises:
        InputError: the file is damaged or incomplete, or holds any other object, which is named.
    """
    try:
        return _NumericUnpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except pickle.UnpicklingError as error:
        reason = f"damaged, incomplete, or more than numbers ({error})"
    except (*BROKEN_PICKLE, OverflowError, MemoryError):
        reason = "damaged or incomplete"
    raise InputError(f"{what} {path} cannot be read: {reason}.", cure)
