"""Hypothesis against every reader of files and values: an answer or an error with a cure, and no hang.

Each reader is tried with some cases in the fast tests and with hundreds in ``slow``: more than 2,000 in all.
"""

import os
from pathlib import Path

import pytest

from tests.support.fuzz_readers import READERS
from tests.support.fuzzing import fuzz

QUICK, AT_LENGTH = 20, 200


def run(name: str, folder: Path, cases: int, monkeypatch) -> tuple[int, int]:
    monkeypatch.chdir(folder)  # relative paths made up by the fuzzer meet nothing here
    reader = READERS[name]
    strategy, read = reader.make(folder)
    found = fuzz(strategy, read, max(int(cases * reader.share), 4), reader.allowed)
    print(f"{name}: {found[0]} cases, {found[1]} refused")
    return found


@pytest.mark.reliability("16", "fuzzing, some cases: every reader answers, or refuses with a cure")
@pytest.mark.parametrize("name", READERS)
def test_some_cases(name, tmp_path, monkeypatch):
    cases, _ = run(name, tmp_path, QUICK, monkeypatch)
    assert cases >= 4


TOTAL: dict[str, int] = {}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.reliability(
    "16", "fuzzing, more than 2,000 cases: no traceback and no hang in any reader of inputs"
)
@pytest.mark.parametrize("name", READERS)
def test_many_cases(name, tmp_path, monkeypatch):
    cases = int(os.environ.get("SAMG_FUZZ_CASES", AT_LENGTH))
    TOTAL[name], _ = run(name, tmp_path, cases, monkeypatch)
    assert TOTAL[name] >= 1


def test_the_cases_are_more_than_promised():
    assert sum(int(AT_LENGTH * reader.share) for reader in READERS.values()) > 2000
