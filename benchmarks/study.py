"""The questions that the paper leaves open: masks now; evaluation and report of trained runs.

    python -m benchmarks.study passes masks --source procedural
    python train.py +study=passes task=cup_catch
    python -m benchmarks.study passes evaluate --episodes 20
    python -m benchmarks.study passes report

The settings are those of cfgs/study/NAME.yaml. ``masks`` fits a masker per setting and domain and measures
its masks against the simulator's, with no agent and no training. ``evaluate`` takes every trained run of the
sweep to the study's levels (further flags are locoeval.py's) and then reports; what is finished is kept, so
the command can be given again while runs are added. ``report`` hands the result files to report.py, one
method per setting.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("MUJOCO_GL", "egl")

from omegaconf import OmegaConf

from benchmarks.mask_frames import DOMAINS
from benchmarks.maskers import parsed_options
from benchmarks.study_masks import Plan, masks_report, measure_settings
from common.errors import InputError, run_script, unknown_choice
from common.files import write_bytes, write_json
from common.paths import PROJECT_ROOT, output_path
from evaluation.masker_choice import WITHOUT_REFERENCE
from training.config import CONFIG_DIR, STUDY, compose_config


@dataclass(frozen=True)
class Study:
    """One question.

    Attributes:
        name: of its file.
        question: in words.
        key: what the sweep varies, such as ``study.setting``.
        settings: its values.
        baseline: the setting that SAM-G's choice comes closest to.
        levels: where runs are evaluated, and masks measured.
    """

    name: str
    question: str
    key: str
    settings: tuple[str, ...]
    baseline: str
    levels: tuple[str, ...]

    @classmethod
    def load(cls, name: str) -> Study:
        """Read ``cfgs/study/NAME.yaml``.

        Raises:
            ConfigError: there is no such study.
        """
        if name not in study_names():
            raise unknown_choice("study", name, study_names())
        stored = OmegaConf.load(CONFIG_DIR / "study" / f"{name}.yaml")
        swept = {k: str(v) for k, v in stored.hydra.sweeper.params.items() if k != "seed"}
        ((key, values),) = swept.items()
        chosen = stored.study
        settings = tuple(value.strip() for value in values.split(","))
        return cls(name, chosen.question, str(key), settings, chosen.baseline, tuple(chosen.levels))

    def masker(self, setting: str, variant: str) -> dict[str, Any]:
        """Return the masker's configuration under a setting, as a training would compose it.

        Args:
            setting: one of ``settings``.
            variant: ``tiny`` or ``paper``; settings that name maskers without networks stay as they are.
        """
        overrides = [f"masker={variant}", f"{self.key}={setting}"]
        if self.key == "masker":
            overrides = [f"masker={setting if setting in WITHOUT_REFERENCE else variant}"]
        config = compose_config([f"{STUDY}={self.name}", *overrides])
        resolved: Any = OmegaConf.to_container(config.masker, resolve=True)
        return dict(resolved)


def study_names() -> list[str]:
    """Return the names of all studies."""
    return sorted(path.stem for path in (CONFIG_DIR / "study").glob("*.yaml"))


def measure_masks(study: Study, chosen: argparse.Namespace, folder: Path) -> str:
    """Measure the masks of every setting; write ``masks.json`` and ``masks.md``, and return the latter."""
    plan = Plan(
        domains=chosen.domains,
        levels=chosen.levels or study.levels,
        frames=chosen.frames,
        seed=chosen.seed,
        source=chosen.source,
        data_dir=chosen.data_dir,
        cache=folder.parent / "frames",
        device=chosen.device,
    )
    further = parsed_options(chosen.masker_options)
    maskers = {setting: study.masker(setting, chosen.masker) | further for setting in study.settings}
    facts = {"study": study.name, "question": study.question}
    record = {**facts, **measure_settings(maskers, plan, study.baseline)}
    text = masks_report(record)
    write_json(folder / "masks.json", record)
    write_bytes(folder / "masks.md", text.encode())
    return text


def trained_runs(study: Study, folder: Path) -> dict[Path, str]:
    """Return the runs of a study that have a snapshot, with their settings, in the order of their names.

    Raises:
        InputError: there is none.
    """
    found = {}
    for path in sorted(folder.rglob("config.yaml")):
        if path.parent.name == ".hydra" or not any((path.parent / "snapshots").glob("step_*")):
            continue
        config = OmegaConf.load(path)
        if OmegaConf.select(config, "study.name") == study.name:
            found[path.parent] = str(config.study.setting)
    if not found:
        raise InputError(
            f"{folder} holds no trained run of the study {study.name}.",
            f"Train with python train.py {STUDY}={study.name}, or name another folder with --runs.",
        )
    return found


def evaluate(study: Study, folder: Path, further: Sequence[str]) -> int:
    """Evaluate all trained runs on the study's levels; return the exit code."""
    runs = [str(path) for path in trained_runs(study, folder)]
    return _script("locoeval.py", "--model_dir", *runs, "--mode", *study.levels, *further)


def report(study: Study, folder: Path) -> int:
    """Report all results of a study's runs, one method per setting; return the exit code."""
    runs = trained_runs(study, folder)
    labels = [f"--label={setting}={path}" for path, setting in runs.items()]
    baseline = ["--baseline", study.baseline] if study.baseline in runs.values() else []
    out = ["--out", str(folder / "report"), "--overwrite", "--title", study.question]
    return _script("report.py", *labels, *baseline, *out)


def _script(name: str, *arguments: str) -> int:
    return subprocess.run([sys.executable, str(PROJECT_ROOT / name), *arguments], check=False).returncode


def _parser() -> argparse.ArgumentParser:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("study", help=f"{', '.join(study_names())}; masks also takes all")
    parser.add_argument("what", choices=["masks", "evaluate", "report"])
    parser.add_argument(
        "--runs", metavar="DIR", help="the sweep's folder (default: runs/study/NAME); of all: DIR/NAME"
    )
    masks = parser.add_argument_group("masks")
    masks.add_argument("--masker", default="tiny", help="tiny or paper")
    masks.add_argument("--domains", nargs="+", default=list(DOMAINS), choices=DOMAINS)
    masks.add_argument("--levels", nargs="+", help="default: the study's")
    masks.add_argument("--frames", type=int, default=18, help="per domain and level")
    masks.add_argument("--seed", type=int, default=100)
    masks.add_argument("--source", default="dmcgb", help="dmcgb or procedural")
    masks.add_argument(
        "--masker_options", nargs="+", default=[], help="of all maskers, such as presence=null"
    )
    masks.add_argument("--data-dir", default=None)
    masks.add_argument("--device", default="cpu")
    return parser


def main(argv: Sequence[str]) -> int:
    """Run one command; return the exit code."""
    chosen, further = _parser().parse_known_args(argv)
    if further and chosen.what != "evaluate":
        _parser().error(f"unknown arguments: {' '.join(further)}")
    names = study_names() if (chosen.study, chosen.what) == ("all", "masks") else [chosen.study]
    code = 0
    for study in map(Study.load, names):
        folder = output_path(chosen.runs or f"runs/study/{study.name}")
        if chosen.runs and len(names) > 1:
            folder /= study.name
        if chosen.what == "masks":
            sys.stdout.write(f"\n{measure_masks(study, chosen, folder)}\n")
        elif chosen.what == "evaluate":
            code = evaluate(study, folder, further) or report(study, folder)
        else:
            code = report(study, folder)
    return code


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
