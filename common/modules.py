"""Scripts that are modules of a package: run as a file, they start again as what they are."""

from __future__ import annotations

import os
import sys
from importlib.machinery import ModuleSpec

from common.paths import PROJECT_ROOT


def run_as_module(spec: ModuleSpec | None, name: str) -> None:
    """Replace ``python package/script.py`` by ``python -m package.script``; called before other imports.

    Python puts the folder of a script, not the project, first on the path where modules are looked for. Does
    nothing when the script is run as a module or imported.

    Args:
        spec: ``__spec__`` of the caller; None in a file that is run.
        name: of the module.
    """
    if spec is not None:
        return
    path = os.pathsep.join(filter(None, [str(PROJECT_ROOT), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", name, *sys.argv[1:]]
    os.execve(sys.executable, command, {**os.environ, "PYTHONPATH": path})
