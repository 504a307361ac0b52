"""Demonstrations of the hand: recorded, refused, chosen, played for a run; and what a plan counts of them."""

from __future__ import annotations

import functools
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import envs
import record
from common.errors import ConfigError, InputError, SnapshotError
from common.seeding import derive_seed
from evaluation.evaluate import evaluate
from evaluation.run_directory import RunDirectory
from samg.baselines import GroundTruthMasker, NoMasker
from tests.support.demonstrations import write_records
from tests.support.fake_env import FakeVectorEnv, PixelFakeEnv
from training.config import compose_config
from training.demonstrations.reading import planned_transitions, read_demonstrations
from training.demonstrations.recording import attempts_of_agent
from training.demonstrations.run import RunDemonstrations
from training.rules import check_values
from training.sweeps.expand import PlannedRun
from training.sweeps.needs import run_needs

STILL = ("--task", "pen", "--policy", "still", "--seed", "0")
DECISIONS = 50


@pytest.fixture(scope="module")
def pens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of two pens whose target happens to be near."""
    file = tmp_path_factory.mktemp("recorded") / "pen.npz"
    assert record.main([*STILL, "--episodes", "2", "--attempts", "40", "--out", str(file)]) == 0
    return file


def run_of(folder: Path, *overrides: str) -> RunDirectory:
    return RunDirectory(
        folder / "run", compose_config(["task=pen", "masker=none", "image_size=48", *overrides])
    )


def demonstrations(folder: Path, *overrides: str) -> RunDemonstrations:
    return RunDemonstrations(run_of(folder, *overrides), "train", {"image_size": 48})


def door_pickle(folder: Path) -> Path:
    start = {"qpos": np.zeros(30), "qvel": np.zeros(30), "door_body_pos": np.zeros(3)}
    return write_records(
        folder / "door-v0_demos.pickle", [{"init_state_dict": start, "actions": np.zeros((4, 28))}]
    )


# Recording --------------------------------------------------------------------------------------------------


def test_what_succeeds_is_recorded_and_the_same_every_time(pens: Path, tmp_path: Path, capsys: Any) -> None:
    again = tmp_path / "again.npz"
    assert record.main([*STILL, "--episodes", "2", "--attempts", "40", "--out", str(again)]) == 0
    assert "2 successful" in capsys.readouterr().out
    with np.load(pens, allow_pickle=False) as one, np.load(again, allow_pickle=False) as other:
        assert one["successes"].tolist() == [1, 1] and one["lengths"].tolist() == [DECISIONS] * 2
        assert one["start_qpos"].shape == (2, 30) and len(set(one["seeds"].tolist())) == 2
        assert all(np.array_equal(one[name], other[name]) for name in one.files)


def test_other_simulators_are_recorded_by_their_seed(tmp_path: Path) -> None:
    file = tmp_path / "cartpole.npz"
    flags = ("--task", "cartpole_balance", "--episodes", "2", "--action-repeat", "50", "--out", str(file))
    assert record.main([*flags, "--least-return", "1"]) == 0
    found = read_demonstrations(file, 1, task="cartpole_balance")
    assert [(d.action_repeat, len(d.actions), d.start) for d in found] == [(50, 20, {})] * 2
    with np.load(file, allow_pickle=False) as arrays:
        assert arrays["successes"].tolist() == [-1, -1] and arrays["returns"].min() >= 1
    env = envs.make_env("cartpole_balance", action_repeat=50)
    with np.load(file, allow_pickle=False) as arrays:
        assert [env.rehearse(d.actions, d.seed).total_reward for d in found] == arrays["returns"].tolist()
    env.close()


@pytest.mark.parametrize(
    ("flags", "error", "words"),
    [
        (("--task", "pem", "--out", "x.npz"), ConfigError, "Unknown task 'pem'"),
        (("--task", "pen", "--policy", "stil", "--out", "x.npz"), ConfigError, "Did you mean still"),
        (("--task", "pen"), ConfigError, "--out is missing"),
        (("--task", "pen", "--out", "x.pickle"), ConfigError, "does not end in .npz"),
        (("--task", "pen", "--out", "there.npz"), InputError, "exists already"),
        (("--out", "x.npz"), ConfigError, "either --model_dir or --task"),
        (("--task", "pen", "--episodes", "0", "--out", "x.npz"), ConfigError, "--episodes is 0"),
        (("--task", "pen", "--outcome", "sucess", "--out", "x.npz"), ConfigError, "Did you mean success"),
        (("--model_dir", "nowhere", "--out", "x.npz"), SnapshotError, "nowhere does not exist"),
        (("--task", "door", "--attempts", "1", "--out", "x.npz"), InputError, "None of 1 episodes"),
    ],
)
def test_bad_flags_are_one_error_and_write_nothing(
    flags: tuple[str, ...], error: type, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.npz").touch()
    with pytest.raises(error, match=words):
        record.main(list(flags))
    assert [path.name for path in tmp_path.iterdir()] == ["there.npz"]


class Swinging:
    """An agent whose actions depend on what it sees."""

    def act(self, obs: Any, step: int, eval_mode: bool, state: Any = None) -> np.ndarray:
        return np.sin(obs.reshape(len(obs), -1).astype(np.float32) @ np.arange(obs[0].size)).astype(
            np.float32
        )[:, None]


def test_an_agents_episodes_are_recorded_as_an_evaluation_plays_them() -> None:
    options: dict[str, Any] = {"masker": NoMasker(), "frame_stack": 1, "padded_batch": 1, "agent_step": 0}
    results = evaluate(Swinging(), FakeVectorEnv(1), episodes=5, seed=4, **options)
    frames: list[int] = []
    attempts = attempts_of_agent(Swinging(), FakeVectorEnv(2), 4, lambda: frames.append(1), **options)
    for result in results:
        seed, actions = next(attempts)
        assert seed == result.seed == derive_seed(4, "evaluation", result.episode) and len(actions) == 20
        env = PixelFakeEnv()
        env.episode = result.episode
        env.reset(seed=seed)
        assert sum(env.step(action)[1] for action in actions) == pytest.approx(result.episode_return)
    assert len(frames) == 6 * 21


# Runs -------------------------------------------------------------------------------------------------------


def test_a_run_without_demonstrations_has_none(tmp_path: Path) -> None:
    assert demonstrations(tmp_path).episodes(NoMasker(), FakeVectorEnv, "cpu") == []  # type: ignore[arg-type]


def test_episodes_are_drawn_masked_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMG_CACHE", str(tmp_path / "cache"))
    made: list[Any] = []

    def make_venv(count: int, **options: Any) -> Any:
        made.append((count, options))
        one = functools.partial(
            envs.make_env, "adroit_door", image_size=48, foreground=True, fast_render=True, **options
        )
        return SyncVectorEnv([one] * count, autoreset_mode=AutoresetMode.DISABLED)

    file = door_pickle(tmp_path)
    options = ("task=door", "demonstration_filter.outcome=any", "num_envs=4")
    given = demonstrations(tmp_path, f"demonstrations={file}", *options)
    assert not (tmp_path / "run").exists()
    (episode,) = given.episodes(GroundTruthMasker(), make_venv, "cpu")  # type: ignore[arg-type]
    assert made == [(1, {"action_repeat": 1, "horizon": 4})]
    assert episode.frames.shape == (5, 3, 48, 48) and episode.state.shape == (5, 24)
    assert 0.3 < (episode.frames == 0).all(axis=1).mean() < 0.99
    with closing(envs.make_env("adroit_door", action_repeat=1)) as env:
        (chosen,) = given.chosen
        assert episode.total_reward == pytest.approx(
            env.rehearse(chosen.actions, 0, chosen.start).total_reward
        )
    (again,) = given.episodes(GroundTruthMasker(), make_venv, "cpu")  # type: ignore[arg-type]
    assert len(made) == 1 and np.array_equal(again.frames, episode.frames)


def test_what_is_kept_is_told_apart_by_what_it_follows_from(pens: Path, tmp_path: Path) -> None:
    file = f"demonstrations={pens}"
    keys = [
        demonstrations(tmp_path, file).key(NoMasker()),
        demonstrations(tmp_path, file).key(GroundTruthMasker()),
        demonstrations(tmp_path, file, "demonstration_filter.most=1").key(NoMasker()),
        demonstrations(tmp_path, file, "fast_render=true").key(NoMasker()),
        RunDemonstrations(run_of(tmp_path, file, "image_size=84"), "train", {}).key(NoMasker()),
        *(
            RunDemonstrations(run_of(tmp_path, file, f"seed={n}"), "color_easy", {}).key(NoMasker())
            for n in (0, 1)
        ),
    ]
    assert all(one != other for n, one in enumerate(keys) for other in keys[:n])
    assert demonstrations(tmp_path, file, "seed=5", "num_envs=3").key(NoMasker()) == keys[0]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["demonstrations={pens}", "task=door"], "of adroit_pen, not of adroit_door"),
        (["demonstrations={pens}", "task=walker_walk"], "of adroit_pen, not of walker_walk"),
        (["demonstrations={pickle}"], "actions of 28 numbers instead of 24"),
        (["demonstrations={pens}", "demonstration_filter.least_return=1000"], "None of 2 .* at least 1000"),
        (["demonstrations={pickle}.gz"], "do not exist"),
    ],
)
def test_what_a_run_cannot_begin_with_is_one_error(
    overrides: list[str], words: str, pens: Path, tmp_path: Path
) -> None:
    filled = [text.format(pens=pens, pickle=door_pickle(tmp_path)) for text in overrides]
    with pytest.raises(InputError, match=words):
        demonstrations(tmp_path, *filled)
    assert not (tmp_path / "run").exists()


def test_a_failed_door_is_kept_only_on_request(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = door_pickle(tmp_path)
    with pytest.raises(InputError, match="None of 1 demonstrations succeeds"):
        demonstrations(tmp_path, "task=door", f"demonstrations={file}")
    given = demonstrations(
        tmp_path, "task=door", f"demonstrations={file}", "demonstration_filter.outcome=any"
    )
    assert len(given.chosen) == 1 and given.chosen[0].action_repeat == 1


def test_a_run_that_goes_on_needs_the_file_no_more(tmp_path: Path) -> None:
    (tmp_path / "run" / "snapshots" / "step_0000000001").mkdir(parents=True)
    demonstrations(tmp_path, "demonstrations=gone.npz")
    config = compose_config(["task=pen", "masker=none", "demonstrations=gone.npz", "num_train_frames=10000"])
    run = PlannedRun((), "x", config)
    assert run_needs(run, tmp_path / "run", None, False).left > 0
    manifest = tmp_path / "run" / "snapshots" / "step_0000000001" / "manifest.json"
    manifest.write_text('{"demonstrated": 150}')
    assert planned_transitions(config, tmp_path / "run") == 150
    with pytest.raises(InputError, match=r"gone\.npz"):
        run_needs(run, tmp_path / "other", None, False)


@pytest.mark.parametrize(
    "override",
    ["demonstrations=3", "demonstration_filter.outcome=good", "demonstration_filter.most=0",
     "demonstration_filter.least_return=high"],
)  # fmt: skip
def test_impossible_settings_are_refused(override: str) -> None:
    with pytest.raises(ConfigError, match=override.partition("=")[0]):
        check_values(compose_config(["task=pen", "masker=none", override]))


def test_plans_count_them(pens: Path, tmp_path: Path) -> None:
    config = ["task=pen", "masker=none", f"demonstrations={pens}", "num_train_frames=10000"]
    assert planned_transitions(compose_config(config[:2]), tmp_path) == 0
    assert planned_transitions(compose_config(config), tmp_path) == 2 * DECISIONS
    assert (
        planned_transitions(compose_config([*config, "demonstration_filter.most=1"]), tmp_path) == DECISIONS
    )
    plain, seeded = (
        run_needs(PlannedRun((), "x", compose_config(overrides)), tmp_path, None, False)
        for overrides in ([*config, "demonstrations=null"], config)
    )
    assert seeded.memory - plain.memory >= 2 * DECISIONS * 3 * 160 * 160 and seeded.disk > plain.disk
