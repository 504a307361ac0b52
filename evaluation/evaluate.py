"""Run an agent for whole episodes and measure returns and masks; used in training and by ``locoeval.py``.

Episode ``e`` is a pure function of the seed and ``e``: its physics, its colours, its clip. Networks see one
batch size only, because the batch size of a product changes its last bits and the simulator amplifies them.
An episode therefore has the same return whether 1 or 8 environments run side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from common.errors import NonFiniteError
from common.masking import ObservationMasker
from common.seeding import counter_rng, derive_seed
from evaluation.mask_quality import MaskQuality
from wrappers import FrameStack, MaskObservation, MaskVector

PADDED_BATCH = 8


def fixed_batch(on_gpu: bool) -> int:
    """Return the one batch size of an evaluation.

    A padded batch of 8 costs a GPU next to nothing; on a CPU frames are taken one by one, which is as
    independent of the number of environments and wastes no work on padding.
    """
    return PADDED_BATCH if on_gpu else 1


class ActingAgent(Protocol):
    """What evaluation needs of an agent."""

    def act(self, obs: Any, step: int, eval_mode: bool) -> np.ndarray:
        """Return float32 (N, A) actions for uint8 (N, 3 * k, H, W) observations."""
        ...


@dataclass(frozen=True)
class StepView:
    """One frame of one episode, for pictures and videos.

    Attributes:
        episode: episode index.
        step: agent step the frame belongs to; 0 is the frame after the reset.
        raw: uint8 (H, W, 3) RGB, what the simulator showed.
        masked: uint8 (H, W, 3) RGB, what the agent sees.
        mask: bool (H, W).
        foreground: bool (H, W), the simulator's own mask; None where unknown.
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
        mask_iou, mask_recall, mask_precision: means over the frames against the simulator's foreground,
            in [0, 1]; None where it is unknown.
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
    on_frame: Callable[[StepView], None] | None = None,
    on_episode: Callable[[EpisodeResult], None] | None = None,
) -> list[EpisodeResult]:
    """Run ``episodes`` episodes with the agent's mean action.

    Args:
        agent: acts on stacks of masked frames.
        venv: vector environment with autoreset disabled; wrapped by ``wrappers.MaskObservation`` already, or
            else wrapped here with ``masker``.
        episodes: number of episodes, from ``first_episode`` on.
        seed: with the episode index, seeds the physics.
        agent_step: agent steps of training so far, handed to the agent.
        masker: masks the frames of a ``venv`` that is not wrapped; None for no masking.
        padded_batch: the one batch size that policy and masker ever see.
        frame_stack: frames per observation.
        on_frame: called with every frame of every counted episode, in order within an episode. Needs the raw
            frames: a wrapper made by the caller must keep them (``keep_raw=True``).
        on_episode: called when an episode has ended.

    Returns:
        One result per episode, in the order of the episode index.

    Raises:
        NonFiniteError: the agent or the simulator produced a value that is not finite.
    """
    policy = _PaddedPolicy(agent, padded_batch, agent_step)
    if masker is not None and not isinstance(venv, MaskVector):
        venv = MaskObservation(venv, masker, keep_raw=on_frame is not None, batch_size=padded_batch)
    results: list[EpisodeResult] = []
    last = first_episode + episodes
    for start in range(first_episode, last, venv.num_envs):
        wave = _Wave(range(start, start + venv.num_envs), last, seed, on_frame)
        stack: FrameStack | None = None
        for actions, frames in _play(venv, wave):
            if stack is None:
                stack = FrameStack(frame_stack, venv.num_envs, frames.shape[1:])
                obs = stack.reset(frames, np.ones(venv.num_envs, dtype=bool))
            else:
                obs = stack.push(frames)
            actions[:] = policy.act(obs)
            _check_finite("action", actions, wave)
        finished = wave.results()
        results += finished
        for result in finished:
            if on_episode is not None:
                on_episode(result)
    return results


def random_policy_returns(venv: Any, *, episodes: int, seed: int, first_episode: int = 0) -> list[float]:
    """Return the returns of actions drawn uniformly from the action space, one per episode.

    ``venv`` needs no masker: the actions do not look at the frames.
    """
    returns: list[float] = []
    last = first_episode + episodes
    low, high = venv.single_action_space.low, venv.single_action_space.high
    for start in range(first_episode, last, venv.num_envs):
        wave = _Wave(range(start, start + venv.num_envs), last, seed, None)
        draws = [counter_rng(seed, "random-policy", episode) for episode in wave.episodes]
        for actions, _ in _play(venv, wave):
            for row, generator in zip(actions, draws, strict=True):
                row[:] = generator.uniform(low, high)
        returns += [result.episode_return for result in wave.results()]
    return returns


def _play(venv: Any, wave: _Wave) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Step ``venv`` until the wave's counted episodes have ended.

    Yields an action array, float32 (N, A), which the caller fills in place before it asks for more, and the
    current frames, uint8 (N, H, W, 3).
    """
    venv.set_attr("episode", list(wave.episodes))
    obs, infos = venv.reset(seed=wave.seeds)
    wave.see(obs["pixels"], infos)
    actions = np.zeros((venv.num_envs, *venv.single_action_space.shape), dtype=np.float32)
    while True:
        yield actions, obs["pixels"]
        obs, reward, terminated, truncated, infos = venv.step(actions)
        _check_finite("reward", reward, wave)
        done = terminated | truncated
        wave.step(obs["pixels"], reward, terminated, infos, done)
        if not wave.running.any():
            return
        if done.any():
            # An environment that is done may not be stepped: it plays on, uncounted, until all are done.
            venv.reset(seed=wave.seeds, options={"reset_mask": done})


@dataclass
class _Tally:
    """What is known of a running episode."""

    episode_return: float = 0.0
    length: int = 0
    terminated: bool = False
    success: bool | None = None
    quality: MaskQuality = field(default_factory=MaskQuality)


class _Wave:
    """Episodes that run side by side, one per environment; those from ``last`` on are not counted."""

    def __init__(
        self, episodes: range, last: int, seed: int, on_frame: Callable[[StepView], None] | None
    ) -> None:
        self.episodes = episodes
        self.seeds = [derive_seed(seed, "evaluation", episode) for episode in episodes]
        self.running = np.array([episode < last for episode in episodes])
        self._counted = self.running.copy()
        self._tallies = [_Tally() for _ in episodes]
        self._on_frame = on_frame

    def see(self, pixels: np.ndarray, infos: dict[str, Any]) -> None:
        """Measure the masks of the frames uint8 (N, H, W, 3) of all running episodes."""
        if "mask" not in infos:
            return
        for i in map(int, np.flatnonzero(self.running)):
            tally, mask = self._tallies[i], infos["mask"][i]
            foreground = _info_of(infos, "foreground", i)
            tally.quality.add(mask, foreground, _info_of(infos, "mask_empty", i))
            if self._on_frame is not None:
                raw = infos["raw_pixels"][i]
                episode = self.episodes[i]
                self._on_frame(StepView(episode, tally.length, raw, pixels[i], mask, foreground))

    def step(
        self,
        pixels: np.ndarray,
        reward: np.ndarray,
        terminated: np.ndarray,
        infos: dict[str, Any],
        done: np.ndarray,
    ) -> None:
        """Count one agent step of all running episodes, then stop those that are done."""
        for i in map(int, np.flatnonzero(self.running)):
            tally = self._tallies[i]
            tally.episode_return += float(reward[i])
            tally.length += 1
            tally.terminated = bool(terminated[i])
            success = _info_of(infos, "success", i)
            if success is not None:
                tally.success = bool(tally.success) or bool(success)
        self.see(pixels, infos)
        self.running &= ~done

    def results(self) -> list[EpisodeResult]:
        """Return the results of the counted episodes."""
        return [
            EpisodeResult(
                episode=self.episodes[i],
                seed=self.seeds[i],
                episode_return=tally.episode_return,
                length=tally.length,
                terminated=tally.terminated,
                success=tally.success,
                mask_iou=tally.quality.mean("iou"),
                mask_recall=tally.quality.mean("recall"),
                mask_precision=tally.quality.mean("precision"),
                empty_share=tally.quality.empty_share,
            )
            for i, tally in enumerate(self._tallies)
            if self._counted[i]
        ]


class _PaddedPolicy:
    """Calls the agent with one batch size only; spare rows are black."""

    def __init__(self, agent: ActingAgent, batch: int, agent_step: int) -> None:
        self._agent = agent
        self._batch = batch
        self._step = agent_step

    def act(self, obs: np.ndarray) -> np.ndarray:
        """Return float32 (N, A) for uint8 (N, C, H, W)."""
        actions = []
        for begin in range(0, len(obs), self._batch):
            rows = obs[begin : begin + self._batch]
            padded = np.zeros((self._batch, *obs.shape[1:]), dtype=obs.dtype)
            padded[: len(rows)] = rows
            actions.append(self._agent.act(padded, self._step, eval_mode=True)[: len(rows)])
        return np.concatenate(actions)


def _info_of(infos: dict[str, Any], key: str, index: int) -> Any:
    """Return ``infos[key][index]``, or None where environment ``index`` did not report it."""
    if key not in infos:
        return None
    reported = infos.get(f"_{key}")
    if reported is not None and not reported[index]:
        return None
    return infos[key][index]


def _check_finite(what: str, values: np.ndarray, wave: _Wave) -> None:
    bad = wave.running & ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if bad.any():
        episode = wave.episodes[int(np.flatnonzero(bad)[0])]
        raise NonFiniteError(
            f"The {what} in evaluation episode {episode} is not a finite number.",
            "Use an earlier snapshot; the training that made this one has diverged.",
        )
