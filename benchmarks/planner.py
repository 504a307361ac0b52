"""A sampling planner on a dm_control task: it looks ahead in the simulator itself and needs no training.

Every few control steps it perturbs the last plan with smooth noise, rolls each candidate out from the saved
state, mixes the best into a new candidate and keeps the best one seen (predictive sampling with an elite
mean). The score of a candidate is the sum of the task's own rewards and of an optional hint, for rewards that
are zero almost everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from envs.renderer import load_mujoco


@dataclass(frozen=True)
class PlannerSettings:
    """How much a plan costs and how it is drawn.

    Attributes:
        horizon: control steps looked ahead.
        knot: control steps between the knots of the noise, which is linear between them.
        samples: candidates per round.
        rounds: rounds per plan.
        elites: candidates whose mean becomes a candidate of the next round.
        hold: control steps of a plan that are carried out before the next one is made.
        noise: largest standard deviation of a knot, in half widths of the action range.
    """

    horizon: int = 40
    knot: int = 5
    samples: int = 24
    rounds: int = 2
    elites: int = 4
    hold: int = 2
    noise: float = 0.6


class PlannedEpisode:
    """One episode of a task under the planner.

    Args:
        environment: a dm_control environment that was just reset; its physics is stepped.
        settings: of the planner.
        hint: physics -> a number that is added to the task's reward inside plans, never to what is reported.
        rng: draws the noise.
    """

    def __init__(
        self,
        environment: Any,
        settings: PlannerSettings,
        hint: Callable[[Any], float],
        rng: np.random.Generator,
    ) -> None:
        self.task, self.physics = environment.task, environment.physics
        self.substeps = round(environment.control_timestep() / self.physics.timestep())
        self.settings, self.hint, self.rng = settings, hint, rng
        spec = environment.action_spec()
        self.low, self.high = np.asarray(spec.minimum), np.asarray(spec.maximum)
        self.plan = np.zeros((settings.horizon, len(self.low))) + (self.low + self.high) / 2
        self._library = load_mujoco()
        self._kind = int(self._library.mjtState.mjSTATE_INTEGRATION)
        self._between = _between_knots(settings.horizon, settings.knot)
        self._age = settings.hold

    def step(self) -> float:
        """Carry out one control step, after planning when the plan is used up; return the task's reward."""
        if self._age >= self.settings.hold:
            self._improve()
            self._age = 0
        reward = self._apply(self.plan[0])
        self.plan = np.concatenate([self.plan[1:], self.plan[-1:]])
        self._age += 1
        return reward

    def _apply(self, action: np.ndarray) -> float:
        self.task.before_step(action, self.physics)
        self.physics.step(self.substeps)
        return float(self.task.get_reward(self.physics))

    def _save(self) -> np.ndarray:
        """Return everything that decides the future, float64 (S,)."""
        model, data = self.physics.model.ptr, self.physics.data.ptr
        state = np.empty(self._library.mj_stateSize(model, self._kind))
        self._library.mj_getState(model, data, state, self._kind)
        return state

    def _restore(self, state: np.ndarray) -> None:
        model, data = self.physics.model.ptr, self.physics.data.ptr
        self._library.mj_setState(model, data, state, self._kind)
        # dm_control begins a control step with the second half of mj_step and expects the first to be done.
        self._library.mj_step1(model, data)

    def _score(self, state: np.ndarray, actions: np.ndarray) -> float:
        """Roll out actions (T, A) from ``state``; an unstable simulation is the worst score."""
        from dm_control.rl.control import PhysicsError

        self._restore(state)
        total = 0.0
        try:
            for action in actions:
                total += self._apply(action) + self.hint(self.physics)
        except PhysicsError:
            return -np.inf
        return total

    def _improve(self) -> None:
        """Replace the plan by the best candidate found; the simulation is left as it was."""
        settings, state = self.settings, self._save()
        best, best_score = self.plan, self._score(state, self.plan)
        mean: np.ndarray | None = None
        for number in range(settings.rounds):
            candidates = self._candidates(best, 0.5**number)
            if mean is not None:
                candidates[0] = mean
            scores = np.asarray([self._score(state, candidate) for candidate in candidates])
            order = np.argsort(-scores)
            if scores[order[0]] > best_score:
                best, best_score = candidates[order[0]], scores[order[0]]
            mean = candidates[order[: settings.elites]].mean(0)
        self.plan = best
        self._restore(state)

    def _candidates(self, centre: np.ndarray, scale: float) -> np.ndarray:
        """Draw (N, T, A): the centre plus smooth noise, from hardly any to ``noise``."""
        count = self.settings.samples
        width = self.settings.noise * scale * (self.high - self.low) / 2
        spread = np.geomspace(0.1, 1.0, count)[:, None, None]
        knots = self.rng.normal(size=(count, self._between.shape[1], len(self.low))) * spread * width
        return np.clip(centre + self._between @ knots, self.low, self.high)


def _between_knots(horizon: int, knot: int) -> np.ndarray:
    """Return the linear interpolation matrix (T, K) from knots every ``knot`` steps to every step."""
    count = 2 + (horizon - 1) // knot
    steps, places = np.arange(horizon)[:, None] / knot, np.arange(count)[None]
    return np.clip(1 - np.abs(steps - places), 0, None)
