"""What tests of several rooms share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import torch

pytest_plugins = ["tests.support.promises"]


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Let torch use one thread: small networks gain nothing by more, and rounding is the same everywhere."""
    with _one_thread():
        yield


@pytest.fixture(scope="module")
def one_thread_in_module() -> Iterator[None]:
    """As ``one_thread``, for fixtures that a whole file shares: they are made before it takes hold."""
    with _one_thread():
        yield
