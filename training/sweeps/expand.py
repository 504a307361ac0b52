"""What ``train.py --multirun`` would run: the overrides, the folder and the configuration of every run."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from common.errors import ConfigError
from training.config import ADDED, GROUPS, LAUNCHER, STUDY, compose_config, split_command_line

BASIC = "basic"  # Hydra's own launcher: one run after the other, in this process
SUBDIR = "hydra.sweep.subdir"
_NAMED = (*GROUPS, "task_name", "seed")  # swept keys that the folder's name has already
_SWEPT_ANYWAY = ("+suite", "+study", "hydra.mode=MULTIRUN", LAUNCHER)


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep.

    Attributes:
        overrides: as Hydra hands them to the launcher.
        subdir: folder of the run in that of the sweep.
        config: composed, without Hydra's own part.
    """

    overrides: tuple[str, ...]
    subdir: str
    config: DictConfig


@dataclass(frozen=True)
class Sweep:
    """All runs of one command.

    Attributes:
        directory: absolute path of the sweep's folder.
        launcher: ``basic``, ``local``, ``slurm`` or ``ray``.
        launcher_config: Hydra's settings of the launcher.
        runs: in the order in which they are launched.
    """

    directory: Path
    launcher: str
    launcher_config: dict[str, Any]
    runs: tuple[PlannedRun, ...]

    def folder(self, run: PlannedRun) -> Path:
        """Return the directory of a run."""
        return self.directory / run.subdir


def is_sweep(arguments: Sequence[str]) -> bool:
    """Return whether a command line of ``train.py`` asks for several runs."""
    _, multirun, texts = split_command_line(list(arguments))
    return multirun or any(text.startswith(_SWEPT_ANYWAY) for text in texts)


def chosen_launcher(arguments: Sequence[str]) -> str:
    """Return the launcher that a command line names."""
    _, _, texts = split_command_line(list(arguments))
    names = [text.partition("=")[2] for text in texts if text.startswith(f"{LAUNCHER}=")]
    return names[-1] if names else BASIC


def name_folders(arguments: Sequence[str]) -> list[str]:
    """Return the command line with a folder name that tells apart all that is swept.

    ``lr=1e-3,1e-4`` gives ``.../drqv2-tiny-lr=0.001-s0`` and so on. A study, or the user, may name folders.
    """
    config_name, _, texts = split_command_line(list(arguments))
    if any(text.startswith((f"{SUBDIR}=", f"{STUDY}=")) for text in texts):
        return list(arguments)
    swept = [o.get_key_element() for o in _parse(texts) if o.is_sweep_override()]
    further = [key for key in swept if key not in _NAMED and not key.startswith(("hydra", *ADDED))]
    if not further:
        return list(arguments)
    stored = compose_config((), config_name, with_hydra=True)
    pattern = str(OmegaConf.to_container(stored.hydra.sweep, resolve=False)["subdir"])  # type: ignore[index,call-overload]
    keys = [key.lstrip("+") for key in further]
    names = "".join(f"-{key.rpartition('.')[2]}=${{{key}}}" for key in keys)
    head, mark, tail = pattern.rpartition("-s${seed}")
    return [*arguments, f"{SUBDIR}='{head}{names}{mark}{tail}'"]


def expand(arguments: Sequence[str]) -> Sweep:
    """Return the runs of a checked command line.

    Raises:
        ConfigError: it cannot be composed, or two runs would share a folder.
    """
    config_name, _, texts = split_command_line(list(arguments))
    overrides = _parse(texts)
    single = [
        text for text, override in zip(texts, overrides, strict=True) if not override.is_sweep_override()
    ]
    base = compose_config(single, config_name, with_hydra=True)
    hydra = [text for text in single if text.startswith("hydra")]
    params: Any = OmegaConf.to_container(base.hydra.sweeper.params or OmegaConf.create({}), resolve=True)
    task = [f"{key}={value}" for key, value in params.items()]
    task += [text for text in texts if not text.startswith("hydra")]
    batches = BasicSweeper.split_arguments(_parse(task), None)
    runs: list[PlannedRun] = []
    composed: dict[tuple[str, ...], DictConfig] = {}
    for chosen in batches[0]:
        # Composing is slow, and seeds change nothing else.
        seed = [text for text in chosen if text.startswith("seed=")]
        rest = tuple(text for text in chosen if not text.startswith("seed="))
        if rest not in composed:
            composed[rest] = compose_config([*hydra, *rest, *seed], config_name, with_hydra=True)
        runs.append(_planned(composed[rest], chosen, seed))
    folders = [run.subdir for run in runs]
    twice = next((name for name in folders if folders.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(
            f"Two runs of the sweep would share the folder {twice}.",
            "Name what differs in hydra.sweep.subdir, such as '${task_name}/s${seed}-${masker.passes}'.",
        )
    launcher: Any = OmegaConf.to_container(base.hydra.launcher, resolve=False)
    with _hydra_config(base):
        directory = Path(str(base.hydra.sweep.dir)).absolute()
    return Sweep(directory, chosen_launcher(arguments), launcher, tuple(runs))


def _parse(texts: Sequence[str]) -> list[Any]:
    return OverridesParser.create().parse_overrides(list(texts))


def _planned(composed: DictConfig, overrides: Sequence[str], seed: Sequence[str]) -> PlannedRun:
    if seed:
        with open_dict(composed):
            composed.seed = _parse(seed)[0].value()
    with _hydra_config(composed):
        subdir = str(composed.hydra.sweep.subdir)
    # Without Hydra's part, which is large and the same for all.
    config = OmegaConf.create(
        {key: copy.deepcopy(composed._get_node(key)) for key in composed if key != "hydra"}
    )
    return PlannedRun(tuple(overrides), subdir, config)


@contextlib.contextmanager
def _hydra_config(composed: DictConfig) -> Iterator[None]:
    """Let ``${hydra:...}`` mean a composed configuration."""
    known = HydraConfig.instance()
    before = known.cfg
    known.set_config(composed)
    try:
        yield
    finally:
        known.cfg = before
