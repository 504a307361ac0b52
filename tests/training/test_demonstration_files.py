"""Files of demonstrations: what is read, and what is refused."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import DependencyError, InputError
from tests.support.demonstrations import START, bar_records, write_records
from training.demonstrations.formats import Recorded, write_archive
from training.demonstrations.reading import count_transitions, read_demonstrations


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_every_protocol_are_read(tmp_path: Path, protocol: int) -> None:
    records = bar_records(4, 7)
    file = write_records(tmp_path / "bars-v0_demos.pickle", records, protocol)
    found = read_demonstrations(file, 1, START)
    assert len(found) == 4
    for demonstration, record in zip(found, records, strict=True):
        assert demonstration.actions.dtype == np.float32
        assert np.array_equal(demonstration.actions, record["actions"].astype(np.float32))
        assert set(demonstration.start) == set(START)
        assert all(np.array_equal(demonstration.start[n], record["init_state_dict"][n]) for n in START)
    assert count_transitions(file) == 28 and count_transitions(file, most=3) == 21


def test_pickles_of_python_2_are_read(tmp_path: Path) -> None:
    """As written there: the names of NumPy 1, bytes as text of protocol 0."""
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I1\nI1\ntcnumpy\ndtype\n"
        b"(S'f8'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS'\\x00\\x00\\x00\\x00\\x00\\x00\\xe0?'\ntb"
    )
    file = tmp_path / "demos.pickle"
    file.write_bytes(b"(l(dS'actions'\n" + array + b"sS'init_state_dict'\n(dS'cursor'\n" + array + b"ssa.")
    (found,) = read_demonstrations(file, 1, {"cursor": (1,)})
    assert found.actions.tolist() == [[0.5]] and found.start["cursor"].tolist() == [0.5]


class Foreign:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("ran",)


def changed(**values: Any) -> list[dict[str, Any]]:
    records = bar_records(2, 5)
    records[1] |= values
    return records


BAD: dict[str, tuple[Any, str]] = {
    "code": (changed(actions=Foreign()), r"posix.mkdir|nt.mkdir"),
    "object": (changed(rewards=Path("x")), "pathlib"),
    "objects in an array": (changed(actions=np.array([Foreign(), 1], object)), "more than numbers"),
    "wrong task": (changed(actions=np.zeros((5, 26))), "26 numbers instead of 1"),
    "no actions": ([{"init_state_dict": {}}], "no table of actions"),
    "empty episode": (changed(actions=np.zeros((0, 1))), "no table of actions"),
    "text": (changed(actions=np.array([["a"]])), "no table of actions"),
    "no state": (changed(init_state_dict=None), "no initial state"),
    "state of another task": (changed(init_state_dict={"cursor": np.zeros(1)}), "no 'target'"),
    "not finite": (changed(actions=np.array([[np.nan]])), "finite"),
    "state of another shape": (
        changed(init_state_dict={"cursor": np.zeros(2), "target": 0.0}),
        r"shape \(2,\)",
    ),
    "state not finite": (changed(init_state_dict={"cursor": np.inf, "target": 0.0}), "'cursor'"),
    "no list": ({"actions": 1}, "no list of episodes"),
    "nothing": ([], "no episode"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_will_not_do_is_one_error_and_writes_nothing(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content, words = BAD[case]
    file = write_records(tmp_path / "demos.pickle", content)
    with pytest.raises(InputError, match=words) as caught:
        read_demonstrations(file, 1, START)
    assert str(file) in caught.value.message and caught.value.hint
    assert os.listdir(tmp_path) == ["demos.pickle"]


def test_truncated_and_altered_files_are_one_error(tmp_path: Path) -> None:
    data = pickle.dumps(bar_records(2, 5))
    file, rng = tmp_path / "demos.pickle", np.random.default_rng(0)
    for length in [0, 1, *rng.integers(2, len(data) - 1, 25)]:
        file.write_bytes(data[:length])
        with pytest.raises(InputError, match="cannot be read"):
            read_demonstrations(file, 1, START)
    for place in rng.integers(0, len(data), 60):
        file.write_bytes(data[:place] + bytes([rng.integers(256)]) + data[place + 1 :])
        try:
            read_demonstrations(file, 1, START)
        except InputError as error:
            assert str(file) in error.message
    with pytest.raises(InputError, match="do not exist"):
        read_demonstrations(tmp_path / "none.pickle", 1)


def test_minari_needs_h5py_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(DependencyError, match="pip install h5py"):
        read_demonstrations(tmp_path, 1)


def minari_set(folder: Path, records: list[dict[str, Any]], place: str) -> Path:
    """Write a Minari set as its releases do: a group per episode, the states of all steps below ``place``."""
    import h5py

    (folder / "data").mkdir(parents=True)
    file = folder / "data" / "main_data.hdf5"
    with h5py.File(file, "w") as data:
        for number, record in enumerate(records):
            group = data.create_group(f"episode_{number}")
            group["actions"] = record["actions"]
            group["infos/success"] = np.zeros(len(record["actions"]) + 1, bool)
            for name, value in record["init_state_dict"].items():
                group[f"{place}/{name}"] = np.stack([value, value + 1])
    return file


@pytest.mark.parametrize("place", ["infos", "infos/state", "state", "infos/initial_state_dict"])
def test_minari_sets_are_read_in_the_order_of_their_numbers(tmp_path: Path, place: str) -> None:
    pytest.importorskip("h5py", reason="h5py is not installed: pip install -e .[dev]")
    records = bar_records(11, 6)
    file = minari_set(tmp_path, records, place)
    for path in (tmp_path, file):
        found = read_demonstrations(path, 1, START)
        assert [d.start["cursor"] for d in found] == [r["init_state_dict"]["cursor"] for r in records]
        assert np.array_equal(found[10].actions, records[10]["actions"].astype(np.float32))
    with pytest.raises(InputError, match="no 'elbow'"):
        read_demonstrations(tmp_path, 1, {"elbow": ()})
    file.write_bytes(file.read_bytes()[:3000])
    with pytest.raises(InputError, match="cannot be read"):
        read_demonstrations(tmp_path, 1, START)


def test_d4rl_files_are_cut_where_episodes_end(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed: pip install -e .[dev]")
    with h5py.File(tmp_path / "bars.hdf5", "w") as data:
        data["actions"] = np.arange(9, dtype=np.float32)[:, None] / 10
        data["terminals"], data["timeouts"] = np.arange(9) == 2, np.arange(9) == 6
        data["infos/cursor"] = data["infos/target"] = np.arange(9) / 100
    found = read_demonstrations(tmp_path / "bars.hdf5", 1, START)
    assert [len(d.actions) for d in found] == [3, 4, 2]
    assert [float(d.start["cursor"]) for d in found] == [0.0, 0.03, 0.07]
    assert found[1].actions[:, 0].tolist() == pytest.approx([0.3, 0.4, 0.5, 0.6])


def archive(path: Path, **changed: Any) -> Path:
    """Write three episodes as ``record.py`` does."""
    episodes = [
        Recorded(
            n,
            {"cursor": np.array(n / 10), "target": np.array(0.5)},
            np.full((n + 2, 1), n / 5),
            1.5 * n,
            n > 1,
        )
        for n in range(3)
    ]
    write_archive(path, **{"task": "bars", "action_repeat": 2, "episodes": episodes, "about": {}, **changed})
    return path


def test_what_is_recorded_is_read_again(tmp_path: Path) -> None:
    file = archive(tmp_path / "bars.npz")
    found = read_demonstrations(file, 1, START, "bars")
    assert [(d.seed, len(d.actions), d.action_repeat, float(d.start["cursor"])) for d in found] == [
        (0, 2, 2, 0.0), (1, 3, 2, 0.1), (2, 4, 2, 0.2),
    ]  # fmt: skip
    assert np.array_equal(found[2].actions, np.full((4, 1), 0.4, np.float32))
    assert [d.start for d in read_demonstrations(file, 1)] == [{}] * 3  # a simulator that begins from seeds
    with pytest.raises(InputError, match="of bars, not of door"):
        read_demonstrations(file, 1, START, "door")
    with np.load(file, allow_pickle=False) as arrays:
        assert arrays["successes"].tolist() == [0, 0, 1] and arrays["returns"].tolist() == [0.0, 1.5, 3.0]


def test_files_without_seeds_are_refused_where_nothing_else_begins_an_episode(tmp_path: Path) -> None:
    file = write_records(tmp_path / "demos.pickle", bar_records(2, 5))
    with pytest.raises(InputError, match="no seed"):
        read_demonstrations(file, 1)


def test_damaged_archives_are_one_error(tmp_path: Path) -> None:
    data, rng = archive(tmp_path / "bars.npz").read_bytes(), np.random.default_rng(0)
    file = tmp_path / "cut.npz"
    for length in [0, 1, *rng.integers(2, len(data) - 1, 10)]:
        file.write_bytes(data[:length])
        with pytest.raises(InputError, match="cannot be read"):
            read_demonstrations(file, 1, START)
    for place in rng.integers(0, len(data), 40):
        file.write_bytes(data[:place] + bytes([rng.integers(256)]) + data[place + 1 :])
        try:
            read_demonstrations(file, 1, START)
        except InputError as error:
            assert str(file) in error.message
    np.savez(file, about=np.array(["x"], object))
    with pytest.raises(InputError, match="cannot be read"):
        read_demonstrations(file, 1, START)
    np.savez(file, about=np.array('{"format": "other"}'))
    with pytest.raises(InputError, match="its format is other"):
        read_demonstrations(file, 1, START)
