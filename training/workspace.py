"""The training loop: act, step, learn, record, begin anew; evaluate, save, resume and stop in good order."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from rich.console import Console

from algos.drqv2 import DrQV2Agent
from common.errors import ConfigError, NonFiniteError, SnapshotError
from common.masking import MaskerInfo
from common.stopping import StopSignal
from training.factory import check_same_agent, describe_agent, prepare_agent
from training.guard import disk_errors, exclusive
from training.logger import Logger
from training.replay_buffer import ReplayBuffer
from training.schedule import Every, Until
from training.settings import TrainSettings
from training.snapshot import AGENT_PART, SnapshotStore, load_snapshot, read_manifest
from wrappers import FrameStack

Evaluate = Callable[[DrQV2Agent, int], dict[str, Any]]


class ResetEpisodes(Protocol):
    """Begins episodes; ``envs.reset_episodes`` is one."""

    def __call__(
        self, venv: Any, episodes: Sequence[int], done: np.ndarray, seed: int
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Begin ``episodes[i]`` in each environment i that is ``done``; return all observations and infos."""
        ...


class Workspace:
    """One training run in one directory.

    Args:
        cfg: configuration with DrQ-v2's keys as attributes (see ``training.settings.TrainSettings``).
        venv: vector environment without automatic resets, with ``step_async`` and ``step_wait``, whose
            observations ``{"pixels": uint8 (N, H, W, 3)}`` are masked already; ``get_attr("state")`` and
            ``set_attr("state", ...)`` save and restore its environments.
        agent: the learner.
        masker_info: who masks the observations; a run goes on only under the same fingerprint.
        run_dir: everything is written below it.
        evaluate: called with the agent and the decisions made; its numbers become a row of ``eval.csv``.
        reset_episodes: begins episodes.
        resume_command: what to type to continue; printed when a signal ends the run.
        wandb_options: further arguments of ``wandb.init``.
        console: where progress is shown.

    Attributes:
        agent_steps: decisions made; frames are this times the action repeat.
        updates: gradient updates made.
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
        wandb_options: dict[str, Any] | None = None,
        console: Console | None = None,
    ) -> None:
        self.cfg = TrainSettings.from_config(cfg)
        self.venv, self.agent, self.masker_info, self.run_dir = venv, agent, masker_info, run_dir
        self._evaluate, self._reset_episodes = evaluate, reset_episodes
        self.resume_command = resume_command or "the same command as before"
        self._log_options = {"wandb_options": wandb_options, "console": console}
        self.num_envs = int(venv.num_envs)
        if self.num_envs != self.cfg.num_envs:
            raise ConfigError(
                f"num_envs={self.cfg.num_envs}, but there are {self.num_envs} environments.",
                f"Set num_envs={self.num_envs}.",
            )
        self.frame_shape = tuple(venv.single_observation_space["pixels"].shape)
        self.stack = FrameStack(self.cfg.frame_stack, self.num_envs, self.frame_shape)
        self.store = SnapshotStore(run_dir / "snapshots")
        self.seeding = Until(self.cfg.num_seed_frames, self.cfg.action_repeat)
        self.agent_steps = self.updates = self.next_episode = 0
        self.episodes = np.zeros(self.num_envs, np.int64)
        self.mask_sums = np.zeros((self.num_envs, 2))  # summed mask area and empty masks of open episodes
        self.evaluation_due = False
        self.agent_record: dict[str, Any] = {}

    def train(self) -> None:
        """Train until ``num_train_frames``, from the last snapshot if there is one; see ``TrainSettings``.

        Raises:
            SystemExit: a signal came; a snapshot was written before.
            SamgError: as documented with ``resume``, replay and snapshots; nothing already written is lost.
        """
        cfg = self.cfg
        train_until = Until(cfg.num_train_frames, cfg.action_repeat)
        snapshot_every = Every(cfg.snapshot_every_frames, cfg.action_repeat, self.num_envs)
        eval_frames = cfg.eval_every_frames if cfg.num_eval_episodes else 0
        eval_every = Every(eval_frames, cfg.action_repeat, self.num_envs)
        with contextlib.ExitStack() as cleanup:
            for guard in (exclusive(self.run_dir), disk_errors(self.run_dir)):
                cleanup.enter_context(guard)
            stop = cleanup.enter_context(StopSignal())
            self._start(cleanup)
            self._evaluate_if_due(stop)
            while train_until(self.agent_steps) and stop.number is None:
                actions = self._act()
                self.venv.step_async(actions)
                self._update()  # while the environments step
                done = self._record(actions, *self.venv.step_wait())
                self._begin_episodes(done)
                self.logger.progress(self.agent_steps)
                self.evaluation_due |= eval_every(self.agent_steps)
                if snapshot_every(self.agent_steps):
                    self.save()
                self._evaluate_if_due(stop)
            path = self.save()
            if stop.number is not None:
                self.logger.print(f"Stopped; saved {path}. To continue: {self.resume_command}")
                raise SystemExit(stop.exit_code)
            self.logger.print(f"Trained for {self.agent_steps} decisions; saved {path}.")
            self.logger.print(f"To evaluate: python locoeval.py --model_dir {self.run_dir} --mode all")

    # One step --------------------------------------------------------------------------------------------

    def _act(self) -> np.ndarray:
        """Return float32 (N, A) exploring actions."""
        actions = self.agent.act(self.obs, self.agent_steps, eval_mode=False)
        if not np.isfinite(actions).all():
            raise NonFiniteError(
                f"The agent's action at decision {self.agent_steps} is not finite.",
                "Resume from the last snapshot with a smaller lr.",
            )
        return actions

    def _update(self) -> None:
        """Make the updates that fall to the decisions being made: one per ``update_every_steps``."""
        for step in range(self.agent_steps, self.agent_steps + self.num_envs):
            if step % self.cfg.update_every_steps or self.seeding(step) or not self.replay.can_sample:
                continue
            batch = self.replay.sample(self.cfg.batch_size, self.updates).to(self.agent.device)
            self.logger.metrics.add(self.agent.update(batch, step))
            self.updates += 1

    def _record(
        self,
        actions: np.ndarray,
        obs: dict[str, np.ndarray],
        rewards: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        info: dict[str, Any],
    ) -> np.ndarray:
        """Put a step into the replay buffer; return bool (N,), the environments whose episode is over."""
        if not np.isfinite(rewards).all():
            raise NonFiniteError(
                f"A reward at decision {self.agent_steps} is not finite: {rewards}.",
                "Look at the environment.",
            )
        frames, done = obs["pixels"], np.logical_or(terminated, truncated)
        self.obs = self.stack.push(frames)
        self.agent_steps += self.num_envs
        if "mask" in info:
            self.mask_sums[:, 0] += info["mask"].mean(axis=(1, 2))
            self.mask_sums[:, 1] += info["mask_empty"]  # before anything took the place of an empty mask
        for env in range(self.num_envs):
            discount = 0.0 if terminated[env] else 1.0
            episode = self.replay.add(
                env, actions[env], float(rewards[env]), discount, frames[env], last=bool(done[env])
            )
            if episode is not None:
                self._log_episode(env, episode.index, episode.total_reward, len(episode))
        return done

    def _begin_episodes(self, done: np.ndarray) -> None:
        """Begin the next episodes in the environments that are done; a reset counts as no step."""
        if not done.any():
            return
        for env in np.flatnonzero(done):
            self.episodes[env] = self.next_episode
            self.next_episode += 1
        obs, _ = self._reset_episodes(self.venv, self.episodes.tolist(), done, self.cfg.seed)
        for env in np.flatnonzero(done):
            self.replay.begin_episode(int(env), int(self.episodes[env]), obs["pixels"][env])
        self.obs = self.stack.reset(obs["pixels"], done)
        self.mask_sums[done] = 0.0

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
        with stop.interrupting():
            metrics = self._evaluate(self.agent, self.agent_steps)
            self.logger.write("eval", {**self._counters(), **metrics})
            self.evaluation_due = False

    # Beginning, saving, resuming -------------------------------------------------------------------------

    def _start(self, cleanup: contextlib.ExitStack) -> None:
        """Make the replay buffer and the logger, and begin or resume the run."""
        self.agent_record = prepare_agent(self.agent)
        snapshot = self._snapshot_to_resume()
        cfg = self.cfg
        self.replay = ReplayBuffer(
            self.run_dir / "replay",
            self.frame_shape,
            self.agent.action_dim,
            cfg.replay_capacity,
            nstep=cfg.nstep,
            discount=cfg.discount,
            frame_stack=cfg.frame_stack,
            seed=cfg.seed,
            num_envs=self.num_envs,
            prefetch=cfg.prefetch,
            pin_memory=self.agent.device.type == "cuda",
        )
        cleanup.callback(self.replay.close)
        resume_step = -1 if snapshot is None else int(read_manifest(snapshot)["agent_steps"])
        self.logger = Logger(
            self.run_dir,
            cfg.planned_decisions,
            resume_step,
            use_tb=cfg.use_tb,
            use_wandb=cfg.use_wandb,
            **self._log_options,  # type: ignore[arg-type]
        )
        cleanup.callback(self.logger.close)
        self.logger.print(f"The agent is {describe_agent(self.agent_record)}.")
        if snapshot is not None:
            self._restore(load_snapshot(snapshot))
            self.logger.print(f"Resumed {snapshot} at {self.agent_steps} decisions, {self.updates} updates.")
        self.replay.move_unnamed(self.store.named_episodes())
        if snapshot is None:
            self._begin_episodes(np.ones(self.num_envs, bool))

    def _snapshot_to_resume(self) -> Path | None:
        """Return the snapshot to begin from, or None to begin anew, as ``resume`` says."""
        if self.cfg.resume == "never":
            if self.store.paths() or (self.run_dir / "train.csv").exists():
                raise ConfigError(
                    f"{self.run_dir} holds a run already and resume=never.",
                    "Choose another hydra.run.dir, or resume=auto to continue it.",
                )
            return None
        path = self.store.latest_valid()
        if path is None:
            if self.cfg.resume == "must":
                raise SnapshotError(f"{self.run_dir} holds no snapshot and resume=must.", "Use resume=auto.")
            return None
        saved = read_manifest(path)
        check_same_agent(saved.get("agent"), self.agent_record)
        if saved["num_envs"] != self.num_envs:
            raise ConfigError(
                f"The run was made with num_envs={saved['num_envs']}, not {self.num_envs}.",
                f"Set num_envs={saved['num_envs']}.",
            )
        if saved["masker"]["fingerprint"] != self.masker_info.fingerprint:
            raise ConfigError(
                f"The run was masked by {saved['masker']['variant']} with another fingerprint.",
                "Continue with the masker saved in the run directory, or choose another hydra.run.dir.",
            )
        return path

    def save(self) -> Path:
        """Write a snapshot of everything and delete episode files that nothing names any more."""
        self.logger.metrics.check()
        agent = self.agent.state_dict()
        _check_finite(agent["networks"])
        loop = {
            **self._counters(),
            "next_episode": self.next_episode,
            "episodes": self.episodes,
            "evaluation_due": self.evaluation_due,
            "mask_sums": self.mask_sums,
            "metrics": self.logger.metrics.state_dict(),
            "stack": self.stack.frames,
            "replay": self.replay.state_dict(),
            "env_states": list(self.venv.get_attr("state")),
        }
        info = {
            **self._counters(),
            "num_envs": self.num_envs,
            "agent": self.agent_record,
            "masker": self.masker_info.to_dict(),
            "replay": self.replay.manifest(),
        }
        parts = {AGENT_PART: agent.pop("networks"), "optimizers": agent, "loop": loop}
        path = self.store.save(self.agent_steps, parts, info)
        self.replay.delete_unnamed(self.store.named_episodes())
        return path

    def _restore(self, state: dict[str, Any]) -> None:
        self.agent.load_state_dict({"networks": state[AGENT_PART], **state["optimizers"]})
        loop = state["loop"]
        self.agent_steps, self.updates = loop["agent_steps"], loop["updates"]
        self.next_episode, self.episodes = loop["next_episode"], loop["episodes"]
        self.mask_sums = loop["mask_sums"]
        self.logger.metrics.load_state_dict(loop["metrics"], self.agent.device)
        self.evaluation_due = loop["evaluation_due"] and self.logger.last_step("eval") != self.agent_steps
        self.replay.load_state_dict(loop["replay"])
        self.stack.frames = loop["stack"]
        height, width, _ = self.frame_shape
        self.obs = self.stack.frames.reshape(self.num_envs, -1, height, width)
        self.venv.set_attr("state", loop["env_states"])


def _check_finite(networks: dict[str, dict[str, torch.Tensor]]) -> None:
    """Raise ``NonFiniteError`` rather than save networks that are broken."""
    for network, parameters in networks.items():
        for name, value in parameters.items():
            if not torch.isfinite(value).all():
                raise NonFiniteError(
                    f"The parameter {network}.{name} is not finite; no snapshot was written.",
                    "Resume from the last snapshot with a smaller lr.",
                )
