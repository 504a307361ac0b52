"""Time every part of a masker in one run: loading, fitting, and each stage of a frame, by batch size.

    python -m benchmarks.masker                                  # paper (drawn weights) and tiny, one thread
    python -m benchmarks.masker --variants tiny --batches 1 8 64 --threads 2 --out masker.json

On the CPU the figures are CPU milliseconds of the whole process, medians over ``--repeats``; on a GPU they
are wall-clock milliseconds with the device waited for at every border. GFLOP are counted by PyTorch, two per
multiply-add of matrix products, convolutions and attention; what share of the rate of a large matrix product,
measured in the same run, a stage achieves stands beside its time. Drawn weights make senseless masks in real
time; only the number of distinct prompt sets in a fit depends on them, and it is printed.
``python -m benchmarks.masker_options`` measures compilation, lower precision and approximations.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from typing import Any

from common.modules import run_as_module

run_as_module(__spec__, "benchmarks.masker")

import numpy as np
import torch

import samg.masker
import samg.persam
from benchmarks import flags as flags_of
from benchmarks import machine, output
from benchmarks.ledger import Ledger, clock
from benchmarks.maskers import drawn_weights
from common.devices import resolve_device
from common.errors import run_script
from common.numerics import PRECISIONS
from samg import Reference, SamGMasker, SamgOptions
from samg.build import NETWORKS as SETS
from samg.build import load_networks
from samg.fitting import fit_reference
from samg.numerics import MaskerNumerics
from samg.rules import FixedRules

NETWORKS = ("DINOv2", "EfficientViT-SAM encoder", "mask decoder", "tiny encoder", "tiny decoder")
POINTS = [[40, 24], [23, 68], [60, 57]]
REST = "boxes, prompts, counting"


def wrap_networks(networks: Any, variant: str, ledger: Ledger) -> None:
    """Wrap the networks proper and the larger stages around them."""
    if variant == "tiny":
        ledger.wrap(networks.encoder, "forward", "tiny encoder")
        ledger.wrap(networks.decoder, "forward", "tiny decoder")
    else:
        ledger.wrap(networks.dino.model, "forward_features", "DINOv2")
        ledger.wrap(networks.sam.image_encoder, "forward", "EfficientViT-SAM encoder")
        ledger.wrap(networks.sam, "decode_low_res", "mask decoder")
        ledger.wrap(networks.dino, "preprocess", "resize and normalise")
        ledger.wrap(networks.sam, "preprocess", "resize and normalise")
    ledger.wrap(networks, "encode", "rest of encode")
    ledger.wrap(networks, "decode", "masks to image size")


def draw_reference(size: int = 84) -> Reference:
    """Return a noisy square on noise."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
    mask = np.zeros((size, size), dtype=bool)
    mask[20:70, 20:64] = True
    image[mask] //= 3
    return Reference.from_arrays(image, mask, points=POINTS)


def draw_frames(batch: int, device: torch.device, size: int = 84) -> torch.Tensor:
    """Return uint8 (batch, size, size, 3) of noise."""
    rng = np.random.default_rng(1)
    return torch.from_numpy(rng.integers(0, 256, (batch, size, size, 3), dtype=np.uint8)).to(device)


def time_fit(networks: Any, ledger: Ledger, device: torch.device) -> tuple[Any, dict[str, float]]:
    """Fit a reference once; milliseconds of each part."""
    ledger.take()
    fit = ledger.measure(
        "rest", fit_reference, networks, draw_reference(), FixedRules(), SamgOptions(), device
    )
    return fit, {label: 1000 * seconds for label, seconds in ledger.take().items()}


def time_frames(masker: SamGMasker, ledger: Ledger, batch: int, repeats: int) -> dict[str, Any]:
    """Return the median milliseconds and the GFLOP per frame of every stage, and the peak memory."""
    frames, runs = draw_frames(batch, masker.device), []
    machine.reset_peak_memory(masker.device)
    gpu = masker.device.type == "cuda"  # where every shape has kernels of its own to choose and load
    masker.mask(frames if gpu else frames[:1])
    flops = ledger.count_flops(masker.mask, frames[:1])
    repeats = max(repeats, 3 if gpu else 1)
    for _ in range(repeats):
        ledger.take()
        ledger.measure(REST, masker.mask, frames)
        runs.append(ledger.take())
    work = {label: count / 1e9 for label, count in flops.items() if count}
    times = {label: 1000 * statistics.median(run[label] for run in runs) / batch for label in runs[0]}
    return {
        "ms": {**times, "total": sum(times.values())},
        "gflop": {**work, "total": sum(work.values())},
        "outside_networks_ms": sum(value for label, value in times.items() if label not in NETWORKS),
        "peak_memory_bytes": machine.peak_memory(masker.device),
        "at_once": min(masker.batch_for(batch), batch),
        "repeats": repeats,
    }


def benchmark(variant: str, device: torch.device, flags: argparse.Namespace) -> dict[str, Any]:
    """Measure one variant."""
    ledger = Ledger(clock(device))
    ledger.wrap(samg.masker, "similarity_maps", "similarity maps")
    ledger.wrap(samg.persam, "fit_weights", "mask weights (2 numbers)")
    ledger.wrap(samg.persam, "training_prompts", "noise, maps, points")
    numerics = MaskerNumerics.of({"precision": flags.precision}, SETS[variant].numerics).on(device)
    weights = drawn_weights(variant)
    loaded = ledger.measure("load", load_networks, variant, device, weights, numerics=numerics)
    networks = loaded.networks
    loading = 1000 * ledger.take()["load"]
    wrap_networks(networks, variant, ledger)
    fit, fitting = time_fit(networks, ledger, device)
    masker = SamGMasker(networks, draw_reference(), fit, FixedRules(), SamgOptions(), loaded.source, device)
    frames = {}
    for batch in flags.batches:
        print(f"{variant}, batch {batch} ...", flush=True)
        frames[str(batch)] = time_frames(masker, ledger, batch, flags.repeats // batch)
    first = frames[str(flags.batches[0])]["ms"]
    decoder = next(value for label, value in first.items() if "decoder" in label) / 3
    total = sum(fitting.values())
    return {
        "variant": variant,
        "weights": weights or "embedded",
        "load_ms": loading,
        "fit_ms": {**fitting, "total": total},
        "fit_point_sets": fit.report["point_sets"],
        "fit_gain_over_decoding_each_iteration": samg.persam.ITERATIONS * decoder / total,
        "frames": frames,
    }


def frame_table(found: dict[str, Any], rate: float) -> str:
    """Return stages as rows and batch sizes as columns; ``rate`` is in GFLOP per second."""
    batches = list(found["frames"])
    first = found["frames"][batches[0]]
    heads = ["per frame", "GFLOP"]
    for batch in batches:
        heads += [f"batch {batch}: ms", "share", "of the matmul rate"]
    order = sorted(first["ms"], key=lambda label: (label == "total", -first["ms"][label]))
    rows = []
    for label in order:
        work = first["gflop"].get(label)
        cells = [label, f"{work:.2f}" if work else ""]
        for batch in batches:
            times = found["frames"][batch]["ms"]
            achieved = 100 * work / (times[label] / 1000 * rate) if work else None
            cells += [f"{times[label]:.2f}", f"{100 * times[label] / times['total']:.0f} %"]
            cells.append(f"{achieved:.0f} %" if achieved is not None else "")
        rows.append(cells)
    rows.append(_summary("outside the networks", found, lambda one: f"{one['outside_networks_ms']:.2f}"))
    at_once = _summary("frames at once", found, lambda one: str(one["at_once"]))
    memory = _summary("peak memory (MB)", found, lambda one: f"{one['peak_memory_bytes'] / 1e6:,.0f}")
    return output.table(heads, [*rows, at_once, memory])


def _summary(label: str, found: dict[str, Any], show: Any) -> list[str]:
    cells = [label, ""]
    for one in found["frames"].values():
        cells += [show(one), "", ""]
    return cells


def markdown(results: Sequence[dict[str, Any]], setting: dict[str, Any]) -> str:
    """Return all tables under a line that states how they were measured."""
    rates, precision = setting["matmul_gflop_per_s"], setting["precision"]
    parts = [output.setting_line(setting) + "\n"]
    for found in results:
        parts.append(
            f"\n**{found['variant']}** ({found['weights']} weights), loaded in {found['load_ms']:.0f} ms\n\n"
        )
        parts.append(frame_table(found, rates[precision]))
        fit = sorted(found["fit_ms"].items(), key=lambda row: (row[0] == "total", -row[1]))
        parts.append("\n" + output.table(["fitting, once", "ms"], [[name, f"{ms:.0f}"] for name, ms in fit]))
        sets, gain = found["fit_point_sets"], found["fit_gain_over_decoding_each_iteration"]
        parts.append(
            f"\n{sets} distinct prompt sets; {gain:.0f} times less than decoding in each iteration.\n"
        )
    return "".join(parts)  # fmt: skip


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = flags_of.parser(__doc__)
    parser.add_argument("--variants", nargs="+", default=["paper", "tiny"], help=", ".join(SETS))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 64], help="frames per call")
    parser.add_argument("--repeats", type=int, default=8, help="calls; divided by the batch size, at least 1")
    parser.add_argument("--precision", default="float32", help=", ".join(PRECISIONS))
    flags_of.add_machine(parser)
    flags = parser.parse_args(arguments)
    flags_of.check_known("masker", flags.variants, SETS)
    flags_of.check_known("precision", [flags.precision], PRECISIONS)
    flags_of.check_counts(flags, "batches", "repeats", "threads")
    return flags  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    flags = parse(arguments)
    device = resolve_device(flags.device, flags.threads)
    setting = {**machine.facts(device), "precision": flags.precision}
    setting["matmul_gflop_per_s"] = {name: round(rate, 1) for name, rate in machine.rates(device).items()}
    results = [benchmark(variant, device, flags) for variant in flags.variants]
    output.finish(flags.out, {"setting": setting, "variants": results}, markdown(results, setting))


if __name__ == "__main__":
    run_script(main)
