"""Run an agent for whole episodes and measure returns and masks; used in training and by ``locoeval.py``.

Episode ``e`` is a pure function of the seed and ``e``: its physics, its colours, its clip. Networks see one
batch size only, because the batch size of a product changes its last bits and the simulator amplifies them.
An episode therefore has the same return whether 1 or 8 environments run side by side, and in which order they
answer does not matter: an environment whose episode has ended begins the next one at once, and while the
networks look at some frames the other environments go on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from common import faults
from common.errors import NonFiniteError
from common.masking import ObservationMasker
from common.seeding import counter_rng, derive_seed
from common.stopping import Stopped
from evaluation.lanes import Answer, Lanes, as_lanes
from evaluation.localisation import PointError
from evaluation.mask_quality import MaskQuality
from wrappers import BatchMasker, FrameStack, MaskMemory

PADDED_BATCH = 8


def fixed_batch(on_gpu: bool) -> int:
    """Return the one batch size of an evaluation.

    A padded batch of 8 costs a GPU next to nothing; on a CPU frames are taken one by one, which is as
    independent of the number of environments and wastes no work on padding.
    """
    return PADDED_BATCH if on_gpu else 1


class ActingAgent(Protocol):
    """What evaluation needs of an agent."""

    def act(self, obs: Any, step: int, eval_mode: bool, state: Any = None) -> np.ndarray:
        """Return float32 (N, A) actions for uint8 (N, 3 * V * k, H, W) observations.

        Args:
            obs: the observations.
            step: agent steps of training so far.
            eval_mode: act by the mean action.
            state: float32 (N, S), proprioception; None where the environment gives none.
        """
        ...


@dataclass(frozen=True)
class StepView:
    """One frame of one episode, for pictures and videos; of V cameras V pictures, axis V first.

    Attributes:
        episode: episode index.
        step: agent step the frame belongs to; 0 is the frame after the reset.
        raw: uint8 ([V,] H, W, 3) RGB, what the simulator showed.
        masked: uint8 ([V,] H, W, 3) RGB, what the agent sees.
        mask: bool ([V,] H, W).
        foreground: bool ([V,] H, W), the simulator's own mask; None where unknown.
    """

    episode: int
    step: int
    raw: np.ndarray
    masked: np.ndarray
    mask: np.ndarray
    foreground: np.ndarray | None = None


@dataclass(frozen=True)
class EpisodeResult:
    """What one episode gave.

    Attributes:
        episode: episode index.
        seed: what seeded its physics.
        episode_return: sum of the rewards, not discounted, not clipped.
        length: agent steps.
        terminated: ended by the task itself, not by the time limit.
        success: the task's own success flag was set at least once; None where the task has none.
        mask_iou, mask_recall, mask_precision: means over the frames (of several cameras: over all views of
            all frames) against the simulator's foreground, in [0, 1]; None where it is unknown.
        empty_share: share of the frames in which the masker found nothing, in [0, 1].
        point_error: mean distance in pixels of the masker's positive points from the body points that the
            reference's points lie on; None where unknown.
    """

    episode: int
    seed: int
    episode_return: float
    length: int
    terminated: bool
    success: bool | None
    mask_iou: float | None
    mask_recall: float | None
    mask_precision: float | None
    empty_share: float
    point_error: float | None = None


def evaluate(
    agent: ActingAgent,
    venv: Any,
    *,
    episodes: int,
    seed: int,
    agent_step: int,
    masker: ObservationMasker | None = None,
    padded_batch: int = PADDED_BATCH,
    frame_stack: int = 3,
    first_episode: int = 0,
    finished: Collection[EpisodeResult] = (),
    on_frame: Callable[[StepView], None] | None = None,
    on_episode: Callable[[EpisodeResult], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> list[EpisodeResult]:
    """Run ``episodes`` episodes with the agent's mean action.

    Args:
        agent: acts on stacks of masked frames.
        venv: ``envs.make_vector_env(...)``, or a ``SyncVectorEnv``; not masked, not stacked.
        episodes: number of episodes, from ``first_episode`` on.
        seed: with the episode index, seeds the physics.
        agent_step: agent steps of training so far, handed to the agent.
        masker: masks the frames; None for no masking (and no measures of masks).
        padded_batch: the one batch size that policy and masker ever see.
        frame_stack: frames per observation.
        first_episode: index of the first episode.
        finished: episodes that need not be played again; their results are returned as they are.
        on_frame: called with every masked frame, in order within an episode.
        on_episode: called when an episode has ended, in whatever order they end.
        should_stop: asked between steps; where it says so, ``Stopped`` is raised.

    Returns:
        One result per episode, in the order of the episode index.

    Raises:
        NonFiniteError: the agent or the simulator produced a value that is not finite.
        Stopped: as ``should_stop`` asked.
    """
    policy, viewer = _PaddedPolicy(agent, padded_batch, agent_step), _Viewer(masker, padded_batch, on_frame)

    def act(runs: Sequence[_Run], answers: Sequence[Answer]) -> list[np.ndarray]:
        frames = viewer.look(runs, answers)
        going = [row for row, run in enumerate(runs) if not run.done]
        stacks = [runs[row].stacked(frames[row], frame_stack) for row in going]
        states = [answers[row][1]["state"] for row in going if "state" in answers[row][1]]
        return policy.act(stacks, states) if going else []

    numbers = range(first_episode, first_episode + episodes)
    results = {result.episode: result for result in finished if result.episode in numbers}
    missing = [number for number in numbers if number not in results]
    for run in _play(as_lanes(venv), missing, seed, padded_batch, act, should_stop):
        results[run.episode] = run.result()
        if on_episode is not None:
            on_episode(results[run.episode])
    return [results[number] for number in numbers]


def random_policy_returns(
    venv: Any,
    *,
    episodes: int,
    seed: int,
    first_episode: int = 0,
    finished: Mapping[int, float] | None = None,
    on_episode: Callable[[int, float], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> list[float]:
    """Return the returns of actions drawn uniformly from the action space, one per episode.

    Args:
        venv: as for ``evaluate``.
        episodes: number of episodes, from ``first_episode`` on.
        seed: of physics and actions.
        first_episode: index of the first episode.
        finished: episode -> return, for episodes that need not be played again.
        on_episode: called with the index and the return of an episode that has ended.
        should_stop: as for ``evaluate``.
    """
    lanes = as_lanes(venv)
    low, high = lanes.single_action_space.low, lanes.single_action_space.high
    draws: dict[int, np.random.Generator] = {}

    def act(runs: Sequence[_Run], answers: Sequence[Answer]) -> list[np.ndarray]:
        going = [run.episode for run in runs if not run.done]
        for episode in going:
            draws.setdefault(episode, counter_rng(seed, "random-policy", episode))
        return [draws[episode].uniform(low, high).astype(np.float32) for episode in going]

    numbers = range(first_episode, first_episode + episodes)
    returns = {number: value for number, value in (finished or {}).items() if number in numbers}
    missing = [number for number in numbers if number not in returns]
    for run in _play(lanes, missing, seed, 1, act, should_stop):
        returns[run.episode] = run.episode_return
        if on_episode is not None:
            on_episode(run.episode, run.episode_return)
    return [returns[number] for number in numbers]


def _play(
    lanes: Lanes,
    episodes: Iterable[int],
    seed: int,
    batch: int,
    act: Callable[[Sequence[_Run], Sequence[Answer]], Sequence[np.ndarray]],
    should_stop: Callable[[], bool] | None,
) -> Iterator[_Run]:
    """Play episodes side by side and yield each when it has ended.

    Every turn takes ``batch`` answers, or as many as there are environments at work: a batch of that size
    costs the same however full it is, and the environments outside of it go on meanwhile. ``act`` returns
    the actions, float32 (A,), of those runs that are not done.
    """
    waiting, running = deque(episodes), {}

    def begin(index: int) -> None:
        if waiting:
            run = running[index] = _Run(waiting.popleft(), seed)
            lanes.begin_episode(index, run.episode, run.seed)

    for index in range(lanes.num_envs):
        begin(index)
    while running:
        if should_stop is not None and should_stop():
            raise Stopped
        answers = lanes.collect(min(batch, len(running)))
        faults.point("evaluate.step")
        runs = [running[answer[0]] for answer in answers]
        for run, answer in zip(runs, answers, strict=True):
            run.count(answer)
            if run.done:
                del running[answer[0]]
                begin(answer[0])
        going = [(run, answer[0]) for run, answer in zip(runs, answers, strict=True) if not run.done]
        for (run, index), action in zip(going, act(runs, answers), strict=True):
            run.check_finite("action", action)
            lanes.send_action(index, action)
        yield from (run for run in runs if run.done)


class _Run:
    """An episode that is being played."""

    def __init__(self, episode: int, seed: int) -> None:
        self.episode, self.seed = episode, derive_seed(seed, "evaluation", episode)
        self.episode_return, self.length = 0.0, 0
        self.terminated, self.done = False, False
        self.success: bool | None = None
        self.quality, self.point_error = MaskQuality(), PointError()
        self.memory = MaskMemory()
        self._stack: FrameStack | None = None

    def count(self, answer: Answer) -> None:
        """Count what the environment answered."""
        _, _, reward, terminated, truncated, info = answer
        if reward is None:
            return
        self.check_finite("reward", reward)
        self.episode_return += float(reward)
        self.length += 1
        self.terminated, self.done = bool(terminated), bool(terminated or truncated)
        if info.get("success") is not None:
            self.success = bool(self.success) or bool(info["success"])

    def stacked(self, frame: np.ndarray, number: int) -> np.ndarray:
        """Put uint8 ([V,] H, W, 3) on the stack and return it, uint8 (3 * V * number, H, W)."""
        if self._stack is None:
            self._stack = FrameStack(number, 1, frame.shape)
            return self._stack.reset(frame[None])[0]
        return self._stack.push(frame[None])[0]

    def check_finite(self, what: str, values: Any) -> None:
        """Raise ``NonFiniteError`` unless all numbers are finite."""
        if not np.isfinite(values).all():
            raise NonFiniteError(
                f"The {what} in evaluation episode {self.episode} is not a finite number.",
                "Use an earlier snapshot; the training that made this one has diverged.",
            )

    def result(self) -> EpisodeResult:
        """Return what the episode gave."""
        return EpisodeResult(
            episode=self.episode,
            seed=self.seed,
            episode_return=self.episode_return,
            length=self.length,
            terminated=self.terminated,
            success=self.success,
            mask_iou=self.quality.mean("iou"),
            mask_recall=self.quality.mean("recall"),
            mask_precision=self.quality.mean("precision"),
            empty_share=self.quality.empty_share,
            point_error=self.point_error.mean,
        )


class _Viewer:
    """Masks the frames, measures the masks, and shows them to whoever wants to see them."""

    def __init__(
        self, masker: ObservationMasker | None, batch: int, on_frame: Callable[[StepView], None] | None
    ) -> None:
        self._masking = BatchMasker(masker, batch_size=batch, keep_points=True) if masker else None
        self._on_frame = on_frame

    def look(self, runs: Sequence[_Run], answers: Sequence[Answer]) -> np.ndarray:
        """Return the masked frames of some runs, uint8 (k, [V,] H, W, 3)."""
        frames = np.stack([answer[1]["pixels"] for answer in answers])
        if self._masking is None:
            return frames
        exact: list[Any] = [answer[-1].get("foreground") for answer in answers]
        foregrounds = None if exact[0] is None else np.stack(exact)
        masked, found = self._masking(frames, foregrounds, [run.memory for run in runs])
        points = found.get("mask_points")
        for i, run in enumerate(runs):
            mask, foreground = found["mask"][i], exact[i]
            run.quality.add_views(mask, foreground, found["mask_empty"][i])
            run.point_error.add(None if points is None else points[i], answers[i][-1].get("anchors"))
            if self._on_frame is not None:
                view = StepView(run.episode, run.length, frames[i], masked[i], mask, foreground)
                self._on_frame(view)
        return masked


class _PaddedPolicy:
    """Calls the agent with one batch size only; spare rows are black."""

    def __init__(self, agent: ActingAgent, batch: int, agent_step: int) -> None:
        self._agent, self._batch, self._step = agent, batch, agent_step

    def act(self, observations: Sequence[np.ndarray], states: Sequence[np.ndarray] = ()) -> list[np.ndarray]:
        """Return float32 (A,) for each of at most one batch of uint8 (C, H, W) and float32 (S,)."""
        state = self._padded(states) if states else None
        actions = self._agent.act(self._padded(observations), self._step, eval_mode=True, state=state)
        return list(actions[: len(observations)])

    def _padded(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        padded = np.zeros((self._batch, *rows[0].shape), dtype=rows[0].dtype)
        padded[: len(rows)] = rows
        return padded
