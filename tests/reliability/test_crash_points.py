"""kill -9 wherever something is written, and at random times: all stays whole, and the run goes on."""

from __future__ import annotations

import random
import re
import signal
from pathlib import Path

import pytest

from common import faults
from common.files import read_json, write_json
from common.paths import PROJECT_ROOT
from samg import build_masker, load_masker
from tests.support.crashes import Progress, fork, kill_after, run_forked, wait
from tests.support.small_runs import fingerprint, intact, make_run, rows

pytestmark = [pytest.mark.crash, pytest.mark.usefixtures("one_thread")]
INTERVAL = 20  # decisions between snapshots
RUN = {"num_train_frames": 160, "snapshot_every_frames": 2 * INTERVAL, "replay_buffer_size": 30}
TRAINING = ("snapshot", "replay", "log", "train", "evaluate")
KILLED = -signal.SIGKILL


def train(run_dir: Path, progress: Progress | None = None) -> None:
    run = make_run(run_dir, **RUN)
    (progress or Progress()).follow(run).train()
    (run_dir / "fingerprint").write_text(fingerprint(run.agent))


@pytest.fixture(scope="module")
def whole(one_thread_in_module: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    train(run_dir)  # in this process, so that those that are forked later find everything imported
    return run_dir


def finishes_like(whole: Path, run_dir: Path) -> None:
    """Go on to the end and compare everything with the uninterrupted run."""
    assert run_forked(lambda: train(run_dir), log=run_dir.parent / "log") == 0, (
        run_dir.parent / "log"
    ).read_text()
    assert (run_dir / "fingerprint").read_text() == (whole / "fingerprint").read_text()
    for table in ("train", "eval"):
        assert rows(make_run(whole, **RUN), table) == rows(make_run(run_dir, **RUN), table)
    assert intact(run_dir) == intact(whole)


@pytest.mark.reliability("1", "killed at any point of a snapshot: the last good one goes on, bit by bit")
@pytest.mark.reliability("2", "killed while an episode or a table is written: no half file, no row twice")
@pytest.mark.parametrize("visit", [1, 2])
@pytest.mark.parametrize("point", [p for p in faults.POINTS if p.split(".")[0] in TRAINING])
def test_a_run_killed_at_any_point_goes_on(point: str, visit: int, whole: Path, tmp_path: Path) -> None:
    run_dir, progress = tmp_path / "run", Progress()
    if point == "replay.moved":  # a resumed run moves what is newer than its snapshot
        killed = run_forked(lambda: train(run_dir), "train.step:57:kill", tmp_path / "log")
        assert killed == KILLED
        visit = 1
    code = run_forked(lambda: train(run_dir, progress), f"{point}:{visit}:kill", tmp_path / "log")
    assert code == KILLED, f"{point} was not visited {visit} times: " + (tmp_path / "log").read_text()
    assert intact(run_dir) >= progress.value - INTERVAL, "more than a snapshot interval would be repeated"
    finishes_like(whole, run_dir)
    assert not list(run_dir.rglob(".stage-*")), "what was half written is swept away"


@pytest.mark.slow
@pytest.mark.reliability("1", "killed at 40 random times: always resumes, at most one interval repeated")
def test_forty_random_kills(whole: Path, tmp_path: Path) -> None:
    rng, runs, kills = random.Random(0), 0, 0
    while kills < 40:
        run_dir, runs, finished = tmp_path / f"run{runs}", runs + 1, False
        while not finished and kills < 40:
            progress, before = Progress(-1), intact(run_dir)
            child = fork(lambda d=run_dir, p=progress: train(d, p), log=tmp_path / "log")  # type: ignore[misc]
            code = kill_after(child, rng.uniform(0.05, 2.0), signal.SIGKILL)
            finished = code == 0
            kills += not finished
            assert code in (0, KILLED), (tmp_path / "log").read_text()
            assert intact(run_dir) >= max(before, progress.value - INTERVAL)
        finishes_like(whole, run_dir)


def write_result(folder: Path, value: int) -> None:
    write_json(folder / "result.json", {"value": value}, kind="result")


def write_file(folder: Path, value: int) -> None:
    write_json(folder / "result.json", {"value": value})


@pytest.mark.reliability("2", "killed while a result is written: the old one stays, or the new one is whole")
@pytest.mark.parametrize("moment", ["staged", "synced", "renamed"])
@pytest.mark.parametrize("write", [write_file, write_result])
def test_a_result_is_the_old_one_or_the_new_one(write: object, moment: str, tmp_path: Path) -> None:
    kind = write.__name__.removeprefix("write_")  # type: ignore[attr-defined]
    write(tmp_path, 1)  # type: ignore[operator]
    assert run_forked(lambda: write(tmp_path, 2), f"{kind}.{moment}:1:kill") == KILLED  # type: ignore[operator]
    assert read_json(tmp_path / "result.json") == {"value": 2 if moment == "renamed" else 1}
    write(tmp_path, 3)  # type: ignore[operator]
    assert read_json(tmp_path / "result.json") == {"value": 3}


@pytest.mark.reliability("1", "killed while the masker is fitted or saved: it is whole, or fitted again")
@pytest.mark.parametrize("point", ["masker.fit", "directory.staged", "directory.synced", "directory.renamed"])
def test_a_masker_is_whole_or_absent(point: str, tmp_path: Path) -> None:
    from tests.support.maskers import fake_reference

    reference, saved = fake_reference(), tmp_path / "masker"
    make = lambda: build_masker("tiny").fit(reference).save(saved)  # noqa: E731
    assert run_forked(make, f"{point}:1:kill", tmp_path / "log") == KILLED, (tmp_path / "log").read_text()
    if point == "directory.renamed":
        assert load_masker(saved, "cpu").info.variant == "tiny"
    else:
        assert not saved.exists()


def test_every_point_in_the_code_is_registered_and_every_registered_one_is_in_the_code() -> None:
    found: set[str] = set()
    for path in PROJECT_ROOT.rglob("*.py"):
        if path.relative_to(PROJECT_ROOT).parts[0] in (".venv", "runs", "tests"):
            continue
        text = path.read_text()
        found |= set(re.findall(r'faults\.point\("([^"]+)"\)', text))
        for kind in re.findall(r'kind(?:: str = |=)"(\w+)"', text):
            found |= {f"{kind}.{moment}" for moment in ("staged", "synced", "renamed")}
    assert found == set(faults.POINTS)
    assert {p.split(".")[0] for p in faults.POINTS} == {*TRAINING, "file", "result", "directory", "masker"}


def test_the_children_of_this_file_do_what_they_are_told() -> None:
    assert wait(fork(lambda: None)) == 0
    assert run_forked(lambda: faults.point("train.act"), "train.act:1:raise") == 1
    assert run_forked(lambda: faults.point("train.act"), "train.act:2:kill") == 0
