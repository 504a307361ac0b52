"""Several environments at once, each in its own process; resets happen only when the caller asks for them."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection, resource_tracker
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, VectorEnv
from gymnasium.vector.async_vector_env import AsyncState, _async_worker

from common.cores import count_gpus
from common.errors import ConfigError, ResourceError, SamgError
from envs.make import make_env
from envs.pixel_env import episode_seed
from envs.render_device import choose_render_device, prepare_rendering

Answer = tuple[int, dict[str, np.ndarray], float | None, bool, bool, dict[str, Any]]
_LONGEST_STEP = 300.0  # seconds in which an environment must answer
_LONGEST_CLOSE = 5.0  # seconds in which it must end
_GONE = (EOFError, BrokenPipeError, ConnectionResetError)
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)


def _guarded(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: ProcessVectorEnv, *args: Any, **kwargs: Any) -> Any:
        with self._report_dead_workers():
            return method(self, *args, **kwargs)

    return call


def _timed(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: ProcessVectorEnv, timeout: float | None = None) -> Any:
        with self._report_dead_workers():
            return method(self, timeout or self.timeout)

    return call


class ProcessVectorEnv(AsyncVectorEnv):
    """gymnasium's ``AsyncVectorEnv`` with errors that arrive as they were raised.

    Observations ``{"pixels": uint8 (N, H, W, 3)}`` through shared memory; no environment resets by itself.
    A ``SamgError`` of a worker, also one raised while its environment is made, is raised here unchanged; a
    worker that was killed (most often: no memory left) or does not answer is a ``ResourceError``.

    Args:
        makers: one function per environment; each is called in its own fresh process, and the first once here
            to learn the spaces.
        timeout: seconds in which an environment must answer.
        render_device: GPU on which the workers draw, see ``envs.render_device``.
        learner: GPU of the learner.
    """

    def __init__(
        self,
        makers: Sequence[Callable[[], gymnasium.Env]],
        timeout: float = _LONGEST_STEP,
        render_device: int | str = "auto",
        learner: int | None = None,
    ) -> None:
        self.timeout = timeout
        prepare = functools.partial(
            prepare_rendering, several=len(makers) > 1, wanted=render_device, learner=learner
        )
        self._awaited: dict[int, int] = {}  # environment -> replies to come, in the order of the requests
        with self._report_dead_workers(), _deaf_children():
            super().__init__(
                makers,
                shared_memory=True,
                context="spawn",
                worker=functools.partial(run_worker, prepare=prepare),
                autoreset_mode=AutoresetMode.DISABLED,
            )

    reset_async = _guarded(AsyncVectorEnv.reset_async)
    reset_wait = _timed(AsyncVectorEnv.reset_wait)
    step_async = _guarded(AsyncVectorEnv.step_async)
    step_wait = _timed(AsyncVectorEnv.step_wait)
    call_async = _guarded(AsyncVectorEnv.call_async)
    call_wait = _timed(AsyncVectorEnv.call_wait)

    def set_attr(self, name: str, values: Any) -> None:
        """Assign an attribute of every environment; a list or tuple holds one value each."""
        each = values if isinstance(values, list | tuple) else [values] * self.num_envs
        if len(each) != self.num_envs:
            raise ValueError(f"{name}: expected {self.num_envs} values, got {len(each)}")
        with self._report_dead_workers():
            for pipe, value in zip(self.parent_pipes, each, strict=True):
                pipe.send(("_setattr", (name, value)))
            if not self._poll_pipe_envs(self.timeout):  # the inherited method would wait for ever
                raise multiprocessing.TimeoutError
            self._raise_if_errors([pipe.recv()[1] for pipe in self.parent_pipes])

    # One environment at a time, so that none waits for another. Not to be mixed with calls to all of them.

    def begin_episode(
        self, index: int, episode: int, seed: int, options: dict[str, Any] | None = None
    ) -> None:
        """Let environment ``index`` begin an episode; ``collect`` returns its first observation."""
        reset = {"seed": seed, "options": options}
        self._request(index, ("_setattr", ("episode", episode)), ("reset", reset))

    def send_action(self, index: int, action: np.ndarray) -> None:
        """Let environment ``index`` step with ``action``, float32 (A,); ``collect`` returns the result."""
        self._request(index, ("step", action))

    def collect(self, count: int) -> list[Answer]:
        """Wait for ``count`` environments that were asked for something.

        Returns:
            for each: its index, observation, reward (None after ``begin_episode``), terminated, truncated,
            info; the longest waiting first.
        """
        if count > len(self._awaited):
            raise ValueError(f"count: {count}, but only {len(self._awaited)} environments are at work")
        answers: list[Answer] = []
        with self._report_dead_workers():
            while len(answers) < count:
                pipes = [self.parent_pipes[index] for index in self._awaited]
                ready = connection.wait(pipes, self.timeout)
                if not ready:
                    raise multiprocessing.TimeoutError
                for index in [i for i in self._awaited if self.parent_pipes[i] in ready]:
                    if len(answers) < count and (reply := self._receive(index)) is not None:
                        reward, terminated, truncated = (
                            reply[1:4] if len(reply) == 5 else (None, False, False)
                        )
                        rows = {name: rows[index].copy() for name, rows in self.observations.items()}
                        answers.append((index, rows, reward, bool(terminated), bool(truncated), reply[-1]))
        return answers

    def _request(self, index: int, *commands: tuple[str, Any]) -> None:
        if index in self._awaited:
            raise ValueError(f"environment {index} is at work already")
        with self._report_dead_workers():
            for command in commands:
                self.parent_pipes[index].send(command)
        self._awaited[index] = len(commands)

    def _receive(self, index: int) -> tuple[Any, ...] | None:
        """Return the last reply to a request, or None when it was an earlier one."""
        reply, success = self.parent_pipes[index].recv()
        self._awaited[index] -= 1
        if not success:
            self._awaited.pop(index)
            self._raise_if_errors([False])
        if self._awaited[index]:
            return None
        self._awaited.pop(index)
        return reply

    def close_extras(self, timeout: float | None = None, terminate: bool = False) -> None:
        """Close all environments: they finish what they were asked for; who takes too long is killed."""
        self._awaited = {}
        pipes = [pipe for pipe in self.parent_pipes if pipe is not None and not pipe.closed]
        for pipe in pipes:
            with contextlib.suppress(*_GONE):
                pipe.send(("close", None))
        deadline = time.monotonic() + (0.0 if terminate else timeout or _LONGEST_CLOSE)
        for process in self.processes:
            process.join(max(deadline - time.monotonic(), 0.0))
            if process.is_alive():
                process.kill()  # they are deaf to SIGTERM; nothing of theirs is worth keeping
                process.join()
        for pipe in pipes:
            pipe.close()

    def _raise_if_errors(self, successes: Any) -> None:
        # The inherited method raises exctype(value), which for our errors would lose the hint, and logs the
        # worker's traceback, which a user who mistyped a setting does not need.
        failed = sum(not success for success in successes)
        errors = [self.error_queue.get() for _ in range(failed)]
        for index, *_ in errors:
            self.parent_pipes[index].close()
            self.parent_pipes[index] = None  # type: ignore[call-overload]
        for _, _, value, trace in errors:
            self._state = AsyncState.DEFAULT
            if isinstance(value, SamgError):
                raise value
            raise RuntimeError(f"an environment worker failed:\n{trace}")

    @contextlib.contextmanager
    def _report_dead_workers(self) -> Iterator[None]:
        try:
            yield
        except multiprocessing.TimeoutError as error:
            self.close(terminate=True)
            raise ResourceError(
                f"An environment has not answered for {self.timeout:g} seconds.",
                "Give the same command again: the run goes on from its last snapshot.",
            ) from error
        except _GONE as error:
            for process in self.processes:
                process.join(timeout=1.0)
            codes = [process.exitcode for process in self.processes if process.exitcode]
            self.close(terminate=True)
            raise _process_ended(codes[0] if codes else None) from error


def _process_ended(code: int | None) -> ResourceError:
    cure = "Most often memory ran out: use fewer environments (num_envs) or a smaller replay buffer."
    if code is not None and code > 0:  # no signal: an error of its own, which it has printed
        cure = (
            "Its own error stands above. A script that makes environments needs `if __name__ == '__main__':` "
            "around what it does: their processes import it."
        )
    known = "unknown" if code is None else code
    return ResourceError(f"The process of an environment ended unexpectedly (exit code {known}).", cure)


@contextlib.contextmanager
def _deaf_children() -> Iterator[None]:
    """Let processes that are started in the block take no notice of the signals that end a run.

    They inherit what is blocked here. Otherwise one that comes while they import modules would end them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    try:
        resource_tracker.ensure_running()  # blocks the other two for itself, and unblocks them at its end
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run_worker(
    index: int,
    maker: Callable[[], gymnasium.Env],
    pipe: Any,
    parent_pipe: Any,
    *rest: Any,
    prepare: Callable[[int], None],
) -> None:
    """Run one environment in this process until it is told to close (the worker of ``ProcessVectorEnv``).

    ``prepare`` is called with ``index`` before anything is drawn.
    """
    # Ctrl-C and a scheduler's SIGTERM reach the whole process group. The main process finishes its step and
    # saves; the workers end when it closes their pipes, or when it is gone.
    for number in _STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    try:
        prepare(index)
        env = maker()
    except Exception:
        error_type, error, _ = sys.exc_info()
        error_queue = rest[1]
        error_queue.put((index, error_type, error, traceback.format_exc()))
        parent_pipe.close()
        pipe.recv()
        pipe.send((None, False))
        return
    _async_worker(index, lambda: env, pipe, parent_pipe, *rest)


def make_vector_env(
    task: str,
    num_envs: int = 1,
    *,
    render_device: int | str = "auto",
    learner: torch.device | None = None,
    **options: Any,
) -> ProcessVectorEnv:
    """Make ``num_envs`` environments of one task, each in its own process.

    All share one seed: which episode an environment plays follows from the index that ``reset_episodes``
    gives it, so any number of environments plays the same episodes.

    Args:
        task: a name of ``envs.task_names()``.
        num_envs: how many; 1 is the same code as 8.
        render_device: ``auto`` or the number of a GPU, see ``envs.render_device.choose_render_device``.
        learner: device on which the agent learns.
        **options: as for ``make_env``.

    Raises:
        ConfigError, InputError, DependencyError: as ``make_env``, before any process is started if possible.
        ResourceError: there is no such GPU to draw on.
    """
    if not isinstance(num_envs, int) or isinstance(num_envs, bool) or num_envs < 1:
        raise ConfigError(
            f"num_envs must be a whole number of at least 1, not {num_envs!r}.", "Set num_envs."
        )
    gpu = (learner.index or 0) if learner is not None and learner.type == "cuda" else None
    choose_render_device(0, render_device, gpu, os.environ, count_gpus())  # refuses before any process
    makers = [functools.partial(make_env, task, **options)] * num_envs
    return ProcessVectorEnv(makers, render_device=render_device, learner=gpu)


def reset_episodes(
    venv: VectorEnv, episodes: Sequence[int], done: np.ndarray, seed: int
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Begin the given episodes in the environments that are ``done``; the others are not touched.

    Args:
        venv: the vector environment, wrapped or not.
        episodes: length N; the index of the episode to begin (read only where ``done``).
        done: bool (N,).
        seed: the seed of the run.

    Returns:
        observations and infos of all N; only the rows where ``done`` are new.
    """
    venv.set_attr("episode", [int(episode) for episode in episodes])  # type: ignore[attr-defined]
    seeds: Any = [episode_seed(seed, int(episode)) for episode in episodes]
    return venv.reset(seed=seeds, options={"reset_mask": np.array(done, bool)})


def get_states(venv: VectorEnv) -> list[dict[str, Any]]:
    """Return every environment's ``state`` (see ``PixelEnv.state``)."""
    return list(venv.get_attr("state"))  # type: ignore[attr-defined]


def set_states(venv: VectorEnv, states: Sequence[dict[str, Any]]) -> None:
    """Restore every environment's ``state``; all replay their physics at the same time."""
    venv.set_attr("state", list(states))  # type: ignore[attr-defined]
