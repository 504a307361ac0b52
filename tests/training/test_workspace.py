"""The loop on a fake environment: counting, repeating, resuming bit by bit, stopping, refusing."""

from __future__ import annotations

import errno
import os
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from algos import DrQV2Agent
from common.errors import ConfigError, NonFiniteError, ResourceError, SnapshotError
from tests.support.fake_env import FAKE_MASKER_INFO, PixelFakeEnv, reset_fake_episodes
from tests.support.small_runs import SMALL, make_run, output, record_actions, rows, stop_at, weights
from training import workspace as workspace_module
from training.guard import exclusive
from training.settings import TrainSettings
from training.snapshot import load_agent, load_snapshot

pytestmark = pytest.mark.usefixtures("one_thread")


def test_counts_follow_drqv2(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    updates = []
    learn = run.agent.update
    run.agent.update = lambda batch, step: (updates.append(step), learn(batch, step))[1]  # type: ignore[method-assign]
    run.train()
    assert (run.agent_steps, run.updates) == (120, 50)
    assert updates == list(range(20, 120, 2)), "every second decision, from the seed frames on"
    train = rows(run)
    assert [int(row["agent_steps"]) for row in train] == list(range(10, 121, 10))
    assert [int(row["episode"]) for row in train] == list(range(12))
    assert all(int(row["frames"]) == 2 * int(row["agent_steps"]) for row in train)
    assert train[1]["critic_loss"] == "" and float(train[-1]["critic_loss"]) > 0
    assert [int(row["agent_steps"]) for row in rows(run, "eval")] == [50, 100]
    assert sorted(path.name for path in run.store.paths()) == ["step_0000000090", "step_0000000120"]


def test_rewards_and_frames_reach_the_replay_as_they_were(tmp_path: Path) -> None:
    run = make_run(tmp_path, env={"terminate_at": 7}, num_train_frames=60, num_seed_frames=60)
    actions = record_actions(run)
    run.train()
    env, time = PixelFakeEnv(length=10, terminate_at=7), 0
    for index, name in enumerate(run.replay.manifest()):
        with np.load(tmp_path / "replay" / name) as episode:
            obs, _ = reset_single(env, index)
            assert np.array_equal(episode["frames"][0], obs["pixels"].transpose(2, 0, 1))
            for t in range(7):
                obs, reward, terminated, *_ = env.step(actions[time][0])
                time += 1
                assert np.array_equal(episode["frames"][t + 1], obs["pixels"].transpose(2, 0, 1))
                assert episode["reward"][t] == np.float32(reward)
                assert episode["discount"][t] == (0.0 if terminated else 1.0)
            assert terminated and len(episode["reward"]) == 7
    assert len(run.replay.manifest()) == 4


def reset_single(env: PixelFakeEnv, episode: int) -> Any:
    venv = SimpleNamespace(
        set_attr=lambda name, values: setattr(env, name, values[0]),
        reset=lambda seed, options: env.reset(seed=seed[0]),
    )
    return reset_fake_episodes(venv, [episode], np.array([True]), seed=0)


def test_time_limits_are_no_terminations(tmp_path: Path) -> None:
    run = make_run(tmp_path, num_train_frames=40)
    run.train()
    with np.load(tmp_path / "replay" / run.replay.manifest()[0]) as episode:
        assert (episode["discount"] == 1).all()


def test_same_seed_same_actions_rewards_and_weights(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / name, seed=seed, num_train_frames=400)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    actions = [record_actions(run) for run in runs]
    for run in runs:
        run.train()
    assert runs[0].updates >= 90  # so that actions are compared long after learning has begun
    assert np.array_equal(actions[0], actions[1]) and torch.equal(weights(runs[0]), weights(runs[1]))
    assert rows(runs[0]) == rows(runs[1])
    assert not np.array_equal(actions[0], actions[2])


def test_prefetching_changes_nothing(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / str(p), replay=SimpleNamespace(prefetch=p)) for p in (False, True)]
    for run in runs:
        run.train()
    assert torch.equal(weights(runs[0]), weights(runs[1])) and rows(runs[0]) == rows(runs[1])


def test_a_run_may_go_on_with_another_cache(tmp_path: Path) -> None:
    whole = make_run(tmp_path / "whole", replay_cache="ram", replay_buffer_size=60)
    whole.train()
    first = make_run(tmp_path / "parts", replay_cache="memmap", replay_buffer_size=60)
    stop_at(first, 60)
    with pytest.raises(SystemExit):
        first.train()
    second = make_run(tmp_path / "parts", resume="must", replay_cache="ram", replay_buffer_size=60)
    second.train()
    assert torch.equal(weights(whole), weights(second)) and rows(whole) == rows(second)


def test_a_cache_that_the_device_has_not_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"replay\.cache=gpu needs a CUDA device"):
        make_run(tmp_path, replay_cache="gpu").train()
    assert not (tmp_path / "replay").exists() and not (tmp_path / "train.csv").exists()


@pytest.mark.reliability("exact", "also with evicted episodes and three environments")
@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize("stop", [37, 60])
def test_resumed_equals_uninterrupted_bit_by_bit(tmp_path: Path, stop: int, num_envs: int) -> None:
    stop -= stop % num_envs
    cfg = {"num_envs": num_envs, "replay_buffer_size": 60}  # small enough that episodes are evicted
    whole = make_run(tmp_path / "whole", **cfg)
    wanted = record_actions(whole)
    whole.train()
    first = make_run(tmp_path / "parts", **cfg)
    got = record_actions(first)
    stop_at(first, stop)
    with pytest.raises(SystemExit) as caught:
        first.train()
    assert caught.value.code == 143
    assert first.agent_steps == stop + num_envs
    second = make_run(tmp_path / "parts", resume="must", **cfg)
    rest = record_actions(second)
    second.train()
    assert np.array_equal(wanted, got + rest)
    assert torch.equal(weights(whole), weights(second))
    assert (whole.agent_steps, whole.updates, whole.next_episode) == (
        second.agent_steps, second.updates, second.next_episode,
    )  # fmt: skip
    assert whole.replay.manifest() == second.replay.manifest()
    assert rows(whole) == rows(second) and rows(whole, "eval") == rows(second, "eval")
    optimizers = [load_snapshot(run.store.paths()[-1])["optimizers"] for run in (whole, second)]
    assert repr(optimizers[0]) == repr(optimizers[1])


def test_after_a_crash_the_last_snapshot_goes_on(tmp_path: Path) -> None:
    whole = make_run(tmp_path / "whole")
    whole.train()
    crashed = make_run(tmp_path / "parts")
    act = crashed.agent.act

    def crash(obs: np.ndarray, step: int, **options: Any) -> np.ndarray:
        if step == 55:
            raise RuntimeError("lost")
        return act(obs, step, **options)

    crashed.agent.act = crash  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="lost"):
        crashed.train()
    assert len(rows(crashed)) == 5
    resumed = make_run(tmp_path / "parts")
    resumed.train()
    assert "step_0000000030" in output(resumed)
    assert torch.equal(weights(whole), weights(resumed))
    assert rows(whole) == rows(resumed), "rows of after the snapshot were written anew"
    assert rows(whole, "eval") == rows(resumed, "eval")


def test_one_and_three_environments_play_the_same_episodes(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / str(n), num_envs=n, num_seed_frames=240) for n in (1, 3)]
    for run in runs:
        run.train()
    firsts = []
    for run in runs:
        assert run.next_episode >= 12 and run.agent_steps == 120
        files = sorted((run.run_dir / "replay").glob("*.npz"))[:12]
        firsts.append(np.stack([np.load(path)["frames"][0] for path in files]))
    assert np.array_equal(*firsts)


def test_updates_per_decision_do_not_depend_on_the_environments(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / str(n), num_envs=n, num_seed_frames=60) for n in (1, 3)]
    for run in runs:
        run.train()
    assert runs[0].updates == runs[1].updates == 45


def test_updates_are_made_while_the_environments_step(tmp_path: Path) -> None:
    run, order = make_run(tmp_path, num_envs=2, num_train_frames=80), []

    def noting(owner: Any, name: str) -> None:
        method = getattr(owner, name)
        setattr(owner, name, lambda *a, **k: (order.append(name), method(*a, **k))[1])

    for owner, name in (
        (run.venv, "step_async"),
        (run.agent, "update"),
        (run.venv, "step_wait"),
        (run, "_record"),
    ):
        noting(owner, name)
    run.train()
    steps = " ".join(order).split("step_async ")[1:]
    assert len(steps) == 20
    assert {step.strip() for step in steps} == {"step_wait _record", "update step_wait _record"}


def test_a_signal_saves_says_how_to_go_on_and_restores_the_handlers(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    run = make_run(tmp_path)
    stop_at(run, 15, signal.SIGINT)
    with pytest.raises(SystemExit) as caught:
        run.train()
    assert caught.value.code == 130
    assert "step_0000000016" in output(run) and "train again" in output(run)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_ends_an_evaluation_at_once_and_a_resume_repeats_it(tmp_path: Path) -> None:
    run = make_run(tmp_path)

    def evaluate(agent: DrQV2Agent, step: int) -> dict[str, Any]:
        if step == 50:
            os.kill(os.getpid(), signal.SIGTERM)
            pytest.fail("the evaluation went on")
        return {"episode_return": float(step)}

    run._evaluate = evaluate
    with pytest.raises(SystemExit):
        run.train()
    assert run.agent_steps == 50 and not (run.run_dir / "eval.csv").exists()
    again = make_run(tmp_path)
    again.train()
    assert [int(row["agent_steps"]) for row in rows(again, "eval")] == [50, 100]


def test_one_writer_per_run_directory(tmp_path: Path) -> None:
    with exclusive(tmp_path), pytest.raises(ConfigError, match=f"in use by process {os.getpid()} on"):
        make_run(tmp_path).train()


def test_resume_refusals(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match="no snapshot and resume=must"):
        make_run(tmp_path / "new", resume="must").train()
    run = make_run(tmp_path / "run", num_train_frames=40)
    run.train()
    with pytest.raises(ConfigError, match="holds a run already"):
        make_run(tmp_path / "run", resume="never").train()
    with pytest.raises(ConfigError, match="num_envs=1, not 2"):
        make_run(tmp_path / "run", num_envs=2).train()
    other = make_run(tmp_path / "run")
    other.masker_info = replace(FAKE_MASKER_INFO, fingerprint="1" * 64)
    with pytest.raises(ConfigError, match="another fingerprint"):
        other.train()
    for path in run.store.paths():
        (path / "agent.safetensors").write_bytes(b"")
    with pytest.raises(SnapshotError, match="No snapshot"):
        make_run(tmp_path / "run").train()


def test_a_finished_run_resumes_to_nothing_and_can_be_prolonged(tmp_path: Path) -> None:
    make_run(tmp_path, num_train_frames=100).train()
    again = make_run(tmp_path, num_train_frames=100)
    again.train()
    assert again.agent_steps == 50
    longer = make_run(tmp_path, num_train_frames=140)
    longer.train()
    assert longer.agent_steps == 70 and len(rows(longer)) == 7


@pytest.mark.parametrize("broken", ["reward", "loss", "action", "parameter"])
def test_values_that_are_not_finite_stop_the_run_and_spare_the_snapshots(
    tmp_path: Path, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path, snapshot_every_frames=40)
    learn, wait = run.agent.update, run.venv.step_wait

    def update(batch: Any, step: int) -> Any:
        metrics = learn(batch, step)
        if broken == "loss" and step == 44:
            metrics["critic_loss"] = torch.tensor(float("nan"))
        if broken in ("action", "parameter") and step == 58:
            network = run.agent.actor if broken == "action" else run.agent.critic_target
            next(iter(network.parameters())).data.fill_(float("nan"))
        return metrics

    def step_wait() -> Any:
        obs, reward, *rest = wait()
        return obs, reward * (float("inf") if broken == "reward" and run.agent_steps == 45 else 1.0), *rest

    monkeypatch.setattr(run.agent, "update", update)
    monkeypatch.setattr(run.venv, "step_wait", step_wait)
    with pytest.raises(NonFiniteError, match=r"not finite|critic_loss is nan"):
        run.train()
    assert load_agent(tmp_path)[1]["agent_steps"] == 40
    for path in run.store.paths():
        for state in load_snapshot(path)["agent"].values():
            assert all(torch.isfinite(value).all() for value in state.values())


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(workspace_module.SnapshotStore, "save", full)
    with pytest.raises(ResourceError, match="No space is left"):
        run.train()


def test_episode_files_are_kept_while_a_snapshot_names_them(tmp_path: Path) -> None:
    run = make_run(tmp_path, replay_buffer_size=20)
    run.train()
    on_disk = {path.name for path in (tmp_path / "replay").glob("episode_*.npz")}
    assert run.replay.num_transitions == 20
    assert on_disk == run.store.named_episodes() and len(on_disk) == 4  # those of step 90 and of step 120


def test_the_evaluation_needs_only_the_networks(tmp_path: Path) -> None:
    run = make_run(tmp_path, num_train_frames=60)
    run.train()
    networks, manifest = load_agent(tmp_path)
    fresh = make_run(tmp_path / "fresh", seed=5)
    fresh.agent.load_networks(networks)
    assert torch.equal(weights(run), weights(fresh))
    assert manifest["masker"]["fingerprint"] == FAKE_MASKER_INFO.fingerprint and manifest["frames"] == 60


def test_mask_statistics_are_logged(tmp_path: Path) -> None:
    run = make_run(tmp_path, num_train_frames=40)
    wait = run.venv.step_wait

    def step_wait() -> Any:
        obs, reward, terminated, truncated, info = wait()
        mask = np.zeros((1, 24, 24), bool)
        mask[0, :12] = run.agent_steps % 2 == 0
        empty = ~mask.any(axis=(1, 2))
        return obs, reward, terminated, truncated, {**info, "mask": mask, "mask_empty": empty}

    run.venv.step_wait = step_wait
    run.train()
    assert [(float(row["mask_area"]), float(row["empty_masks"])) for row in rows(run)] == [(0.25, 0.5)] * 2


def test_settings_come_from_either_kind_of_configuration() -> None:
    cfg = OmegaConf.create({**SMALL, "replay": {"prefetch": True}, "agent": {"update_every_steps": 3}})
    del cfg["update_every_steps"]
    settings = TrainSettings.from_config(cfg)
    assert settings.prefetch and settings.update_every_steps == 3 and settings.nstep == 3
    assert settings.planned_decisions == settings.replay_capacity() == 120
    assert replace(settings, num_envs=7).planned_decisions == 126
    assert replace(settings, replay_buffer_size=50).replay_capacity() == 50
    for wrong in ({"batch_size": 0}, {"nstep": 1.5}, {"resume": "maybe"}, {"num_envs": True}):
        with pytest.raises(ConfigError, match="is not possible"):
            replace(settings, **wrong)
