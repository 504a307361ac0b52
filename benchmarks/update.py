"""Time an agent's update with every choice of ``agent.numerics``, as multiples of plain eager float32.

    python -m benchmarks.update                                    # DrQ-v2, batch 256
    python -m benchmarks.update --agent svea --batch 64 --threads 1 --rows exact bfloat16 --out update.json

``plain`` computes as DrQ-v2's code does: float32, eager, shifts through a bilinear grid, Adam as PyTorch
makes it by default, gradients of every loss for all that it depends on. ``exact`` is the default: the same
values up to rounding. Freed memory is kept for all rows (``common/allocator.py``). Rounds go through all rows
in turn; how times and ratios are taken says ``python -m benchmarks.agents --help``. A row that this machine
cannot run is left out with the reason.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from algos import DrQV2Agent
from benchmarks import rounds
from benchmarks.agents import agent_names
from benchmarks.plain import as_published
from common.devices import resolve_device
from common.errors import SamgError, run_script, unknown_choice

BASELINE = "plain"
ROWS = {
    "plain": ["shift=bilinear", "channels_last=false"],
    "exact": [],
    "exact, compiled": ["compile=true"],
    "exact, CUDA graph": ["cuda_graph=true"],
    "bfloat16": ["precision=bfloat16"],
    "bfloat16, compiled": ["precision=bfloat16", "compile=true"],
    "bfloat16, CUDA graph": ["precision=bfloat16", "cuda_graph=true"],
    "bfloat16, compiled, CUDA graph": ["precision=bfloat16", "compile=true", "cuda_graph=true"],
}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = rounds.parser(__doc__)
    parser.add_argument("--agent", default="drqv2")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), metavar="ROW", help=f"{'; '.join(ROWS)}")
    flags = parser.parse_args(arguments)
    if flags.agent not in agent_names():
        raise unknown_choice("agent", flags.agent, agent_names())
    for row in flags.rows:
        if row not in ROWS:
            raise unknown_choice("row", row, ROWS)
    rounds.check(flags)
    return flags


def possible(flags: argparse.Namespace) -> dict[str, DrQV2Agent]:
    """Return the agents of the chosen rows that this machine can run; the baseline is always one."""
    device, agents = resolve_device(flags.device, flags.threads), {}
    for row, choices in ROWS.items():
        if row != BASELINE and row not in flags.rows:
            continue
        overrides = [f"agent={flags.agent}", *(f"agent.numerics.{choice}" for choice in choices)]
        try:
            agent = rounds.build(overrides, flags.image_size, device)
        except SamgError as error:
            print(f"Left out: {row} ({error.message})")
            continue
        if "compile=true" in choices and not agent.numerics.compile:
            print(f"Left out: {row} (nothing can be compiled here)")
            continue
        agents[row] = as_published(agent) if row == BASELINE else agent
    return agents


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    flags = parse(arguments)
    rounds.run(flags, possible(flags), BASELINE, "row")


if __name__ == "__main__":
    run_script(main)
