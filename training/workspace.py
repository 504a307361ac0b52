"""The training loop: act, step, learn, record, begin anew; evaluate, save, resume and stop in good order."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from algos.agent import Batch
from algos.drqv2 import DrQV2Agent
from common import faults
from common.errors import ConfigError, NonFiniteError, SamgError
from common.files import sweep_stages
from common.masking import MaskerInfo
from common.stopping import StopSignal
from training import finite
from training.episodes import Episode, ResetEpisodes, env_states, state_of
from training.factory import describe_agent, prepare_agent
from training.guard import exclusive, resource_errors
from training.logger import Logger
from training.loop_state import loop_state, restore_loop
from training.preflight import check_disk, check_update, disk_needed
from training.replay_opening import open_replay
from training.resume import find_snapshot
from training.schedule import Every, Until
from training.settings import TrainSettings
from training.snapshot import AGENT_PART, SnapshotStore, load_snapshot, read_manifest
from wrappers import FrameStack

log = logging.getLogger(__name__)
Evaluate = Callable[[DrQV2Agent, int], dict[str, Any]]


class Workspace:
    """One training run in one directory.

    Args:
        cfg: configuration with DrQ-v2's keys as attributes (see ``training.settings.TrainSettings``).
        venv: vector environment without automatic resets, with ``step_async`` and ``step_wait``, whose
            observations ``{"pixels": uint8 (N, [V,] H, W, 3)}`` are masked already; ``"state"``, float32
            (N, S), goes to agent and replay where there is one. ``get_attr("state")`` is asked when an
            episode has begun; a copy with the ``actions`` since, float32 (T, A), assigned by
            ``set_attr("state", ...)``, restores an environment.
        agent: the learner.
        masker_info: who masks the observations; a run goes on only under the same fingerprint.
        run_dir: everything is written below it.
        evaluate: called with the agent and the decisions made; its numbers become a row of ``eval.csv``.
        reset_episodes: begins episodes.
        resume_command: what to type to continue; printed when a signal ends the run.
        config: the resolved configuration, kept in every snapshot.
        console: where progress is shown.
        demonstrations: gives episodes that a new run begins with, numbered from 0: they are the oldest of the
            replay buffer, and the agent learns from them offline before the first decision.

    Attributes:
        agent_steps: decisions made; frames are this times the action repeat.
        updates: gradient updates made, the offline ones included.
        demonstrated: transitions of the demonstrations.
        next_episode: index of the next episode to begin.
        agent_record: class of the agent and what it learns from besides the batches; part of every snapshot.
    """

    def __init__(
        self,
        cfg: Any,
        venv: Any,
        agent: DrQV2Agent,
        masker_info: MaskerInfo,
        run_dir: Path,
        evaluate: Evaluate,
        reset_episodes: ResetEpisodes,
        resume_command: str | None = None,
        config: dict[str, Any] | None = None,
        console: Console | None = None,
        demonstrations: Callable[[], Sequence[Episode]] = list,
    ) -> None:
        self.cfg = TrainSettings.from_config(cfg)
        self.venv, self.agent, self.masker_info, self.run_dir = venv, agent, masker_info, run_dir
        self._evaluate, self._reset_episodes = evaluate, reset_episodes
        self._demonstrations = demonstrations
        self.resume_command = resume_command or "the same command as before"
        self.config = config or {}
        self.console = console or Console(highlight=False)
        self._log_options: dict[str, Any] = {"use_tb": self.cfg.use_tb, "use_wandb": self.cfg.use_wandb}
        about = {"project": self.cfg.wandb_project, "group": self.cfg.wandb_group, "config": self.config}
        self._log_options |= {"wandb_options": about, "console": self.console}
        self.num_envs = int(venv.num_envs)
        if (wanted := self.cfg.num_envs) != self.num_envs:
            raise ConfigError(f"num_envs={wanted}, but {self.num_envs} exist.", "Make as many as it says.")
        self.frame_shape = tuple(venv.single_observation_space["pixels"].shape)
        self.stack = FrameStack(self.cfg.frame_stack, self.num_envs, self.frame_shape)
        self.store = SnapshotStore(run_dir / "snapshots")
        self.seeding = Until(self.cfg.num_seed_frames, self.cfg.action_repeat)
        self.agent_steps = self.updates = self.next_episode = 0
        self.demonstrated = 0
        self.updated_steps = 0  # decisions whose updates were made; ahead only while the environments step
        self.pending: np.ndarray | None = None  # actions that were chosen and not yet answered
        self.done = np.ones(self.num_envs, bool)  # whose next episode has to begin
        self.episodes = np.zeros(self.num_envs, np.int64)
        self.starts: list[dict[str, Any]] = [{}] * self.num_envs  # states at the episodes' start
        self.mask_sums = np.zeros((self.num_envs, 2))  # summed mask area and empty masks of open episodes
        self.evaluation_due = False
        self.agent_record: dict[str, Any] = {}

    def train(self, stop: StopSignal | None = None) -> None:
        """Train until ``num_train_frames``, from the last snapshot if there is one; see ``TrainSettings``.

        Args:
            stop: what notes signals, where somebody listens already.

        Raises:
            SystemExit: a signal came; a snapshot was written before.
            SamgError: as documented with ``resume``, replay and snapshots; nothing already written is lost.
        """
        with contextlib.ExitStack() as cleanup:
            stop = stop or cleanup.enter_context(StopSignal())
            with stop.noting():
                self._lock(cleanup)
                started = False
                with stop.interrupting():  # there is nothing to save yet
                    self._start(cleanup)
                    started = True
                if started:
                    self._train_until(stop)
                else:
                    self.console.print(f"Stopped at the start. To continue: {self.resume_command}")
        if stop.number is not None:
            stop.leave()

    def _train_until(self, stop: StopSignal) -> None:
        """Run the loop until its end or a signal, and save."""
        cfg = self.cfg
        train_until = Until(cfg.num_train_frames, cfg.action_repeat)
        snapshot_every = Every(cfg.snapshot_every_frames, cfg.action_repeat, self.num_envs)
        eval_frames = cfg.eval_every_frames if cfg.num_eval_episodes else 0
        eval_every = Every(eval_frames, cfg.action_repeat, self.num_envs)
        self._learn_offline(stop)
        self._evaluate_if_due(stop)
        while train_until(self.agent_steps) and stop.number is None:
            self.step()
            self.logger.progress(self.agent_steps)
            self.evaluation_due |= eval_every(self.agent_steps)
            if snapshot_every(self.agent_steps):
                self.save()
            self._evaluate_if_due(stop)
        path = self.save()
        if stop.number is not None:
            self.logger.print(f"Stopped; saved {path}. To continue: {self.resume_command}")
            return
        self.logger.print(f"Trained for {self.agent_steps} decisions; saved {path}.")
        self.logger.print(f"To evaluate: python locoeval.py --model_dir {self.run_dir} --mode all")

    # One step --------------------------------------------------------------------------------------------

    def begin(self, cleanup: contextlib.ExitStack) -> None:
        """Begin or resume the run, for those who ``step`` themselves; ``cleanup`` gives everything back."""
        self._lock(cleanup)
        self._start(cleanup)

    def step(self) -> None:
        """Make one decision in every environment, and the updates that fall to them."""
        self._begin_episodes()
        actions = self._act()
        with self._environments():
            self.venv.step_async(actions)
        self._update()  # while the environments step
        with self._environments():
            answer = self.venv.step_wait()
        self._record(actions, *answer)

    def _begin_episodes(self) -> None:
        """Begin the next episodes in the environments that are done; a reset counts as no step."""
        done = self.done
        if not done.any():
            return
        episodes, following = self.episodes.copy(), self.next_episode
        for env in np.flatnonzero(done):
            episodes[env] = following
            following += 1
        with self._environments():
            obs, _ = self._reset_episodes(self.venv, episodes.tolist(), done, self.cfg.seed)
            states = self.venv.get_attr("state")
        faults.point("train.reset")
        self.episodes, self.next_episode = episodes, following
        for env in np.flatnonzero(done):
            self.starts[env] = states[env]
            self.replay.begin_episode(
                int(env), int(episodes[env]), obs["pixels"][env], state_of(obs, int(env))
            )
        self.obs, self.state = self.stack.reset(obs["pixels"], done), obs.get("state")
        self.mask_sums[done] = 0.0
        self.done = np.zeros(self.num_envs, bool)

    def _act(self) -> np.ndarray:
        """Return float32 (N, A) exploring actions, or those that the environments have yet to answer."""
        if self.pending is None:
            actions = self.agent.act(self.obs, self.agent_steps, eval_mode=False, state=self.state)
            with self._evidence(lambda: {"action": actions}):
                finite.check_actions(actions, self.agent_steps)
            self.pending = actions
        faults.point("train.act")
        return self.pending

    def _update(self) -> None:
        """Make the updates that fall to the decisions being made: one per ``update_every_steps``."""
        for step in range(self.updated_steps, self.agent_steps + self.num_envs):
            due = step % self.cfg.update_every_steps == 0 and not self.seeding(step)
            if due and self.replay.can_sample:
                self._update_once(self.replay.sample(self.cfg.batch_size, self.updates), step)
            self.updated_steps = step + 1

    def _learn_offline(self, stop: StopSignal) -> None:
        """Make the updates that come before the first decision, from demonstrations alone."""
        wanted = self.agent.offline_updates if self.demonstrated else 0
        if self.agent_steps or self.updates >= wanted:
            return
        self.logger.print(f"Learning offline from {self.demonstrated} transitions: {wanted} updates.")
        while self.updates < wanted and stop.number is None:
            self._update_once(self.replay.sample(self.cfg.batch_size, self.updates), None)
            self.logger.progress(self.agent_steps)

    def _update_once(self, batch: Batch, step: int | None) -> None:
        """Learn from one batch after ``step`` decisions; None: offline."""
        batch = batch.to(self.agent.device)
        metrics = self.agent.update_offline(batch) if step is None else self.agent.update(batch, step)
        if self.agent.device.type == "cpu":  # elsewhere it would wait; the next action tells as well
            with self._evidence(lambda: {name: value.numpy() for name, value in batch._asdict().items()}):
                finite.check_metrics(metrics)
        self.logger.metrics.add(metrics)
        self.updates += 1
        faults.point("train.update")

    def _record(
        self,
        actions: np.ndarray,
        obs: dict[str, np.ndarray],
        rewards: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        info: dict[str, Any],
    ) -> None:
        """Put a step into the replay buffer and note which episodes are over."""
        faults.point("train.step")
        with self._evidence(lambda: {"action": actions, "reward": rewards, **obs}):
            finite.check_step(obs, rewards, self.agent_steps)
        frames, done = obs["pixels"], np.logical_or(terminated, truncated)
        if done.any():
            self._check_run_dir()
        self.obs, self.state = self.stack.push(frames), obs.get("state")
        self.agent_steps += self.num_envs
        self.pending, self.done = None, done
        if "mask" in info:
            share = [info[key].reshape(self.num_envs, -1).mean(axis=1) for key in ("mask", "mask_empty")]
            self.mask_sums += np.stack(share, axis=1)  # empty before anything took the place of an empty mask
        for env in range(self.num_envs):
            discount = 0.0 if terminated[env] else 1.0
            step = (actions[env], float(rewards[env]), discount, frames[env], bool(done[env]))
            episode = self.replay.add(env, *step, state=state_of(obs, env))
            if episode is not None:
                self._log_episode(env, episode.index, episode.total_reward, len(episode))

    @contextlib.contextmanager
    def _environments(self) -> Iterator[None]:
        """Save before an error of the environments ends the run: they owe an answer, all else is whole."""
        try:
            with self._evidence():
                yield
        except NonFiniteError:
            raise
        except Exception:
            if self.agent_steps:
                try:
                    self.logger.print(f"The environments failed; saved {self.save()}.")
                except (SamgError, OSError) as error:
                    log.warning("The environments failed, and no snapshot could be written (%s).", error)
            raise

    def _evidence(self, arrays: Callable[[], Any] = dict) -> contextlib.AbstractContextManager[None]:
        """Keep ``arrays`` and what else was at hand when a number in the block is not finite."""
        return finite.evidence(self.run_dir, self.agent_steps, self.updates, self.env_states, arrays)

    def env_states(self) -> list[dict[str, Any]]:
        """Return what restores each environment; see ``training.episodes.env_states``."""
        return env_states(self.starts, self.replay.open, self.agent.action_dim)

    def _counters(self) -> dict[str, int]:
        frames = self.agent_steps * self.cfg.action_repeat
        return {"agent_steps": self.agent_steps, "frames": frames, "updates": self.updates}

    def _log_episode(self, env: int, index: int, total_reward: float, length: int) -> None:
        area, empty = self.mask_sums[env] / length
        row = {
            **self._counters(),
            "episode": index,
            "episode_return": total_reward,
            "episode_length": length,
            "replay_transitions": self.replay.num_transitions,
            "mask_area": float(area),
            "empty_masks": float(empty),
            "decisions_per_second": self.logger.rate(self.agent_steps),
        }
        self.logger.write("train", {**row, **self.logger.metrics.take()})

    def _evaluate_if_due(self, stop: StopSignal) -> None:
        """Evaluate the agent; a signal ends that at once, and a resumed run evaluates again."""
        if not self.evaluation_due or stop.number is not None:
            return
        metrics: dict[str, Any] | None = None
        with stop.interrupting():
            metrics = self._evaluate(self.agent, self.agent_steps)
        if metrics is not None:
            self.logger.write("eval", {**self._counters(), **metrics})
            self.evaluation_due = False

    # Beginning, saving, resuming -------------------------------------------------------------------------

    def _lock(self, cleanup: contextlib.ExitStack) -> None:
        self._check_run_dir = cleanup.enter_context(exclusive(self.run_dir))
        cleanup.enter_context(resource_errors(self.run_dir))

    def _start(self, cleanup: contextlib.ExitStack) -> None:
        """Make the replay buffer and the logger, and begin or resume the run."""
        cfg = self.cfg
        sweep_stages(self.run_dir)
        self.agent_record = prepare_agent(self.agent)
        snapshot = find_snapshot(
            self.run_dir, cfg.resume, self.agent_record, self.masker_info, self.num_envs, self.store
        )
        check_update(self.agent, cfg.batch_size)
        manifest = {} if snapshot is None else read_manifest(snapshot)
        demonstrations = [] if manifest else self._demonstrations()
        self.demonstrated = manifest.get("demonstrated", sum(map(len, demonstrations)))
        self.replay = open_replay(
            self.run_dir, cfg, self.frame_shape, self.num_envs, self.agent, self.demonstrated
        )
        cleanup.callback(self.replay.close)
        resume_step = int(manifest.get("agent_steps", -1))
        self.logger = Logger(self.run_dir, cfg.planned_decisions, resume_step, **self._log_options)
        cleanup.callback(self.logger.close)
        self.logger.print(f"The agent is {describe_agent(self.agent_record)}.")
        if snapshot is not None:
            self._restore(load_snapshot(snapshot))
            self.logger.print(f"Resumed {snapshot} at {self.agent_steps} decisions, {self.updates} updates.")
        for episode in demonstrations:
            self.replay.insert(episode)
        self.next_episode += len(demonstrations)
        self.replay.move_unnamed(self.store.named_episodes())
        if snapshot is None:
            self._begin_episodes()
        newest = self.stack.frames[:, -1]
        needed = disk_needed(newest, self.replay.capacity, self.agent.networks())
        check_disk(self.run_dir, needed, self.replay.growth(self.run_dir.stat().st_dev))

    def save(self) -> Path:
        """Write a snapshot of everything and delete episode files that nothing names any more."""
        self._check_run_dir()
        self.logger.metrics.check()
        agent = self.agent.state_dict()
        finite.check_state(agent, "The agent's state")
        self.logger.sync()
        loop = {**self._counters(), **loop_state(self)}
        info = {
            **self._counters(),
            "num_envs": self.num_envs,
            "agent": self.agent_record,
            "masker": self.masker_info.to_dict(),
            "replay": self.replay.files(),
            "demonstrated": self.demonstrated,
        }
        parts = {AGENT_PART: agent.pop("networks"), "optimizers": agent, "loop": loop}
        path = self.store.save(self.agent_steps, parts, info)
        self.replay.delete_unnamed(self.store.named_episodes())
        return path

    def _restore(self, state: dict[str, Any]) -> None:
        self.agent.load_state_dict({"networks": state[AGENT_PART], **state["optimizers"]})
        restore_loop(self, state["loop"])
