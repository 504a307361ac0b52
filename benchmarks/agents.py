"""Time an update and an action of every agent, as multiples of DrQ-v2's in the same run.

    python benchmarks/agents.py                                    # every agent of cfgs/agent, batch 256
    python benchmarks/agents.py --agents svea curl --batch 32 --threads 1 --out agents.json

Rounds go through all agents in turn, so that a machine which slows down slows all of them; a ratio is the
median over the rounds of an agent's time divided by DrQ-v2's in the same round. On the CPU the figures are
CPU milliseconds of the whole process (all threads together), on a GPU wall-clock milliseconds with the device
waited for. Frozen networks have random weights and overlays are generated textures: neither changes the time.
``--out FILE.json`` also writes the table as ``FILE.md``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch

from algos import Batch, DrQV2Agent
from common.devices import resolve_device
from common.errors import ConfigError, run_script, unknown_choice
from common.files import write_bytes, write_json
from common.paths import PROJECT_ROOT, output_path
from training.config import compose_config
from training.factory import make_agent

BASELINE = "drqv2"
ACTIONS = 6  # walker's


def agent_names() -> list[str]:
    """Return the agents of ``cfgs/agent``, DrQ-v2 first."""
    names = sorted(path.stem for path in (PROJECT_ROOT / "cfgs" / "agent").glob("*.yaml"))
    return [BASELINE, *(name for name in names if name != BASELINE)]


def build(name: str, image_size: int, device: torch.device) -> tuple[DrQV2Agent, tuple[int, ...]]:
    """Return an agent as ``train.py`` would make it, ready to learn, and the shape of what it sees."""
    cfg = compose_config([f"agent={name}", f"image_size={image_size}"])
    if "encoder_weights" in cfg.agent:
        cfg.agent.encoder_weights = "random"
    pixels, action = SimpleNamespace(shape=(image_size, image_size, 3)), SimpleNamespace(shape=(ACTIONS,))
    spaces = {"single_observation_space": {"pixels": pixels}, "single_action_space": action}
    agent = make_agent(cfg, SimpleNamespace(**spaces), device)
    agent.prepare()
    return agent, agent.obs_shape


def draw_batch(shape: tuple[int, ...], size: int, device: torch.device) -> Batch:
    """Return random transitions."""
    g = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (2, size, *shape), generator=g, dtype=torch.uint8)
    action = torch.rand(size, ACTIONS, generator=g) * 2 - 1
    reward, discount = torch.rand(size, 1, generator=g), torch.full((size, 1), 0.97)
    return Batch(frames[0], action, reward, discount, frames[1]).to(device)


def milliseconds(function: Callable[[], Any], repeats: int, device: torch.device) -> float:
    """Return the mean time of a call: CPU time, or wall time of the GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    start = clock()
    for _ in range(repeats):
        function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return 1000 * (clock() - start) / repeats


def measure(flags: argparse.Namespace, device: torch.device) -> dict[str, dict[str, list[float]]]:
    """Return agent -> ``update`` and ``act`` -> milliseconds of each round."""
    agents: dict[str, tuple[DrQV2Agent, Batch]] = {}
    for name in flags.agents:
        agent, shape = build(name, flags.image_size, device)
        agents[name] = agent, draw_batch(shape, flags.batch, device)
    spent: dict[str, dict[str, list[float]]] = {name: {"update": [], "act": []} for name in agents}
    for number in range(flags.warmup + flags.rounds):
        for name, (agent, batch) in agents.items():
            step = 10_000 + number
            obs = batch.obs[: flags.envs].cpu().numpy()
            update, act = partial(agent.update, batch, step), partial(agent.act, obs, step, eval_mode=False)
            found = {
                "update": milliseconds(update, flags.updates, device),
                "act": milliseconds(act, flags.acts, device),
            }
            if number >= flags.warmup:
                for key, value in found.items():
                    spent[name][key].append(value)
    return spent


def summarise(spent: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, Any]]:
    """Return medians, ratios to the baseline round by round, and all rounds."""
    table: dict[str, dict[str, Any]] = {}
    for name, found in spent.items():
        row: dict[str, Any] = {}
        for key, rounds in found.items():
            ratios = [own / base for own, base in zip(rounds, spent[BASELINE][key], strict=True)]
            row[f"{key}_ms"] = statistics.median(rounds)
            row[f"{key}_ratio"] = statistics.median(ratios)
            row[f"{key}_ratio_range"] = [min(ratios), max(ratios)]
            row[f"{key}_rounds_ms"] = rounds
        table[name] = row
    return table


def markdown(table: dict[str, dict[str, Any]], setting: dict[str, Any]) -> str:
    """Return the result as a Markdown table under a line that states how it was measured."""
    lines = [
        ", ".join(f"{name} {value}" for name, value in setting.items()),
        "",
        "| agent | update (ms) | x drqv2 (range) | act (ms) | x drqv2 (range) |",
        "|---|---|---|---|---|",
    ]
    for name, row in table.items():
        cells = [name]
        for key in ("update", "act"):
            low, high = row[f"{key}_ratio_range"]
            cells += [f"{row[f'{key}_ms']:.2f}", f"{row[f'{key}_ratio']:.2f} ({low:.2f} to {high:.2f})"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--agents", nargs="+", default=agent_names(), help="DrQ-v2 is always measured too")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="torch threads; default: torch's own choice")
    parser.add_argument("--batch", type=int, default=256, help="transitions per update")
    parser.add_argument("--envs", type=int, default=1, help="observations per act")
    parser.add_argument("--image-size", type=int, default=84)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--warmup", type=int, default=2, help="rounds that do not count")
    parser.add_argument("--updates", type=int, default=1, help="updates per round")
    parser.add_argument("--acts", type=int, default=10, help="actions per round")
    parser.add_argument("--out", help="write the figures as JSON, and the table beside it")
    flags = parser.parse_args(arguments)
    for name in flags.agents:
        if name not in agent_names():
            raise unknown_choice("agent", name, agent_names())
    for name in ("batch", "envs", "image_size", "rounds", "warmup", "updates", "acts"):
        value, least = getattr(flags, name), 0 if name == "warmup" else 1
        if value < least:
            flag = name.replace("_", "-")
            raise ConfigError(f"--{flag} {value} is not possible.", f"Use {least} or more.")
    flags.agents = [name for name in agent_names() if name == BASELINE or name in flags.agents]
    return flags


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    flags = parse(arguments)
    device = resolve_device(flags.device, flags.threads)
    gpu = device.type == "cuda"
    setting = {
        "device": torch.cuda.get_device_name(device) if gpu else "cpu",
        "threads": torch.get_num_threads(),
        "precision": f"float32 (matmul {torch.get_float32_matmul_precision()})",
        "batch": flags.batch,
        "envs": flags.envs,
        "image_size": flags.image_size,
        "rounds": flags.rounds,
        "clock": "wall" if gpu else "cpu",
        "torch": torch.__version__,
    }
    table = summarise(measure(flags, device))
    text = markdown(table, setting)
    print(text)
    if flags.out:
        path = output_path(flags.out)
        write_json(path, {"setting": setting, "agents": table})
        write_bytes(path.with_suffix(".md"), text.encode())
        print(f"Written: {path}, {path.with_suffix('.md')}")


if __name__ == "__main__":
    run_script(main)
