"""Times of updates and actions of several agents in turn, and ratios between them; used by scripts here."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Dict

from algos import Batch, DrQV2Agent
from algos.recorded_update import UPDATES_BEFORE_REPLAY
from benchmarks import flags as flags_of
from benchmarks import machine, output
from benchmarks.ledger import clock
from common.devices import resolve_device
from training.config import compose_config
from training.factory import make_agent

ACTIONS = 6  # walker's
Spent = dict[str, dict[str, list[float]]]
Table = dict[str, dict[str, Any]]


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the flags that all such scripts have."""
    made = flags_of.parser(description)
    made.add_argument("--device", default="cpu")
    made.add_argument("--threads", type=int, help="torch threads; default: torch's own choice")
    made.add_argument("--batch", type=int, default=256, help="transitions per update")
    made.add_argument("--envs", type=int, default=1, help="observations per act")
    made.add_argument("--image-size", type=int, default=84)
    made.add_argument("--rounds", type=int, default=7)
    made.add_argument("--warmup", type=int, default=2, help="rounds that do not count")
    made.add_argument("--updates", type=int, default=1, help="updates per round")
    made.add_argument("--acts", type=int, default=10, help="actions per round")
    made.add_argument("--out", help="write the figures as JSON, and the table beside it")
    return made


def check(flags: argparse.Namespace) -> None:
    """Refuse impossible numbers.

    Raises:
        ConfigError: naming the flag.
    """
    flags_of.check_counts(flags, "batch", "envs", "image_size", "rounds", "updates", "acts")
    flags_of.check_counts(flags, "warmup", least=0)


def run(
    flags: argparse.Namespace, agents: Mapping[str, DrQV2Agent], baseline: str, kind: str
) -> tuple[Table, dict[str, Any]]:
    """Measure all agents, print the table and write it where ``flags.out`` says.

    Args:
        flags: of ``parser``.
        agents: by the label of their row, as ``build`` makes them.
        baseline: the row that ratios refer to.
        kind: what a row is, for the first column: ``agent``.

    Returns:
        the table and how it was measured.
    """
    device = resolve_device(flags.device, flags.threads)
    setting = {
        **machine.facts(device),
        "precision": f"float32 (matmul {torch.get_float32_matmul_precision()}) unless the row says otherwise",
        "batch": flags.batch,
        "envs": flags.envs,
        "image_size": flags.image_size,
        "rounds": flags.rounds,
    }
    table = summarise(measure(flags, agents, device), baseline)
    text = markdown(table, setting, baseline, kind)
    output.finish(flags.out, {"setting": setting, f"{kind}s": table}, text)
    return table, setting


def measure(flags: argparse.Namespace, agents: Mapping[str, DrQV2Agent], device: torch.device) -> Spent:
    """Return row -> ``update`` and ``act`` -> milliseconds of each round."""
    spent: Spent = {label: {"update": [], "act": []} for label in agents}
    batches = {agent.obs_shape: draw_batch(agent.obs_shape, flags.batch, device) for agent in agents.values()}
    for agent in agents.values():
        for _ in range(UPDATES_BEFORE_REPLAY if agent.numerics.cuda_graph else 0):
            agent.update(batches[agent.obs_shape], 10_000)
    for number in range(flags.warmup + flags.rounds):
        for label, agent in agents.items():
            step, batch = 10_000 + number, batches[agent.obs_shape]
            obs = batch.obs[: flags.envs].cpu().numpy()
            update, act = partial(agent.update, batch, step), partial(agent.act, obs, step, eval_mode=False)
            found = {
                "update": milliseconds(update, flags.updates, device),
                "act": milliseconds(act, flags.acts, device),
            }
            if number >= flags.warmup:
                for key, value in found.items():
                    spent[label][key].append(value)
    return spent


def build(overrides: Sequence[str], image_size: int, device: torch.device) -> DrQV2Agent:
    """Return an agent as ``train.py`` would make it with these overrides, ready to learn."""
    cfg = compose_config([*overrides, f"image_size={image_size}"])
    if "encoder_weights" in cfg.agent:
        cfg.agent.encoder_weights = "random"
    pixels = Box(0, 255, (image_size, image_size, 3), np.uint8)
    action = Box(-1.0, 1.0, (ACTIONS,), np.float32)
    spaces = {"single_observation_space": Dict(pixels=pixels), "single_action_space": action}
    agent = make_agent(cfg, SimpleNamespace(**spaces), device)
    agent.prepare()
    return agent


def draw_batch(shape: tuple[int, ...], size: int, device: torch.device) -> Batch:
    """Return random transitions."""
    g = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (2, size, *shape), generator=g, dtype=torch.uint8)
    action = torch.rand(size, ACTIONS, generator=g) * 2 - 1
    reward, discount = torch.rand(size, 1, generator=g), torch.full((size, 1), 0.97)
    return Batch(frames[0], action, reward, discount, frames[1]).to(device)


def milliseconds(function: Callable[[], Any], repeats: int, device: torch.device) -> float:
    """Return the mean time of a call: CPU time, or wall time of the GPU."""
    read = clock(device)
    start = read()
    for _ in range(repeats):
        function()
    return 1000 * (read() - start) / repeats


def summarise(spent: Spent, baseline: str) -> Table:
    """Return medians, ratios to the baseline round by round, and all rounds."""
    table: Table = {}
    for label, found in spent.items():
        row: dict[str, Any] = {}
        for key, rounds in found.items():
            row[f"{key}_ms"] = statistics.median(rounds)
            row[f"{key}_ratio"] = output.ratio(rounds, spent[baseline][key])
            row[f"{key}_rounds_ms"] = rounds
        table[label] = row
    return table


def markdown(table: Table, setting: Mapping[str, Any], baseline: str, kind: str) -> str:
    """Return the result as a Markdown table under a line that states how it was measured."""
    heads = [kind]
    for key in ("update", "act"):
        heads += [f"{key} (ms)", f"x {baseline} (range)"]
    rows = []
    for label, row in table.items():
        cells = [label]
        for key in ("update", "act"):
            cells += [f"{row[f'{key}_ms']:.2f}", output.shown(row[f"{key}_ratio"])]
        rows.append(cells)
    return f"{output.setting_line(setting)}\n\n{output.table(heads, rows)}"
