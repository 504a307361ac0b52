"""Snapshots: whole or absent, verified, kept, set aside; nested state without pickle."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.errors import SnapshotError
from training.flatten import flatten, restore
from training.snapshot import SnapshotStore, load_agent, load_snapshot, read_manifest


def parts(value: float = 1.0) -> dict[str, Any]:
    return {
        "agent": {"encoder": {"weight": torch.full((3, 2), value)}},
        "loop": {"agent_steps": 7, "list": [1, None]},
    }


def make_store(tmp_path: Path, steps: tuple[int, ...] = (10, 20)) -> SnapshotStore:
    store = SnapshotStore(tmp_path / "snapshots")
    for step in steps:
        store.save(step, parts(float(step)), {"replay": [f"episode_{step}"]})
    return store


def test_nested_state_survives_through_json() -> None:
    generator = torch.Generator().manual_seed(3)
    network = torch.nn.Linear(2, 3)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    state = {
        "optimizer": optimizer.state_dict(),
        "generator": generator.get_state(),
        "numpy": {
            "a": np.arange(6, dtype=np.uint32).reshape(2, 3),
            "zero": np.zeros((0, 4)),
            "scalar": np.float32(2.5),
        },
        "plain": [1, 2.5, "text", None, True, math.inf, -math.inf, (1, (2,)), 2**100],
        "integer keys": {0: "a", 1: {"$": "a key of our own"}},
        "bool": torch.tensor([True, False]),
        "transposed": np.arange(6).reshape(2, 3).T,
        "nothing": np.array(3.0),
    }
    tensors: dict[str, torch.Tensor] = {}
    again = restore(json.loads(json.dumps(flatten(state, tensors), allow_nan=False)), tensors)
    assert again["plain"] == state["plain"] and again["integer keys"] == state["integer keys"]
    assert torch.equal(again["generator"], state["generator"])
    for name in ("a", "zero"):
        assert np.array_equal(again["numpy"][name], state["numpy"][name])
        assert again["numpy"][name].dtype == state["numpy"][name].dtype
    assert again["numpy"]["scalar"] == 2.5 and again["nothing"].shape == ()
    assert np.array_equal(again["transposed"], state["transposed"])
    before, after = state["optimizer"]["state"][0], again["optimizer"]["state"][0]
    assert before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)
    assert again["optimizer"]["param_groups"] == state["optimizer"]["param_groups"]
    assert math.isnan(restore(flatten(math.nan, {}), {}))


@pytest.mark.parametrize("value", [object(), {1.5: 2}, {"a": {3, 4}}, b"bytes"])
def test_what_cannot_be_stored_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="state at"):
        flatten(value, {})


def test_round_trip_and_manifest(tmp_path: Path) -> None:
    path = make_store(tmp_path).latest_valid()
    assert path is not None and path.name == "step_0000000020"
    assert sorted(p.name for p in path.iterdir()) == [
        "agent.safetensors",
        "loop.safetensors",
        "manifest.json",
        "state.json",
    ]
    state = load_snapshot(path)
    assert torch.equal(state["agent"]["encoder"]["weight"], torch.full((3, 2), 20.0))
    assert state["loop"] == parts()["loop"]
    manifest = read_manifest(path)
    assert manifest["agent_steps"] == 20 and manifest["versions"]["torch"] == torch.__version__
    assert not any(p.name.startswith(".") for p in path.parent.iterdir())


def test_the_last_two_are_kept_and_name_their_episodes(tmp_path: Path) -> None:
    store = make_store(tmp_path, (10, 20, 30))
    assert [path.name for path in store.paths()] == ["step_0000000020", "step_0000000030"]
    assert store.named_episodes() == {"episode_20", "episode_30"}


@pytest.mark.reliability("5", "a damaged snapshot is named, kept aside, and the one before it goes on")
@pytest.mark.parametrize("file", ["agent.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "delete"])
def test_a_damaged_snapshot_is_set_aside(
    tmp_path: Path, file: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = make_store(tmp_path)
    path = store.paths()[-1] / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if damage == "delete":
        path.unlink()
    else:
        path.write_bytes(bytes(data) if damage == "flip" else bytes(data[:-1]))
    reader_sees = load_agent(tmp_path)[1]["agent_steps"]
    assert reader_sees == 10 and path.parent.exists(), "a reader renames nothing"
    found = store.latest_valid()
    assert found is not None and found.name == "step_0000000010"
    assert (tmp_path / "snapshots" / "step_0000000020.bad-1").is_dir()
    assert "step_0000000020" in caplog.text and file in caplog.text
    if damage != "delete" and file != "manifest.json":
        assert "sha256 differs (expected" in caplog.text
    assert store.save(20, parts(), {}).name == "step_0000000020"


@pytest.mark.reliability("5", "no intact snapshot: exit 6, never a silent fresh start")
def test_none_intact_is_an_error_and_none_at_all_is_not(tmp_path: Path) -> None:
    assert SnapshotStore(tmp_path / "snapshots").latest_valid() is None
    store = make_store(tmp_path)
    for path in store.paths():
        (path / "state.json").write_text("{}")
    for _ in range(2):  # also once they have been set aside
        with pytest.raises(SnapshotError, match="No snapshot"):
            store.latest_valid()
    with pytest.raises(SnapshotError, match="holds no snapshot"):
        load_agent(tmp_path / "elsewhere")


def test_evaluation_reads_the_agent_only(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    (store.paths()[-1] / "loop.safetensors").chmod(0o600)
    state = load_snapshot(store.paths()[-1], ["agent"])
    assert list(state) == ["agent"]
    networks, manifest = load_agent(tmp_path)
    assert (
        torch.equal(networks["encoder"]["weight"], torch.full((3, 2), 20.0)) and manifest["agent_steps"] == 20
    )
    with pytest.raises(SnapshotError, match="has no part 'optimizers'"):
        load_snapshot(store.paths()[-1], ["optimizers"])


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    with pytest.raises(TypeError):
        store.save(30, {"agent": {"bad": object()}}, {})
    assert [
        p.name for p in (tmp_path / "snapshots").iterdir() if "30" in p.name or p.name.startswith(".")
    ] == []
    assert store.save(20, parts(99.0), {}) == store.paths()[-1]
    kept = load_snapshot(store.paths()[-1])["agent"]["encoder"]["weight"]
    assert torch.equal(kept, torch.full((3, 2), 20.0)), "an intact snapshot is never replaced"
