"""The command line of ``record.py``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import ConfigError, InputError, unknown_choice
from common.flags import check_least
from common.paths import output_path
from envs.tasks import find_task, task_names
from evaluation.cli import Parser
from evaluation.run_directory import RunDirectory, canonical_task
from training.demonstrations.choosing import OUTCOMES, Filter
from training.demonstrations.recording import POLICIES

ATTEMPTS_PER_EPISODE = 10


_LEAST = {
    "episodes": 1,
    "attempts": 1,
    "num_envs": 1,
    "action_repeat": 1,
    "seed": 0,
    "least_return": -math.inf,  # finite
}


@dataclass(frozen=True)
class Options:
    """What to record.

    Attributes:
        run: whose policy acts; None for one of ``POLICIES``.
        policy: its name; ``trained`` for a run's.
        task: name of the task.
        action_repeat: control steps per action.
        wanted: which episodes are kept, and how many.
        attempts: episodes played at most.
        seed: of physics and draws.
        num_envs: environments side by side, for a run's policy.
        device: for its networks.
        out: the file.
    """

    run: RunDirectory | None
    policy: str
    task: str
    action_repeat: int
    wanted: Filter
    attempts: int
    seed: int
    num_envs: int
    device: str
    out: Path

    @property
    def decisions(self) -> int:
        """Actions of an episode that nothing ends before its time."""
        return math.ceil(find_task(self.task).horizon / self.action_repeat)


def parse_options(argv: Sequence[str], manual: str = "") -> Options:
    """Parse and check the command line.

    Raises:
        ConfigError: a flag is unknown, missing, or its value impossible.
        InputError: the file exists already.
        SnapshotError: the run cannot be read.
    """
    flags = _parser(manual).parse_flags(argv)
    given = {name: least for name, least in _LEAST.items() if getattr(flags, name) is not None}
    check_least(flags, given, joint="_")
    if (flags.model_dir is None) == (flags.task is None):
        raise ConfigError("Name either --model_dir or --task.", "A run knows its task.")
    if flags.outcome not in OUTCOMES:
        raise unknown_choice("--outcome", flags.outcome, OUTCOMES)
    run = None
    if flags.model_dir is not None:
        run, policy = RunDirectory.open(flags.model_dir), "trained"
        task, repeat = run.task, int(run.config.action_repeat)
        if flags.policy or flags.action_repeat:
            raise ConfigError("--policy and --action_repeat are those of the run.", "Leave them out.")
    else:
        task, policy, repeat = _task(flags.task), flags.policy or "random", flags.action_repeat or 2
        if policy not in POLICIES:
            raise unknown_choice("--policy", policy, POLICIES)
    return Options(
        run=run,
        policy=policy,
        task=task,
        action_repeat=repeat,
        wanted=Filter(flags.outcome, flags.least_return, flags.episodes),
        attempts=flags.attempts or ATTEMPTS_PER_EPISODE * flags.episodes,
        seed=flags.seed,
        num_envs=flags.num_envs,
        device=flags.device,
        out=_output(flags.out, flags.overwrite),
    )


def _task(name: str) -> str:
    """Return the name of a task, of which ``door`` is a short one as in ``train.py task=door``."""
    name = f"adroit_{name}" if f"adroit_{name}" in task_names("adroit") else name
    return canonical_task(find_task(name).name)


def _output(name: str | None, overwrite: bool) -> Path:
    if name is None:
        raise ConfigError("--out is missing.", "Name the file to write, such as --out door.npz.")
    path = output_path(name)
    if path.suffix != ".npz":
        raise ConfigError(f"--out {name} does not end in .npz.", "Readers know a file's form by its name.")
    if path.exists() and not (overwrite and path.is_file()):
        raise InputError(f"{path} exists already.", "Choose another name, or add --overwrite.")
    return path


def _parser(manual: str) -> Parser:
    parser = Parser("record.py", manual)
    who = parser.add_argument_group("who acts")
    who.add_argument("--model_dir", metavar="RUN", help="a run of train.py: its policy, its masker")
    who.add_argument("--task", help="without a run: a task, such as door or walker_walk")
    who.add_argument("--policy", help=f"without a run: {' or '.join(POLICIES)} (random)")
    who.add_argument(
        "--action_repeat", type=int, metavar="N", help="without a run: control steps per action (2)"
    )
    what = parser.add_argument_group("what is kept")
    what.add_argument("--episodes", type=int, default=25, metavar="N", help="how many episodes (25)")
    what.add_argument("--attempts", type=int, metavar="N", help="episodes played at most (10 times as many)")
    what.add_argument(
        "--outcome", default="success", help="success (default; a task that does not tell keeps all) or any"
    )
    what.add_argument("--least_return", type=float, metavar="R", help="only episodes that return at least R")
    what.add_argument("--out", metavar="FILE", help="the file to write, NAME.npz")
    what.add_argument("--overwrite", action="store_true", help="replace it if it exists")
    how = parser.add_argument_group("how")
    how.add_argument("--seed", type=int, default=0, help="of physics and draws (0)")
    how.add_argument("--num_envs", type=int, default=1, metavar="N", help="with a run: side by side (1)")
    how.add_argument("--device", default="auto", help="with a run: auto, cpu, cuda or cuda:N (auto)")
    how.add_argument("--debug", action="store_true", help="tracebacks instead of two-line errors")
    return parser
