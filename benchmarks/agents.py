"""Time an update and an action of every agent, as multiples of DrQ-v2's in the same run.

    python -m benchmarks.agents                                    # every agent of cfgs/agent, batch 256
    python -m benchmarks.agents --agents svea curl --batch 32 --threads 1 --out agents.json

Rounds go through all agents in turn, so that a machine which slows down slows all of them; a ratio is the
median over the rounds of an agent's time divided by DrQ-v2's in the same round. On the CPU the figures are
CPU milliseconds of the whole process (all threads together), on a GPU wall-clock milliseconds with the device
waited for. Frozen networks have random weights and overlays are generated textures: neither changes the time.
``--out FILE.json`` also writes the table as ``FILE.md``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from benchmarks import rounds
from common.devices import resolve_device
from common.errors import run_script, unknown_choice
from common.paths import PROJECT_ROOT

BASELINE = "drqv2"


def agent_names() -> list[str]:
    """Return the agents of ``cfgs/agent``, DrQ-v2 first."""
    names = sorted(path.stem for path in (PROJECT_ROOT / "cfgs" / "agent").glob("*.yaml"))
    return [BASELINE, *(name for name in names if name != BASELINE)]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = rounds.parser(__doc__)
    parser.add_argument("--agents", nargs="+", default=agent_names(), help="DrQ-v2 is always measured too")
    flags = parser.parse_args(arguments)
    for name in flags.agents:
        if name not in agent_names():
            raise unknown_choice("agent", name, agent_names())
    rounds.check(flags)
    flags.agents = [name for name in agent_names() if name == BASELINE or name in flags.agents]
    return flags


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    flags = parse(arguments)
    device = resolve_device(flags.device, flags.threads)
    built = {name: rounds.build([f"agent={name}"], flags.image_size, device) for name in flags.agents}
    rounds.run(flags, built, BASELINE, "agent")


if __name__ == "__main__":
    run_script(main)
