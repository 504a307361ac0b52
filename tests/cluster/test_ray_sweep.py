"""A Ray of one's own on this machine: two runs to their end, and the evaluation of both."""

import subprocess
from pathlib import Path

import pytest

from common.paths import PROJECT_ROOT
from tests.support.sweeps import DECISIONS, SMALL, run
from training.status import DONE, read_status

pytestmark = pytest.mark.cluster
PYTHON = PROJECT_ROOT / ".venv-ray" / "bin" / "python"
ONE_CORE = "+hydra.launcher.ray.remote.num_cpus=1"
SWEEP = ("--multirun", "+launcher=ray", "task=cartpole_balance", "seed=0,1", ONE_CORE, *SMALL)


@pytest.fixture(scope="module")
def python() -> str:
    """Return the interpreter that has Ray: its launcher wants older packages than these tests run with."""
    if not PYTHON.exists():
        pytest.skip("no .venv-ray (make setup-ray)")
    asked = subprocess.run(
        [PYTHON, "-c", "import hydra_plugins.hydra_ray_launcher, ray"], capture_output=True
    )
    if asked.returncode:
        pytest.skip("Ray is not installed in .venv-ray (make setup-ray)")
    return str(PYTHON)


def times(folder: Path) -> list[float]:
    return [path.stat().st_mtime for path in sorted(folder.rglob("*.safetensors"))]


def test_two_runs_end_once_and_are_evaluated(python, tmp_path):
    folder = tmp_path / "sweep"
    code, said = run("train.py", *SWEEP, f"hydra.sweep.dir={folder}", python=python)
    assert code == 0 and "2 runs in" in said and "2 done." in said, said
    runs = [folder / "cartpole_balance" / f"drqv2-none-s{seed}" for seed in (0, 1)]
    statuses = [read_status(path) for path in runs]
    assert {(status.state, status.agent_steps, status.turns) for status in statuses} == {(DONE, DECISIONS, 1)}
    assert statuses[0].pid != statuses[1].pid

    before = times(folder)
    code, said = run("train.py", *SWEEP, f"hydra.sweep.dir={folder}", python=python)
    assert code == 0 and said.count("finished before") == 2, said
    assert times(folder) == before

    flags = ("--mode", "train", "--episodes", "1", "+launcher=ray", ONE_CORE)
    code, said = run("sweep.py", "evaluate", str(folder), *flags, python=python)
    assert code == 0 and "Evaluated 2 finished runs of 2" in said, said
    assert all(len(list((path / "eval").glob("*.json"))) == 1 for path in runs)
