"""Planned poses: the shipped file fits the models and shows competent agents; the planner; bad files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import planned_poses
from benchmarks.planned_poses import POSES_FILE, RECIPES, Recipe, load_planned, plan_poses, save_planned
from benchmarks.planner import PlannedEpisode, PlannerSettings, _between_knots
from common.errors import ConfigError, InputError
from common.files import read_json
from common.seeding import counter_rng
from envs.pretraining_frames import POSE_TASKS

SMALL = PlannerSettings(horizon=8, samples=4, rounds=2, elites=2)


def physics_of(domain: str) -> Any:
    return planned_poses._load_task(domain, 0).physics


def placed(domain: str) -> Iterator[tuple[Any, np.ndarray]]:
    """Yield the simulation in every pose of a domain, and the pose."""
    physics = physics_of(domain)
    for pose in load_planned(domain, physics.model.nq):
        physics.data.ptr.qpos[:] = pose
        physics.forward()
        yield physics, pose


@pytest.mark.parametrize("domain", POSE_TASKS)
def test_poses_fit_the_models(domain: str) -> None:
    poses = load_planned(domain)
    assert poses.dtype == np.float64 and poses.shape == (60, physics_of(domain).model.nq)
    assert np.isfinite(poses).all()
    assert len(np.unique(poses, axis=0)) == 60
    record = read_json(POSES_FILE.with_suffix(".json"))["domains"][domain]
    assert record["poses"] == 60 and record["task"] == POSE_TASKS[domain] and record["mean_reward"] > 0.4


def test_file_is_small() -> None:
    assert POSES_FILE.stat().st_size < 50_000


def test_poses_are_those_of_competent_agents() -> None:
    """What can be read off a pose: heights, the pole up, the ball in the cup."""
    walker = [physics.torso_height() for physics, _ in placed("walker")]
    assert np.median(walker) > 1.0 and min(walker) > 0.7
    assert np.median([physics.named.data.xmat["torso", "zz"] for physics, _ in placed("quadruped")]) > 0.8
    assert np.mean([physics.height() > 0.6 for physics, _ in placed("hopper")]) > 0.9
    assert np.mean([physics.in_target() for physics, _ in placed("ball_in_cup")]) > 0.9
    assert np.median([physics.pole_angle_cosine()[0] for physics, _ in placed("cartpole")]) > 0.9
    lowest = [physics.named.data.xmat["torso", "zz"] for physics, _ in placed("cheetah")]
    assert np.median(lowest) > 0.5


def test_knots_are_joined_by_lines() -> None:
    between = _between_knots(11, 4)
    values = np.random.default_rng(0).normal(size=between.shape[1])
    wanted = np.interp(np.arange(11), 4 * np.arange(len(values)), values)
    np.testing.assert_allclose(between @ values, wanted)


def test_planning_leaves_the_simulation_alone_and_improves_the_score() -> None:
    environment = planned_poses._load_task("cartpole", 3)
    environment.reset()
    episode = PlannedEpisode(environment, SMALL, lambda physics: 0.0, counter_rng(0, "test"))
    state, first = episode._save(), episode.plan.copy()
    before = episode._score(state, first)
    episode._restore(state)
    episode._improve()
    np.testing.assert_array_equal(episode._save(), state)
    assert episode._score(state, episode.plan) >= before
    again = episode._score(state, episode.plan)
    assert again == episode._score(state, episode.plan), "a rollout depends on more than the saved state"


def test_restored_states_have_the_same_future() -> None:
    """The controlled quadruped has activations and contacts: rollouts must not leak into what follows."""
    rewards = []
    for rehearse in (False, True):
        environment = planned_poses._load_task("quadruped", 1)
        environment.reset()
        episode = PlannedEpisode(environment, SMALL, lambda physics: 0.0, counter_rng(0, "test"))
        actions = counter_rng(1, "actions").uniform(-1, 1, (12, 12))
        for action in actions[:6]:
            episode._apply(action)
        if rehearse:
            state = episode._save()
            episode._score(state, -actions)
            episode._restore(state)
        rewards.append([episode._apply(action) for action in actions[6:]])
    np.testing.assert_allclose(rewards[0], rewards[1], rtol=1e-9)


def test_planning_is_seeded_and_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe(
        SMALL, decent=0.5, window=2, every=3, per_episode=2, limit=12, start=planned_poses._crouch
    )
    monkeypatch.setitem(RECIPES, "hopper", recipe)
    lines: list[str] = []
    poses, record = plan_poses("hopper", 3, 5, lines.append)
    again, _ = plan_poses("hopper", 3, 5, lines.append)
    other, _ = plan_poses("hopper", 3, 6, lines.append)
    assert np.array_equal(poses, again) and not np.array_equal(poses, other)
    assert poses.shape == (3, 7) and poses.dtype == np.float32
    assert record["poses"] == 3 and record["episodes"] == 2 and len(lines) == 6
    assert record["mean_reward"] > 0.5 and record["start"] == "crouching"


def test_hopeless_domains_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RECIPES, "cartpole", Recipe(SMALL, decent=2.0, limit=10, per_episode=1))
    with pytest.raises(ConfigError, match="never reached"):
        plan_poses("cartpole", 1, 0, str)
    with pytest.raises(ConfigError, match="Unknown domain 'unicycle'"):
        plan_poses("unicycle", 1, 0, str)


def test_unusable_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "poses.npz"
    with pytest.raises(InputError, match="cannot be read"):
        load_planned("walker", path=path)
    save_planned(path, {"walker": np.zeros((4, 9), np.float32), "hopper": np.zeros((4, 6))}, 0, {})
    assert load_planned("walker", path=path).shape == (4, 9)
    with pytest.raises(InputError, match="no poses of domain 'finger'"):
        load_planned("finger", path=path)
    with pytest.raises(InputError, match=r"shape \(4, 6\), expected \(P, 7\)"):
        load_planned("hopper", path=path)
    with pytest.raises(InputError, match="no poses of domain 'seed'"):
        load_planned("seed", 1, path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match="cannot be read"):
        load_planned("walker", path=path)
