"""What tests of several rooms share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

pytest_plugins = ["tests.support.promises"]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Let torch use one thread: small networks gain nothing by more, and rounding is the same everywhere."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
