"""Measure every option of a masker: its speed, and how far its masks are from the exact ones.

    python -m benchmarks.masker_options                                   # tiny and paper (drawn weights)
    python -m benchmarks.masker_options --variants paper fast --device cuda --batches 1 64 --out options.json

``exact`` is float32, eager, three passes, every frame. Options that only change how masks are computed come
first, then the approximations, which change the method. Rounds go through all rows in turn; a ratio is the
median over rounds of the row's time by the exact one's in the same round (CPU time of the whole process, or
wall time of the GPU). A row that masks every k-th frame is given k batches of frames, of which it masks one.
IoU compares the masks of consecutive frames of a real episode with the exact masker's; with drawn weights,
which full-size networks have here, masks are senseless and near-ties likelier than with trained ones. The
first call, which compiles or records, is timed apart. A row that this machine cannot run is left out with
the reason.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
from collections.abc import Sequence
from typing import Any

os.environ.setdefault("MUJOCO_GL", "egl")

import torch

import envs
from benchmarks import flags as flags_of
from benchmarks import machine, output
from benchmarks.ledger import Ledger, clock
from benchmarks.maskers import drawn_weights, fitted_masker
from common.devices import resolve_device
from common.errors import SamgError, run_script
from samg.agreement import episode_masks, mask_iou
from samg.build import NETWORKS

BASELINE = "exact"
BFLOAT16, COMPILED = {"precision": "bfloat16"}, {"compile": True}
LAST, GRAPH = {"channels_last": True}, {"cuda_graph": True}
NUMERICS: dict[str, dict[str, Any]] = {
    BASELINE: {},
    "channels last": LAST,
    "compiled": COMPILED,
    "compiled, channels last": COMPILED | LAST,
    "CUDA graph": GRAPH,
    "bfloat16": BFLOAT16,
    "bfloat16, channels last": BFLOAT16 | LAST,
    "bfloat16, compiled": BFLOAT16 | COMPILED,
    "bfloat16, compiled, channels last": BFLOAT16 | COMPILED | LAST,
    "bfloat16, CUDA graph": BFLOAT16 | GRAPH,
    "bfloat16, compiled, channels last, CUDA graph": BFLOAT16 | COMPILED | LAST | GRAPH,
}
"""Rows that compute the same method otherwise."""
METHODS: dict[str, dict[str, Any]] = {
    "DINOv2 at 224 px": {"dino_size": 224},
    "DINOv2 at 224 px, bfloat16, compiled": {"dino_size": 224} | BFLOAT16 | COMPILED,
    "two passes": {"passes": 2},
    "one pass": {"passes": 1},
    "every 2nd frame": {"every": 2},
    "every 4th frame": {"every": 4},
    "map, no decoder": {"mask_from": "map"},
}
"""Rows of another method."""
ROWS = NUMERICS | METHODS


class Row:
    """One option: a fitted masker, and what is measured of it.

    Args:
        variant: of the masker.
        label: of the row.
        task: whose reference it is fitted to.
        device: where it runs.
    """

    def __init__(self, variant: str, label: str, task: str, device: torch.device) -> None:
        self.label, self.device = label, device
        self.masker = fitted_masker(variant, task, device, ROWS[label])
        self.method = METHODS.get(label, {})
        self.every = int(ROWS[label].get("every", 1))
        self.first_call: dict[int, float] = {}
        self.spent: dict[int, list[float]] = {}
        self.gflop: float | None = None
        self._ledger = Ledger(clock(device))

    def warm_up(self, frames: torch.Tensor, batch: int) -> None:
        """Mask a batch three times; the first call, which may compile, is timed."""
        self._ledger.measure("first", self._mask, frames, batch)
        self.first_call[batch] = self._ledger.take()["first"]
        self._mask(frames, batch)
        self._mask(frames, batch)

    def count(self, frames: torch.Tensor) -> None:
        """Count the operations per frame; not to be asked of compiled networks."""
        self.gflop = sum(self._ledger.count_flops(self._mask, frames, 1).values()) / 1e9 / self.every

    def time(self, frames: torch.Tensor, batch: int) -> None:
        """Book the seconds per frame where so many are masked at once."""
        self._ledger.measure("batch", self._mask, frames, batch)
        self.spent.setdefault(batch, []).append(self._ledger.take()["batch"] / (batch * self.every))

    def _mask(self, frames: torch.Tensor, batch: int) -> None:
        """Mask a batch of the first frames of an episode, and give the frames between them their masks."""
        episode_masks(self.masker, frames[: batch * self.every])


def episode(task: str, level: str, count: int) -> torch.Tensor:
    """Return the first frames of an episode of random actions, uint8 (count, 84, 84, 3)."""
    with contextlib.closing(envs.make_env(task, level=level, source="procedural")) as env:
        env.action_space.seed(0)
        frames = [env.reset(seed=0)[0]["pixels"]]
        while len(frames) < count:
            frames.append(env.step(env.action_space.sample())[0]["pixels"])
        return torch.stack([torch.from_numpy(frame.copy()) for frame in frames])


def build_rows(variant: str, flags: argparse.Namespace, device: torch.device) -> dict[str, Row]:
    """Return the rows that differ from ``exact`` and can run here."""
    rows: dict[str, Row] = {}
    seen: list[dict[str, Any]] = []
    for label in flags.rows:
        chosen = ROWS[label]
        computed = NETWORKS[variant].numerics.to_dict() | chosen
        if computed in seen:
            continue  # this variant computes so anyway
        seen.append(computed)
        try:
            row = Row(variant, label, flags.task, device)
        except SamgError as error:
            print(f"Left out: {variant}, {label} ({error.message})", flush=True)
            continue
        if chosen.get("compile") and not row.masker.info.numerics["compile"]:
            print(f"Left out: {variant}, {label} (nothing can be compiled here)", flush=True)
            continue
        rows[label] = row
    return rows


def first_calls(variant: str, row: Row, frames: torch.Tensor, batches: Sequence[int]) -> bool:
    """Make a row's first calls, which compile and record; return whether that was possible.

    Without the row that all others are compared with there is no table: its errors are raised.
    """
    print(f"{variant}, {row.label}: first calls", flush=True)
    try:
        if not ROWS[row.label].get("compile") and not ROWS[row.label].get("cuda_graph"):
            row.count(frames)
        for batch in batches:
            row.warm_up(frames, batch)
    except RuntimeError as error:  # too little memory, a compiler that fails, an operation nobody can record
        if row.label == BASELINE:
            raise
        print(f"Left out: {variant}, {row.label} ({' '.join(str(error).split())[:200]})", flush=True)
        return False
    return True


def measure(variant: str, flags: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """Return what is measured of every row of a variant."""
    longest = max(flags.batches) * max(int(ROWS[label].get("every", 1)) for label in flags.rows)
    frames = episode(flags.task, flags.level, max(longest, flags.frames)).to(device)
    built = build_rows(variant, flags, device)
    rows = {label: row for label, row in built.items() if first_calls(variant, row, frames, flags.batches)}
    for number in range(flags.rounds):
        print(f"{variant}: round {number + 1} of {flags.rounds}", flush=True)
        for row in rows.values():
            for batch in flags.batches:
                row.time(frames, batch)
    print(f"{variant}: comparing masks", flush=True)
    masks = {label: episode_masks(row.masker, frames[: flags.frames]) for label, row in rows.items()}
    iou = {label: mask_iou(masks[BASELINE], found) for label, found in masks.items()}
    return [summarise(row, rows[BASELINE], iou[label], flags) for label, row in rows.items()]


def summarise(row: Row, exact: Row, iou: torch.Tensor, flags: argparse.Namespace) -> dict[str, Any]:
    """Return one row's figures; ``iou`` is float (N,), its masks' with the exact ones."""
    gflop = row.gflop or (None if row.method else exact.gflop)  # compiled rows are not counted
    return {
        "row": row.label,
        "options": ROWS[row.label],
        "changes_method": bool(row.method),
        "gflop": gflop,
        "iou": {"mean": float(iou.mean()), "least": float(iou.min()), "frames": len(iou)},
        "batches": {
            str(batch): {
                "ms": 1000 * statistics.median(row.spent[batch]),
                "over_exact": output.ratio(row.spent[batch], exact.spent[batch]),
                "times_as_fast": 1 / output.ratio(row.spent[batch], exact.spent[batch])["median"],
                "gflop_per_s": gflop / statistics.median(row.spent[batch]) if gflop else None,
                "first_call_s": row.first_call[batch],
            }
            for batch in flags.batches
        },
    }


def table(rows: Sequence[dict[str, Any]], rates: dict[str, float]) -> str:
    """Return the rows of one variant; the share of the matmul rate refers to the row's own precision."""
    heads = ["option", "mask IoU, mean (least)"]
    for batch in rows[0]["batches"]:
        heads += [
            f"batch {batch}: ms",
            "x exact (range)",
            "times as fast",
            "of the matmul rate",
            "first call (s)",
        ]
    cells = []
    for row in rows:
        rate = rates[row["options"].get("precision", "float32")]
        line = [row["row"], f"{row['iou']['mean']:.4f} ({row['iou']['least']:.3f})"]
        for found in row["batches"].values():
            achieved = f"{100 * found['gflop_per_s'] / rate:.0f} %" if found["gflop_per_s"] else ""
            line += [f"{found['ms']:.2f}", output.shown(found["over_exact"]), f"{found['times_as_fast']:.2f}"]
            line += [achieved, f"{found['first_call_s']:.1f}"]
        cells.append(line)
    return output.table(heads, cells)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = flags_of.parser(__doc__)
    parser.add_argument("--variants", nargs="+", default=["tiny", "paper"], help=", ".join(NETWORKS))
    parser.add_argument("--rows", nargs="+", default=list(ROWS), metavar="ROW", help="; ".join(ROWS))
    parser.add_argument("--batches", nargs="+", type=int, default=[1], help="frames per call")
    parser.add_argument("--task", default="walker_walk")
    parser.add_argument("--level", default="color_hard")
    parser.add_argument("--frames", type=int, default=24, help="whose masks are compared")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="tiny, one round, four frames")
    flags_of.add_machine(parser)
    flags = parser.parse_args(arguments)
    if flags.quick:
        flags.variants, flags.rounds, flags.frames = ["tiny"], 1, 4
    flags_of.check_known("masker", flags.variants, NETWORKS)
    flags_of.check_known("row", flags.rows, ROWS)
    flags_of.check_counts(flags, "frames", "rounds", "threads", "batches")
    flags.rows = [label for label in ROWS if label in (BASELINE, *flags.rows)]
    return flags


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    flags = parse(arguments)
    device = resolve_device(flags.device, flags.threads)
    rates = machine.rates(device)
    setting = {
        **machine.facts(device),
        "task": flags.task,
        "level": f"{flags.level} (procedural)",
        "rounds": flags.rounds,
        "matmul_gflop_per_s": {name: round(rate, 1) for name, rate in rates.items()},
    }
    variants = {variant: measure(variant, flags, device) for variant in flags.variants}
    parts = [output.setting_line(setting) + "\n"]
    for variant, rows in variants.items():
        weights = drawn_weights(variant) or "embedded"
        parts.append(f"\n**{variant}** ({weights} weights), {flags.frames} frames compared\n\n")
        parts.append(table(rows, rates))
    output.finish(flags.out, {"setting": setting, "variants": variants}, "".join(parts))


if __name__ == "__main__":
    run_script(main)
