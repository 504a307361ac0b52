"""What the four Adroit tasks reward, when they count as solved, and how their episodes begin.

The numbers are those of the environments that VRL3, RL-ViGen and SAM-G train in (mj_envs with its sparse
rewards, scaled by VRL3), as their public code states them. gymnasium-robotics, whose scenes are used, rewards
otherwise: docs/fidelity.md lists the differences. Rewards are functions of one or two measured numbers, and
the classes say how these are measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    import mujoco

PEN_LENGTH = 0.13  # metres between the two marks of the pen, and of its target


@dataclass(frozen=True)
class Outcome:
    """What one control step came to.

    Attributes:
        reward: scaled as VRL3 does.
        goal: the goal is reached at this moment.
        failed: the task is lost, and the episode over.
    """

    reward: float
    goal: bool
    failed: bool = False


def door_outcome(hinge: float) -> Outcome:
    """Judge a door that is open by ``hinge`` radians (closed 0, range 0 to 1.57)."""
    reward = -0.1 * (hinge - 1.57) ** 2 + 2.0 * (hinge > 0.2) + 8.0 * (hinge > 1.0) + 10.0 * (hinge > 1.35)
    return Outcome(reward / 20.0, goal=hinge > 1.4)


def hammer_outcome(distance: float) -> Outcome:
    """Judge a nail whose head is ``distance`` metres from where it belongs."""
    reward = -10.0 * distance + 25.0 * (distance < 0.020) + 75.0 * (distance < 0.010)
    return Outcome(reward / 100.0, goal=distance < 0.010)


def pen_outcome(distance: float, cosine: float, height: float) -> Outcome:
    """Judge a pen.

    Args:
        distance: metres from where it is to be held.
        cosine: of the angle between the pen and its target.
        height: metres above the table; below 0.075 it has been dropped.
    """
    held = distance < 0.075 and cosine > 0.95
    # The goal asks for the direction alone, although the reward asks for the place as well.
    return Outcome(50.0 * held / 50.0, goal=cosine > 0.95, failed=height < 0.075)


def relocate_outcome(distance: float) -> Outcome:
    """Judge a ball that is ``distance`` metres from its target."""
    return Outcome((10.0 * (distance < 0.1) + 20.0 * (distance < 0.05)) / 30.0, goal=distance < 0.1)


class AdroitTask(Protocol):
    """One task.

    Attributes:
        hand: which part of ``qpos`` are the 24 joints of wrist and fingers.
        goal_steps: an episode with more control steps at the goal is a success.
    """

    hand: slice
    goal_steps: int

    def place(self, model: mujoco.MjModel, rng: np.random.Generator) -> None:
        """Put what an episode begins with where ``rng`` says; the hand begins at rest."""
        ...

    def placed(self, model: mujoco.MjModel) -> dict[str, np.ndarray]:
        """Return the parts of ``model`` that ``place`` sets, float64 views, under DAPG's names."""
        ...

    def judge(self, data: mujoco.MjData) -> Outcome:
        """Judge the present state.

        Places are read as the last simulation step left them, one step (2 ms) behind the joints, as in the
        environments of the papers.
        """
        ...


class Door:
    """Turn the latch and open the door."""

    hand = slice(4, -2)
    goal_steps = 25

    def place(self, model: mujoco.MjModel, rng: np.random.Generator) -> None:
        """Stand the door somewhere."""
        model.body("frame").pos[:] = rng.uniform((-0.3, 0.25, 0.252), (-0.2, 0.35, 0.35))

    def placed(self, model: mujoco.MjModel) -> dict[str, np.ndarray]:
        """Return where the door stands."""
        return {"door_body_pos": model.body("frame").pos}

    def judge(self, data: mujoco.MjData) -> Outcome:
        """Judge by the hinge."""
        return door_outcome(float(data.joint("door_hinge").qpos[0]))


class Hammer:
    """Drive the nail into the board."""

    hand = slice(2, -7)
    goal_steps = 25

    def place(self, model: mujoco.MjModel, rng: np.random.Generator) -> None:
        """Hang the board at some height."""
        model.body("nail_board").pos[2] = rng.uniform(0.1, 0.25)

    def placed(self, model: mujoco.MjModel) -> dict[str, np.ndarray]:
        """Return where the board hangs."""
        return {"board_pos": model.body("nail_board").pos}

    def judge(self, data: mujoco.MjData) -> Outcome:
        """Judge by the nail's head."""
        return hammer_outcome(_distance(data.site("S_target").xpos, data.site("nail_goal").xpos))


class Pen:
    """Turn the pen in the hand until it points as its target does."""

    hand = slice(0, -6)
    goal_steps = 20

    def place(self, model: mujoco.MjModel, rng: np.random.Generator) -> None:
        """Turn the target: first about y, then about x, each by up to a radian."""
        x, y = rng.uniform(-1.0, 1.0, 2) / 2
        model.body("target").quat[:] = (
            math.cos(x) * math.cos(y),
            math.sin(x) * math.cos(y),
            math.cos(x) * math.sin(y),
            math.sin(x) * math.sin(y),
        )

    def placed(self, model: mujoco.MjModel) -> dict[str, np.ndarray]:
        """Return how the target is turned, as a quaternion."""
        return {"desired_orien": model.body("target").quat}

    def judge(self, data: mujoco.MjData) -> Outcome:
        """Judge by the pen's place and direction."""
        pen = data.body("Object").xpos
        directions = [
            (data.site(f"{name}_top").xpos - data.site(f"{name}_bottom").xpos) / PEN_LENGTH
            for name in ("object", "target")
        ]
        cosine = float(directions[0] @ directions[1])
        return pen_outcome(_distance(pen, data.site("eps_ball").xpos), cosine, float(pen[2]))


class Relocate:
    """Pick the ball up and carry it to the target."""

    hand = slice(6, -6)
    goal_steps = 25

    def place(self, model: mujoco.MjModel, rng: np.random.Generator) -> None:
        """Lay the ball on the table and hang the target above it."""
        model.body("Object").pos[:2] = rng.uniform((-0.15, -0.15), (0.15, 0.3))
        model.site("target").pos[:] = rng.uniform((-0.2, -0.2, 0.15), (0.2, 0.2, 0.35))

    def placed(self, model: mujoco.MjModel) -> dict[str, np.ndarray]:
        """Return where ball and target are."""
        return {"obj_pos": model.body("Object").pos, "target_pos": model.site("target").pos}

    def judge(self, data: mujoco.MjData) -> Outcome:
        """Judge by the ball's place."""
        return relocate_outcome(_distance(data.body("Object").xpos, data.site("target").xpos))


ADROIT_TASKS: Mapping[str, AdroitTask] = {
    "door": Door(),
    "hammer": Hammer(),
    "pen": Pen(),
    "relocate": Relocate(),
}


def _distance(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.linalg.norm(first - second))
