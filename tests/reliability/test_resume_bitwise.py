"""A run that is stopped and resumed, wherever, equals one that was not: digests of everything it learned."""

from __future__ import annotations

import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import envs
from common import faults
from common.masking import MaskerInfo
from common.seeding import generator_states, restore_generators
from tests.support.small_runs import fingerprint, make_run, output, rows
from training.snapshot import load_snapshot, read_manifest

pytestmark = pytest.mark.usefixtures("one_thread")
# In order of the run: within an episode of 16 decisions; in an update; in an evaluation; after 50 updates.
STOPS = ("train.step:21:term", "train.update:10:usr2", "evaluate.step:3:int", "train.update:12:term")
SMALL = {"env": {"length": 16}, "num_train_frames": 280, "num_seed_frames": 32}
PIEG = {
    "kind": "PIEGAgent",
    "agent": {"encoder_weights": "random", "overlay_images": 16},
    "env": {"length": 16, "size": 48},
}


@pytest.fixture(autouse=True)
def disarmed() -> Any:
    yield
    faults.arm("")


def run_in_parts(run_dir: Path, stops: tuple[str, ...], **options: Any) -> Any:
    """Stop a run at each of ``stops`` and go on; return its last part."""
    for stop in stops:
        faults.arm(stop)
        run = make_run(run_dir, **options)
        with pytest.raises(SystemExit) as caught:
            run.train()
        assert caught.value.code == (130 if stop.endswith("int") else 143)
        assert read_manifest(run.store.paths()[-1])["agent_steps"] == run.agent_steps, "no step is repeated"
    faults.arm("")
    last = make_run(run_dir, resume="must", **options)
    last.train()
    return last


def assert_equal(whole: Any, parts: Any) -> None:
    assert whole.updates >= 50 and fingerprint(whole.agent) == fingerprint(parts.agent)
    assert rows(whole) == rows(parts) and rows(whole, "eval") == rows(parts, "eval")
    assert whole.replay.manifest() == parts.replay.manifest()


@pytest.mark.reliability(
    "exact", "stopped in an episode, update or evaluation, a run ends as if it never was"
)
def test_stopped_anywhere_equals_uninterrupted(tmp_path: Path) -> None:
    whole = make_run(tmp_path / "whole", **SMALL)
    whole.train()
    assert_equal(whole, run_in_parts(tmp_path / "parts", STOPS, **SMALL))


@pytest.mark.crash
@pytest.mark.reliability("exact", "so for DrQ-v2 and PIE-G, no masker and tiny, 1 and 2 environments")
@pytest.mark.parametrize("num_envs", [1, 2])
@pytest.mark.parametrize("variant", ["none", "tiny"])
@pytest.mark.parametrize("agent", ["DrQ-v2", "PIE-G"])
def test_every_agent_masker_and_number_of_environments(
    agent: str, variant: str, num_envs: int, tmp_path: Path
) -> None:
    from samg import build_masker
    from tests.support.maskers import fake_reference

    masker = build_masker(variant).fit(fake_reference(size=48))
    options = SMALL | {"env": {"length": 16, "size": 48}, "masker": masker, "num_envs": num_envs}
    options |= PIEG if agent == "PIE-G" else {}
    whole = make_run(tmp_path / "whole", **options)
    whole.train()
    assert_equal(whole, run_in_parts(tmp_path / "parts", STOPS, **options))


class EveryThird:
    """Keeps the half of a frame that its own brightness names, and asks for every third frame only."""

    info, every = MaskerInfo("fake", "halves", "0"), 3

    def mask(self, frames: torch.Tensor, foreground: Any = None) -> torch.Tensor:
        left = torch.arange(frames.shape[2]) < frames.shape[2] // 2
        bright = frames[:, :, : frames.shape[2] // 2].float().mean((1, 2, 3)) > frames.float().mean((1, 2, 3))
        return (left == bright[:, None])[:, None, :].expand(frames.shape[:3])


@pytest.mark.reliability("exact", "also where masks are used again in between, with two environments")
def test_masks_used_again_are_part_of_a_snapshot(tmp_path: Path) -> None:
    options = {**SMALL, "masker": EveryThird(), "num_envs": 2}
    whole = make_run(tmp_path / "whole", **options)
    whole.train()
    assert_equal(
        whole, run_in_parts(tmp_path / "parts", ("train.step:21:term", "train.step:7:term"), **options)
    )


@pytest.mark.reliability("exact", "saving advances no generator")
def test_saving_advances_no_generator(tmp_path: Path) -> None:
    run = make_run(tmp_path, num_train_frames=120)
    save, seen = run.save, []

    def watched() -> Path:
        before = repr(generator_states()), {n: g.get_state() for n, g in run.agent.generators.items()}
        path = save()
        seen.append(path)
        assert repr(generator_states()) == before[0]
        for name, generator in run.agent.generators.items():
            assert torch.equal(generator.get_state(), before[1][name]), name
        return path

    run.save = watched  # type: ignore[method-assign]
    run.train()
    assert len(seen) == 3


@pytest.mark.reliability("exact", "Python's, NumPy's and torch's generators go on where they were")
def test_global_generators_are_part_of_a_snapshot(tmp_path: Path) -> None:
    before = generator_states()
    try:
        run = make_run(tmp_path, num_train_frames=60)
        run.train()
        wanted = random.random(), float(np.random.rand()), float(torch.rand(1))
        random.seed(5), np.random.seed(5), torch.manual_seed(5)
        make_run(tmp_path, num_train_frames=60).train()
        assert (random.random(), float(np.random.rand()), float(torch.rand(1))) == wanted
    finally:
        restore_generators(before)


@pytest.mark.reliability("exact", "other library versions than those of the snapshot are reported")
def test_other_versions_warn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make_run(tmp_path, num_train_frames=40, config={"task": "x"}).train()
    path = make_run(tmp_path).store.paths()[-1]
    assert load_snapshot(path, ["loop"])["loop"]["config"] == {"task": "x"}
    now = read_manifest(path)["versions"] | {"numpy": "9.9"}
    monkeypatch.setattr("training.snapshot.library_versions", lambda: now)
    again = make_run(tmp_path, num_train_frames=40)
    again.train()
    assert "9.9" in caplog.text and "numpy" in caplog.text and "Resumed" in output(again)


@pytest.mark.reliability("exact", "tasks that edit their model at a reset are restored bit by bit")
@pytest.mark.parametrize("task", ["reacher_easy", "finger_turn_hard", "point_mass_easy"])
def test_tasks_that_edit_their_model_are_restored(task: str) -> None:
    first, second = (envs.make_env(task, seed=3, image_size=48) for _ in range(2))
    try:
        rng = np.random.default_rng(0)
        actions = rng.uniform(-1, 1, (12, *first.action_space.shape)).astype(np.float32)  # type: ignore[misc]
        first.unwrapped.episode = 7  # type: ignore[attr-defined]
        first.reset(seed=11)
        for action in actions[:6]:
            first.step(action)
        second.reset(seed=99)  # another model
        second.unwrapped.state = first.unwrapped.state  # type: ignore[attr-defined]
        for env in (first, second):
            env.unwrapped.model  # noqa: B018
        frames = [env.unwrapped.observe()[0]["pixels"] for env in (first, second)]  # type: ignore[attr-defined]
        assert np.array_equal(*frames)
        for action in actions[6:]:
            (obs, reward, *_), (other, other_reward, *_) = first.step(action), second.step(action)
            assert np.array_equal(obs["pixels"], other["pixels"]) and reward == other_reward
    finally:
        first.close()
        second.close()


def test_signals_are_what_the_stops_say() -> None:
    assert {stop.rsplit(":", 1)[1] for stop in STOPS} == {"term", "usr2", "int"}
    assert signal.SIGUSR2 in __import__("common.stopping").stopping.SIGNALS
