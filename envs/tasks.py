"""The table of tasks: what each name means. It imports no simulator, so that a wrong name costs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from common.errors import ConfigError, nearest, unknown_choice

# The DeepMind Control suite of dm_control 1.0.50; a test compares this table with the package's own.
_SUITE: dict[str, str] = {
    "acrobot": "swingup swingup_sparse",
    "ball_in_cup": "catch",
    "cartpole": "balance balance_sparse swingup swingup_sparse two_poles three_poles",
    "cheetah": "run",
    "dog": "stand walk trot run fetch",
    "finger": "spin turn_easy turn_hard",
    "fish": "upright swim",
    "hopper": "stand hop",
    "humanoid": "stand walk run run_pure_state",
    "humanoid_CMU": "stand walk run",
    "lqr": "lqr_2_1 lqr_6_2",
    "manipulator": "bring_ball bring_peg insert_ball insert_peg",
    "pendulum": "swingup",
    "point_mass": "easy hard",
    "quadruped": "walk run escape fetch",
    "reacher": "easy hard",
    "stacker": "stack_2 stack_4",
    "swimmer": "swimmer6 swimmer15",
    "walker": "stand walk run",
}
# Names that the literature uses -> the suite's own domain.
DOMAIN_ALIASES = {"cup": "ball_in_cup"}
# Camera 0 is too far away from the quadruped (DrQ-v2 and DMC-GB use 2 as well) and sits on the dog's ball.
_CAMERAS = {"quadruped": 2, "dog_fetch": 2}
# Geoms of the world that a task cannot be solved without seeing; a name that begins so is foreground.
_TARGETS = {
    "dog": ("target",),
    "fish": ("target",),
    "manipulator": ("target", "cup_", "slot_"),
    "point_mass": ("target",),
    "reacher": ("target",),
    "stacker": ("target",),
    "swimmer": ("target",),
    "hammer": ("board", "nail_goal"),
    "pen": ("target", "t_", "V_forearm"),  # its forearm is fixed, and part of the hand all the same
    "relocate": ("target",),
}
EPISODE_STEPS = 1000

# The Adroit hand: domain -> cameras of its scene (a test compares), the one that observes, control steps.
_ADROIT: dict[str, tuple[tuple[str, ...], str, int]] = {
    "door": (("fixed", "vil_camera", "top"), "top", 200),
    "hammer": (("fixed", "vil_camera", "top"), "top", 200),
    "pen": (("fixed", "vil_camera", *(f"view_{i}" for i in range(1, 6))), "vil_camera", 100),
    "relocate": (("fixed", "vil_camera", "cam1", "cam2", "cam3"), "cam3", 200),
}

ADROIT_DOMAINS = tuple(_ADROIT)

# The eight tasks of the comparison in SAM-G's tables.
SAMG8 = (
    "walker_walk",
    "walker_stand",
    "cartpole_swingup",
    "cup_catch",
    "finger_spin",
    "cheetah_run",
    "hopper_stand",
    "quadruped_walk",
)


@dataclass(frozen=True)
class Task:
    """One task of a simulator.

    Attributes:
        name: the name it was asked for by, such as ``cup_catch``.
        domain: the simulator's own name of the robot, such as ``ball_in_cup``.
        task: the simulator's own name of the task, such as ``catch``.
        camera: index of the camera that observes.
        horizon: control steps of an episode (not agent steps: those are ``action_repeat`` control steps).
        targets: name prefixes of world geoms (and of sites, where these count) that are foreground.
        suite: the simulator; ``dmc`` is the DeepMind Control suite, ``adroit`` the Adroit hand.
        cameras: names of the cameras in their order; empty where they are known by number only.
    """

    name: str
    domain: str
    task: str
    camera: int = 0
    horizon: int = EPISODE_STEPS
    targets: tuple[str, ...] = ()
    suite: str = "dmc"
    cameras: tuple[str, ...] = ()


def targets_of(domain: str) -> tuple[str, ...]:
    """Return the name prefixes of a domain's world geoms that count as foreground."""
    return _TARGETS.get(domain, ())


def _table() -> dict[str, Task]:
    names = {domain: [domain] for domain in _SUITE}
    for alias, domain in DOMAIN_ALIASES.items():
        names[domain].append(alias)
    return {
        f"{prefix}_{task}": Task(
            f"{prefix}_{task}",
            domain,
            task,
            camera=_CAMERAS.get(f"{domain}_{task}", _CAMERAS.get(domain, 0)),
            targets=targets_of(domain),
        )
        for domain, tasks in _SUITE.items()
        for task in tasks.split()
        for prefix in names[domain]
    }


def _adroit_table() -> dict[str, Task]:
    return {
        f"adroit_{domain}": Task(
            f"adroit_{domain}",
            domain,
            domain,
            camera=cameras.index(camera),
            horizon=horizon,
            targets=targets_of(domain),
            suite="adroit",
            cameras=cameras,
        )
        for domain, (cameras, camera, horizon) in _ADROIT.items()
    }


_TASKS = {**_table(), **_adroit_table()}


def task_names(suite: str | None = None) -> tuple[str, ...]:
    """Return the names of all tasks, or of one suite's, aliases included, sorted."""
    return tuple(sorted(name for name, task in _TASKS.items() if suite in (None, task.suite)))


def find_task(name: str) -> Task:
    """Return the task of that name.

    Raises:
        ConfigError: there is none; the message names the nearest.
    """
    if name not in _TASKS:
        raise unknown_choice("task", name, _TASKS)
    return _TASKS[name]


def find_cameras(task: Task, names: str | Sequence[str] | None) -> int | tuple[int, ...]:
    """Return which cameras observe a task.

    Args:
        task: the task.
        names: of a camera, or of several, in whose order the views come; None for the task's own camera.

    Returns:
        the index of one camera, or those of at least two.

    Raises:
        ConfigError: a name is unknown or comes twice, or there is none.
    """
    if names is None:
        return task.camera
    if isinstance(names, str):
        return find_camera(task, names)
    found = tuple(find_camera(task, str(name)) for name in names)
    if not found or len(set(found)) < len(found):
        fault = "names a camera twice" if found else "names no camera"
        raise ConfigError(
            f"camera={list(names)} {fault}.", f"Name each once; {task.name} has {', '.join(task.cameras)}."
        )
    return found[0] if len(found) == 1 else found


def find_camera(task: Task, name: str) -> int:
    """Return the index of one of a task's cameras.

    Raises:
        ConfigError: the task has no camera of that name; its cameras are named.
    """
    if name in task.cameras:
        return task.cameras.index(name)
    cure = f"{nearest(name, task.cameras)}Choose one of: {', '.join(task.cameras)}."
    if not task.cameras:
        cure = "Its cameras are known by number: use a level such as cam_id_0."
    raise ConfigError(f"{task.name} has no camera '{name}'.", cure)
