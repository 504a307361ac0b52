"""Run every benchmark of speed, one after the other, and put their tables into one page.

    python -m benchmarks.all --out runs/benchmarks                 # this machine's CPU
    python -m benchmarks.all --out runs/benchmarks --device cuda --only masker update training_step
    python -m benchmarks.all --out runs/benchmarks --quick          # few rounds: does everything run here?

Each script runs in a process of its own and writes NAME.json and NAME.md into the folder; ``benchmarks.md``
holds all tables with the commands that made them. A script that has its JSON there already is not run again,
so an interrupted call goes on where it stopped (``--overwrite`` runs all). One that fails is named at the
end, with the exit code 1, and keeps the others from nothing.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks import flags as flags_of
from common.devices import resolve_device
from common.errors import run_script
from common.files import write_bytes
from common.numerics import bfloat16_gains
from common.paths import PROJECT_ROOT, output_path


def fastest(device: torch.device) -> list[str]:
    """Return the options of ``agent.numerics`` that are the fastest on a device."""
    precision = ["precision=bfloat16"] if bfloat16_gains(device) else []
    return [*precision, "compile=true", *(["cuda_graph=true"] if device.type == "cuda" else [])]


@dataclass(frozen=True)
class Part:
    """One script.

    Attributes:
        name: of the result files.
        title: of its section.
        flags: what it is called with.
        quick: further flags that make it short.
        device: whether it takes ``--device``.
    """

    name: str
    title: str
    flags: Sequence[str]
    quick: Sequence[str] = ()
    device: bool = True

    @property
    def script(self) -> str:
        """Module name."""
        return f"benchmarks.{self.name.split('-')[0]}"

    def command(self, device: str, quick: bool) -> list[str]:
        """Return what a user would type after ``python``."""
        flags = [*self.flags, *(["--device", device] if self.device else []), *(self.quick if quick else [])]
        return ["-m", self.script, *flags]


def parts(device: torch.device) -> list[Part]:
    """Return all scripts, with the flags for a device."""
    several = ["--envs", "2" if device.type == "cpu" else "8"]
    one = ["--threads", "1"] if device.type == "cpu" else []
    step = ["--update", *fastest(device), *one]
    steps = ["--rounds", "1", "--decisions", "4"]
    few = ["--rounds", "1", "--transitions", "2000"]
    on_gpu = [  # batches come from page-locked memory, or from rows that lie there
        Part("replay-pinned", "Replay in RAM, batches on the GPU", [], few),
        Part("replay-gpu", "Replay on the GPU", ["--cache", "gpu"], few),
    ]
    return [
        Part("masker", "The masker, part by part", one, ["--batches", "1", "--repeats", "1"]),
        Part("masker_options", "Options of the masker: speed, and what they do to masks", one, ["--quick"]),
        Part("update", "DrQ-v2's update", one, ["--rounds", "1", "--warmup", "1", "--batch", "16"]),
        Part("agents", "All agents", one, ["--rounds", "1", "--warmup", "0", "--batch", "8"]),
        Part("replay", "Replay", [], few, device=False),
        *(on_gpu if device.type == "cuda" else []),
        Part("render", "Rendering", [], ["--rounds", "1", "--frames", "4"], device=False),
        Part("evaluation", "Evaluation", one, ["--episodes", "1", "--rounds", "1", "--action-repeat", "50"]),
        Part("training_step", "Whole training steps, one environment", step, steps),
        Part("training_step-envs", "Whole training steps, several", [*step, *several], steps),
    ]


def run_part(part: Part, folder: Path, flags: argparse.Namespace) -> bool:
    """Run one script unless it has been; return whether its result is there."""
    result = folder / f"{part.name}.json"
    if result.exists() and not flags.overwrite:
        print(f"{part.name}: there already", flush=True)
        return True
    command = part.command(flags.device, flags.quick)
    print(f"{part.name}: python {' '.join(command)}", flush=True)
    start = time.perf_counter()
    path = os.pathsep.join(filter(None, [str(PROJECT_ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, *command, "--out", str(result)], env={**os.environ, "PYTHONPATH": path}, check=False
    )
    print(f"{part.name}: exit {done.returncode} after {time.perf_counter() - start:.0f} s", flush=True)
    return done.returncode == 0 and result.exists()


def page(chosen: Sequence[Part], folder: Path, flags: argparse.Namespace) -> str:
    """Return all tables that are there, each under its command."""
    sections = ["# Benchmarks of this machine\n"]
    for part in chosen:
        text = folder / f"{part.name}.md"
        if text.exists():
            command = " ".join(part.command(flags.device, flags.quick))
            sections.append(f"## {part.title}\n\n`python {command}`\n\n{text.read_text().strip()}\n")
    return "\n".join(sections)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = flags_of.parser(__doc__)
    known = ", ".join(part.name for part in parts(torch.device("cuda")))
    parser.add_argument("--out", required=True, metavar="FOLDER", help="where results are written")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help=f"{known} (the last two of replay: on a GPU)"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="few rounds; figures worth little")
    parser.add_argument("--overwrite", action="store_true", help="measure again what is there")
    flags = parser.parse_args(arguments)
    names = [part.name for part in parts(resolve_device(flags.device))]
    flags.only = flags.only or names
    flags_of.check_known("benchmark", flags.only, names)
    return flags


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, collect, and say what failed."""
    flags = parse(arguments)
    device, folder = resolve_device(flags.device), output_path(flags.out)
    folder.mkdir(parents=True, exist_ok=True)
    chosen = [part for part in parts(device) if part.name in flags.only]
    failed = [part.name for part in chosen if not run_part(part, folder, flags)]
    write_bytes(folder / "benchmarks.md", page(chosen, folder, flags).encode())
    print(f"Written: {folder / 'benchmarks.md'}")
    if failed:
        print(f"Failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    run_script(main)
