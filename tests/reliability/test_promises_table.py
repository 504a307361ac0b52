"""The table of docs/reliability.md: results arrive, stay, and go with their tests."""

from pathlib import Path

from tests.support.promises import HEAD, Promise, summary, update

HERE = "tests/reliability/test_promises_table.py"


def test_results_are_merged_and_those_of_tests_that_are_gone_are_dropped(tmp_path: Path) -> None:
    document = tmp_path / "reliability.md"
    gone = f"| 3 | vanished | `{HERE}::test_no_more` | passed, 2000-01-01 |\n"
    kept = f"| 10 | kept | `{HERE}::test_outcomes_in_words` | passed, 2000-01-01 |\n"
    document.write_text(f"# Words\n\n{HEAD}{kept}{gone}")
    function = f"{HERE}::test_results_are_merged_and_those_of_tests_that_are_gone_are_dropped"
    update(document, {Promise("9", "fresh", function): "passed, 2001-01-01"})
    update(document, {Promise("9", "reworded", function): "**FAILED**, 1 of 2 cases, 2001-01-02"})
    fresh = f"| 9 | reworded | `{function}` | **FAILED**, 1 of 2 cases, 2001-01-02 |\n"
    assert document.read_text() == f"# Words\n\n{HEAD}{fresh}{kept}"


def test_outcomes_in_words() -> None:
    assert summary(["passed"]) == "passed" and summary(["passed"] * 3) == "passed, 3 cases"
    assert summary(["passed", "failed"]) == "**FAILED**, 1 of 2 cases"
    assert summary(["skipped (needs root)"]) == "skipped (needs root)"
    assert summary(["passed", "skipped (no GPU)"]) == "passed, 1 cases; skipped (no GPU)"
