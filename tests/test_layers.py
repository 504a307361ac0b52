"""Imports run strictly downward, scripts only assemble, files stay small."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = {
    "common": set(),
    "efficientvit": {"common"},
    "samg": {"common", "efficientvit"},
    "wrappers": {"common"},
    "algos": {"common"},
    "envs": {"common"},
    "evaluation": {"common", "wrappers"},
    "training": {"common", "wrappers", "algos", "envs", "evaluation"},
}
SCRIPTS = sorted(path.name for path in ROOT.glob("*.py"))


def imported_rooms(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add((node.module or "").split(".")[0])
    return found & (set(ROOMS) | {Path(name).stem for name in SCRIPTS})


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_knows_only_what_lies_below(room):
    files = sorted((ROOT / room).rglob("*.py"))
    assert files, f"{room} is empty"
    for path in files:
        foreign = imported_rooms(path) - {room} - ROOMS[room]
        assert not foreign, f"{path.relative_to(ROOT)} imports {sorted(foreign)}"


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_assemble_and_no_more(script):
    lines = (ROOT / script).read_text().count("\n")
    assert lines <= 120, f"{script} has {lines} lines: move the work into a room"


@pytest.mark.parametrize("room", ROOMS)
def test_files_stay_small(room):
    for path in (ROOT / room).rglob("*.py"):
        assert path.read_text().count("\n") <= 400, f"{path.relative_to(ROOT)} is more than one room's worth"
