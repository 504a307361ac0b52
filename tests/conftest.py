"""What tests of several rooms share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import torch

pytest_plugins = ["tests.support.promises"]


# Files of few tests that each take long, longest first: begun last, one of them would go on alone at the end.
LONG = (
    "test_train_cli.py",
    "test_samg_golden.py",
    "test_samg_tiny.py",
    "test_samg_pretraining.py",
    "test_samg_paper.py",
    "test_agent_benchmark.py",
    "test_resume.py",
    "test_agent_commands.py",
    "test_locoeval.py",
    "test_adroit.py",
    "test_adroit_levels.py",
    "test_demonstrations.py",
    "test_report_cli.py",
    "test_inputs_doctor.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take long; the others keep their order."""
    place = {name: index for index, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONG)))


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
