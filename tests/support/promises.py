"""Pytest plugin: ``docs/reliability.md`` lists every promise, the test that holds it and its last result.

A test says what it stands for with ``@pytest.mark.reliability("5", "a damaged snapshot is set aside")``: the
row of the fault table (or ``exact``, ``soak``) and the promise in the user's words. ``pytest -m reliability
--write-reliability-docs`` runs them all and writes the table; without the flag no file is touched. Results of
tests that did not run stay as they were; those of tests that are gone go with them.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "reliability.md"
HEAD = "| # | promise | test | last result |\n| --- | --- | --- | --- |\n"
PROPERTY = "promise"
_LINE = re.compile(r"\| (\S+) \| (.+) \| `(\S+)` \| (.+) \|")


class Promise(NamedTuple):
    """What one test function stands for."""

    row: str
    text: str
    test: str


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the flag."""
    parser.addoption("--write-reliability-docs", action="store_true", help="update docs/reliability.md")


def pytest_configure(config: pytest.Config) -> None:
    """Collect results where they arrive: in the process that was started, not in xdist's workers."""
    if config.getoption("--write-reliability-docs") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Results(DOCUMENT), "reliability-results")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Attach the promises to the reports, which is how they reach another process."""
    for item in items:
        for mark in item.iter_markers("reliability"):
            row, text = mark.args
            item.user_properties.append((PROPERTY, [row, text, item.nodeid.split("[")[0]]))


class Results:
    """What became of each promise in this run."""

    def __init__(self, document: Path) -> None:
        self.document = document
        self.outcomes: dict[Promise, list[str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the call of a test, and a set-up or tear-down that failed or was skipped."""
        if report.when != "call" and report.passed:
            return
        for name, value in report.user_properties:
            if name == PROPERTY:
                self.outcomes.setdefault(Promise(*value), []).append(_outcome(report))  # type: ignore[misc]

    def pytest_sessionfinish(self) -> None:
        """Write the table."""
        today = datetime.date.today().isoformat()
        fresh = {promise: f"{summary(found)}, {today}" for promise, found in self.outcomes.items()}
        update(self.document, fresh)


def _outcome(report: Any) -> str:
    if report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else "skipped"
        return f"skipped ({str(reason).removeprefix('Skipped: ')})"
    return str(report.outcome)


def summary(outcomes: list[str]) -> str:
    """Return the outcomes of a test's cases in words, such as ``passed, 12 cases``."""
    passed = outcomes.count("passed")
    if passed == len(outcomes):
        return "passed" if passed == 1 else f"passed, {passed} cases"
    if "failed" in outcomes:
        return f"**FAILED**, {outcomes.count('failed')} of {len(outcomes)} cases"
    reasons = sorted(set(outcomes) - {"passed"})
    return "; ".join([*([f"passed, {passed} cases"] if passed else []), *reasons]).replace("|", "/")


def update(document: Path, fresh: dict[Promise, str]) -> None:
    """Put the fresh results into the document's table, which is all that follows its head."""
    text = document.read_text()
    before, _, table = text.partition(HEAD)
    kept = {promise: result for promise, result in _read(table) if _exists(promise)}
    tested = {promise.test for promise in fresh}
    kept = {promise: result for promise, result in kept.items() if promise.test not in tested}
    lines = [
        f"| {promise.row} | {promise.text} | `{promise.test}` | {result} |"
        for promise, result in sorted((kept | fresh).items(), key=lambda entry: _order(entry[0]))
    ]
    document.write_text(before.rstrip("\n") + "\n\n" + HEAD + "\n".join(lines) + "\n")


def _read(table: str) -> Iterable[tuple[Promise, str]]:
    for row, text, test, result in _LINE.findall(table):
        yield Promise(row, text, test), result


def _exists(promise: Promise) -> bool:
    file, _, function = promise.test.partition("::")
    return (ROOT / file).exists() and f"def {function.rpartition('::')[2]}(" in (ROOT / file).read_text()


def _order(promise: Promise) -> tuple[int, str, str]:
    number = int(promise.row) if promise.row.isdigit() else 10**6
    return number, promise.row, promise.text
