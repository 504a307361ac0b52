"""Poses of a competent controller in every domain, so that masks are measured where policies take the agent.

    python -m benchmarks.planned_poses         # writes benchmarks/data/planned_poses.npz and .json

No trained agent is needed: a sampling planner (benchmarks/planner.py) solves each task in the simulator from
random starts, and joint positions are recorded while the task's own reward is high. The JSON beside the file
says how high. The finger's, the cup's and the hopper's rewards are zero almost everywhere, so that plans also
follow a hint; the planner does not rise from the floor with the hopper, which therefore starts in a crouch.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

os.environ.setdefault("MUJOCO_GL", "egl")

import numpy as np

from benchmarks.planner import PlannedEpisode, PlannerSettings
from common.errors import ConfigError, InputError, run_script, unknown_choice
from common.files import atomic_path, write_json
from common.paths import PROJECT_ROOT, output_path
from common.seeding import counter_rng, derive_seed
from common.versions import made_with
from envs.pretraining_frames import POSE_TASKS
from envs.renderer import load_mujoco
from envs.tasks import find_task

POSES_FILE = PROJECT_ROOT / "benchmarks" / "data" / "planned_poses.npz"
_AGAIN = "Make the file again: python -m benchmarks.planned_poses"


def _no_hint(physics: Any) -> float:
    return 0.0


def _cup_hint(physics: Any) -> float:
    return -float(np.linalg.norm(physics.ball_to_target()))


def _finger_hint(physics: Any) -> float:
    return 0.3 * float(np.clip(-physics.hinge_velocity() / 16, -1, 1))


def _hopper_hint(physics: Any) -> float:
    """Stay up, level and over the foot, also with the speed that the body has."""
    data = physics.named.data
    ahead = data.subtree_com["torso", "x"] + 0.3 * physics.speed() - data.xipos["foot", "x"]
    level = 0.4 * data.xmat["torso", "zz"] + 0.3 * data.xmat["foot", "zz"]
    return float(0.8 * min(physics.height(), 0.75) + level - min(1.0, abs(ahead)))


def _as_reset(physics: Any, rng: np.random.Generator) -> None:
    """Keep the task's own random start."""


def _crouch(physics: Any, rng: np.random.Generator) -> None:
    """Set the hopper on its flat foot with bent joints, balanced and tall enough for its task."""
    joints, data = physics.named.data.qpos, physics.named.data
    while True:
        joints["rooty"], joints["waist"] = rng.normal(0, 0.15, 2)
        joints["hip"], joints["knee"] = rng.uniform(-1.4, -0.1), rng.uniform(0.2, 2.0)
        joints["ankle"] = -sum(joints[name].item() for name in ("rooty", "waist", "hip", "knee"))
        physics.forward()
        off = abs(data.subtree_com["torso", "x"] - data.xipos["foot", "x"])
        if abs(joints["ankle"].item()) < 0.75 and off < 0.08 and 0.65 < physics.height() < 0.95:
            break
    joints["rootz"] += 0.045 - data.xipos["foot", "z"]
    physics.forward()


@dataclass(frozen=True)
class Recipe:
    """How the poses of a domain are made.

    Attributes:
        planner: its settings.
        decent: smallest mean reward of the last ``window`` control steps at which a pose is recorded.
        window: control steps of that mean.
        every: control steps between recorded poses.
        per_episode: poses of one episode.
        limit: control steps after which an episode is given up.
        hint: guides plans where the reward is zero.
        start: changes the task's random start.
    """

    planner: PlannerSettings = field(default_factory=PlannerSettings)
    decent: float = 0.8
    window: int = 10
    every: int = 5
    per_episode: int = 10
    limit: int = 150
    hint: Callable[[Any], float] = _no_hint
    start: Callable[[Any, np.random.Generator], None] = _as_reset


RECIPES = {
    "walker": Recipe(),
    "cartpole": Recipe(PlannerSettings(horizon=150, knot=15, samples=16, hold=6), every=10, limit=400),
    "ball_in_cup": Recipe(hint=_cup_hint, every=3, per_episode=8, limit=120),
    "finger": Recipe(
        PlannerSettings(horizon=45, samples=40, noise=1.0, hold=1, elites=6),
        decent=0.4,
        every=3,
        hint=_finger_hint,
    ),
    "cheetah": Recipe(
        PlannerSettings(horizon=50, knot=4, samples=48), decent=0.5, every=7, per_episode=12, limit=300
    ),
    "hopper": Recipe(every=8, per_episode=8, limit=120, hint=_hopper_hint, start=_crouch),
    "quadruped": Recipe(),
}


def plan_poses(
    domain: str, count: int, seed: int, show: Callable[[str], None] = print
) -> tuple[np.ndarray, dict[str, Any]]:
    """Let the planner solve a domain's task and record joint positions.

    Args:
        domain: a key of ``POSE_TASKS``.
        count: how many poses; fewer come back when twice the planned episodes do not give as many.
        seed: of the starts and of the planner's noise.
        show: receives one line per episode.

    Returns:
        Poses, float32 (P, nq), and the record: rewards, episodes, settings.

    Raises:
        ConfigError: the domain is unknown, or no episode reached a decent reward.
    """
    if domain not in RECIPES:
        raise unknown_choice("domain", domain, RECIPES)
    recipe, environment = RECIPES[domain], _load_task(domain, derive_seed(seed, f"starts/{domain}"))
    poses: list[np.ndarray] = []
    at_poses: list[float] = []
    rewards: list[float] = []
    episodes, begin = 0, time.process_time()
    while len(poses) < count and episodes < 2 * -(-count // recipe.per_episode):
        rng = counter_rng(seed, f"planned/{domain}", episodes)
        wanted = min(recipe.per_episode, count - len(poses))
        found = _episode(environment, recipe, wanted, rng)
        poses, at_poses, rewards = poses + found[0], at_poses + found[1], rewards + found[2]
        episodes += 1
        mean = np.mean(found[1]) if found[1] else float("nan")
        show(f"{domain} {len(poses)}/{count}: {len(found[2])} steps, reward {mean:.2f} at its poses")
    if not poses:
        raise ConfigError(
            f"The planner never reached a mean reward of {recipe.decent} in domain '{domain}'.",
            "Try another seed, or give it more samples in RECIPES.",
        )
    return np.stack(poses).astype(np.float32), {
        "task": POSE_TASKS[domain],
        "poses": len(poses),
        "mean_reward": round(float(np.mean(at_poses)), 4),
        "mean_reward_of_all_steps": round(float(np.mean(rewards)), 4),
        "control_steps": len(rewards),
        "episodes": episodes,
        "cpu_seconds": round(time.process_time() - begin, 1),
        "recorded_above": recipe.decent,
        "planner": asdict(recipe.planner),
        "hint": recipe.hint is not _no_hint,
        "start": "the task's own" if recipe.start is _as_reset else "crouching",
    }


def _load_task(domain: str, seed: int) -> Any:
    load_mujoco()
    from dm_control import suite

    task = find_task(POSE_TASKS[domain])
    return suite.load(task.domain, task.task, task_kwargs={"random": seed})


def _episode(
    environment: Any, recipe: Recipe, wanted: int, rng: np.random.Generator
) -> tuple[list[np.ndarray], list[float], list[float]]:
    """Play until ``wanted`` poses are found; return poses, the rewards at them, and every step's reward."""
    environment.reset()
    recipe.start(environment.physics, rng)
    episode = PlannedEpisode(environment, recipe.planner, recipe.hint, rng)
    poses: list[np.ndarray] = []
    at_poses: list[float] = []
    rewards: list[float] = []
    for step in range(1, recipe.limit + 1):
        rewards.append(episode.step())
        recent = rewards[-recipe.window :]
        if step % recipe.every == 0 and step >= recipe.window and np.mean(recent) >= recipe.decent:
            poses.append(environment.physics.data.qpos.copy())
            at_poses.append(rewards[-1])
        if len(poses) == wanted:
            break
    return poses, at_poses, rewards


def load_planned(domain: str, nq: int | None = None, path: Path = POSES_FILE) -> np.ndarray:
    """Return a domain's planned poses, float64 (P, nq), each a whole ``data.qpos``.

    Args:
        domain: a key of ``POSE_TASKS``.
        nq: of the model the poses are for; by default, of the domain's own model, which is loaded for it.
        path: what this module's command wrote.

    Raises:
        InputError: the file is missing or damaged, lacks the domain, or its poses fit another model.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            found = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise InputError(f"The planned poses {path} cannot be read ({error}).", _AGAIN) from error
    if domain not in POSE_TASKS or domain not in found:
        raise InputError(f"{path} has no poses of domain '{domain}'.", _AGAIN)
    poses = found[domain]
    wanted = nq if nq is not None else int(_load_task(domain, 0).physics.model.nq)
    if poses.ndim != 2 or poses.shape[1] != wanted:
        raise InputError(
            f"The poses of domain '{domain}' in {path} have shape {poses.shape}, expected (P, {wanted}).",
            _AGAIN,
        )
    return poses.astype(np.float64)


def save_planned(path: Path, poses: dict[str, np.ndarray], seed: int, record: dict[str, Any]) -> None:
    """Write the poses (npz: one array per domain and ``seed``) and the record (JSON of the same name)."""
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, seed=np.int64(seed), **poses)  # type: ignore[arg-type]
    made = made_with(("mujoco", "dm_control", "numpy"))
    write_json(path.with_suffix(".json"), {"seed": seed, **made, "domains": record})


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", default=str(POSES_FILE), help="the .npz to write; a .json comes beside it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--poses", type=int, default=60, help="per domain")
    parser.add_argument(
        "--domains", nargs="+", default=list(POSE_TASKS), choices=list(POSE_TASKS), metavar="DOMAIN"
    )
    chosen = parser.parse_args()
    if chosen.poses < 1 or Path(chosen.out).suffix != ".npz":
        raise ConfigError(f"--poses {chosen.poses} --out {chosen.out}.", "Ask for a pose or more and a .npz.")
    return chosen


def main() -> None:
    """Plan, report, save."""
    chosen = parse()
    poses, record = {}, {}
    for domain in chosen.domains:
        poses[domain], record[domain] = plan_poses(
            domain, chosen.poses, chosen.seed, lambda line: print(line, flush=True)
        )
        print(
            f"{domain}: {len(poses[domain])} poses, reward {record[domain]['mean_reward']:.3f} per step at "
            f"them, {record[domain]['mean_reward_of_all_steps']:.3f} over all steps",
            flush=True,
        )
    save_planned(output_path(chosen.out), poses, chosen.seed, record)


if __name__ == "__main__":
    run_script(main)
