"""Every error a user can meet says what to do; nothing is caught without saying what."""

import ast
import functools
from pathlib import Path

import pytest

from common import errors
from common.paths import PROJECT_ROOT

ROOMS = ("common", "efficientvit", "samg", "wrappers", "algos", "envs", "evaluation", "training")
KINDS = {
    name
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.SamgError)
}
# Too general for a program to act on, and no words for a user.
VAGUE = {"BaseException", "Exception", "StandardError", "KeyError", "IndexError", "LookupError", "EOFError"}


@functools.cache
def sources() -> list[tuple[Path, list[ast.AST]]]:
    """Return every file of the rooms and its syntax nodes."""
    files = [path for room in ROOMS for path in sorted((PROJECT_ROOT / room).rglob("*.py"))]
    return [(path.relative_to(PROJECT_ROOT), list(ast.walk(ast.parse(path.read_text())))) for path in files]


@pytest.mark.reliability("24", "every error of ours that the rooms raise has a cure")
def test_every_error_has_a_cure():
    made, without = 0, []
    for path, nodes in sources():
        for node in nodes:
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in KINDS):
                continue
            made += 1
            named = [keyword.value for keyword in node.keywords if keyword.arg == "hint"]
            hint = node.args[1] if len(node.args) > 1 else next(iter(named), None)
            if hint is None or (isinstance(hint, ast.Constant) and not hint.value):
                without.append(f"{path}:{node.lineno}")
    assert not without and made > 200


def test_nothing_is_caught_without_saying_what():
    for path, nodes in sources():
        for node in nodes:
            assert not (isinstance(node, ast.ExceptHandler) and node.type is None), f"{path}:{node.lineno}"


def test_nothing_vague_is_raised():
    for path, nodes in sources():
        for node in nodes:
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                assert ast.unparse(node.exc.func) not in VAGUE, f"{path}:{node.lineno}"


def test_exit_codes_are_the_documented_ones():
    codes = {name: getattr(errors, name).exit_code for name in KINDS}
    assert set(codes.values()) == {1, 2, 3, 4, 5, 6, 7}
    assert [name for name, code in codes.items() if code == 1] == ["SamgError"]
