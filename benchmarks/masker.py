"""Time every part of a masker in one run: loading, fitting, and each stage of a frame.

    python benchmarks/masker.py                                  # paper (drawn weights) and tiny, one thread
    python benchmarks/masker.py --variants tiny --batch 8 --threads 2 --out masker.json

On the CPU the figures are CPU milliseconds of the whole process, medians over ``--repeats``; on a GPU they
are wall-clock milliseconds with the device waited for at every border. Drawn weights make senseless masks in
real time; only the number of distinct prompt sets in a fit depends on them, and it is printed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

import samg.masker
import samg.persam
from common.devices import resolve_device
from common.errors import run_script, unknown_choice
from common.files import write_json
from common.paths import output_path
from samg import Reference, SamGMasker, SamgOptions
from samg.build import NETWORKS as NETWORK_SETS
from samg.fitting import fit_reference
from samg.masker import Source
from samg.numerics import MaskerNumerics
from samg.rules import FixedRules

NETWORKS = ("DINOv2", "EfficientViT-SAM encoder", "mask decoder", "tiny encoder", "tiny decoder")
POINTS = [[40, 24], [23, 68], [60, 57]]


class Stopwatch:
    """Adds up the time spent inside wrapped functions; nested ones are taken off their callers."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.spent: dict[str, float] = defaultdict(float)
        self._inner = [0.0]

    def now(self) -> float:
        """Return seconds: CPU time of the process, or wall time once the GPU is idle."""
        if self.cuda:
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    def measure(self, label: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function and book its time, less that of functions measured inside it."""
        self._inner.append(0.0)
        start = self.now()
        result = function(*args, **kwargs)
        total = self.now() - start
        self.spent[label] += total - self._inner.pop()
        self._inner[-1] += total
        return result

    def wrap(self, owner: Any, name: str, label: str) -> None:
        """Measure every later call of ``owner.name``."""
        function = getattr(owner, name)
        setattr(owner, name, lambda *args, **kwargs: self.measure(label, function, *args, **kwargs))

    def take(self) -> dict[str, float]:
        """Return what was booked, in milliseconds, and start anew."""
        booked = {label: 1000 * seconds for label, seconds in self.spent.items()}
        self.spent.clear()
        return booked


def load(variant: str, device: torch.device, numerics: MaskerNumerics) -> tuple[Any, str]:
    """Return networks, tuned as ``numerics`` says, and a word on their weights."""
    networks, weights = _load(variant, device)
    return networks.tune(numerics, device), weights


def _load(variant: str, device: torch.device) -> tuple[Any, str]:
    from samg.weights import RELEASED, random_paper_networks

    if variant in RELEASED:
        return random_paper_networks(device=device, **RELEASED[variant]), "drawn"  # type: ignore[arg-type]
    from samg.tiny import WEIGHTS, TinyNetworks, load_tiny_networks

    if WEIGHTS.is_file():
        return load_tiny_networks(device)[0], "embedded"
    return TinyNetworks().requires_grad_(False).fuse().to(device), "random"


def wrap_networks(networks: Any, variant: str, clock: Stopwatch) -> None:
    """Wrap the networks proper and the larger stages around them."""
    if variant != "tiny":
        clock.wrap(networks.dino.model, "forward_features", "DINOv2")
        clock.wrap(networks.sam.image_encoder, "forward", "EfficientViT-SAM encoder")
        clock.wrap(networks.sam, "decode_low_res", "mask decoder")
        clock.wrap(networks.dino, "preprocess", "resize and normalise")
        clock.wrap(networks.sam, "preprocess", "resize and normalise")
    else:
        clock.wrap(networks.encoder, "forward", "tiny encoder")
        clock.wrap(networks.decoder, "forward", "tiny decoder")
    clock.wrap(networks, "encode", "rest of encode")
    clock.wrap(networks, "decode", "masks to image size")


def chosen_numerics(flags: argparse.Namespace, variant: str, device: torch.device) -> MaskerNumerics:
    """Return how the flags want a variant to compute."""
    given = {"precision": flags.precision, "compile": flags.compile}
    if flags.channels_last:
        given["channels_last"] = True
    return MaskerNumerics.of(given, NETWORK_SETS[variant].numerics).on(device)


def draw_reference(size: int = 84) -> Reference:
    """Return a noisy square on noise."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
    mask = np.zeros((size, size), dtype=bool)
    mask[20:70, 20:64] = True
    image[mask] //= 3
    return Reference.from_arrays(image, mask, points=POINTS)


def time_fit(networks: Any, clock: Stopwatch, device: torch.device) -> tuple[Any, dict[str, float]]:
    """Fit a reference once."""
    clock.take()
    fit = clock.measure(
        "rest", fit_reference, networks, draw_reference(), FixedRules(), SamgOptions(), device
    )
    return fit, clock.take()


def time_frames(masker: SamGMasker, clock: Stopwatch, batch: int, repeats: int) -> dict[str, float]:
    """Return the median milliseconds per frame of every stage."""
    rng = np.random.default_rng(1)
    frames = torch.from_numpy(rng.integers(0, 256, (batch, 84, 84, 3), dtype=np.uint8)).to(masker.device)
    masker.mask(frames)
    runs = []
    for _ in range(repeats):
        clock.take()
        clock.measure("boxes, prompts, counting", masker.mask, frames)
        runs.append(clock.take())
    return {label: statistics.median(run[label] for run in runs) / batch for label in runs[0]}


def benchmark(variant: str, device: torch.device, flags: argparse.Namespace) -> dict[str, Any]:
    """Measure one variant."""
    clock = Stopwatch(device)
    clock.wrap(samg.masker, "similarity_maps", "similarity maps")
    clock.wrap(samg.persam, "fit_weights", "mask weights (2 numbers)")
    clock.wrap(samg.persam, "training_prompts", "noise, maps, points")
    networks, weights = clock.measure("load", load, variant, device, chosen_numerics(flags, variant, device))
    loading = clock.take()["load"]
    wrap_networks(networks, variant, clock)
    fit, fitting = time_fit(networks, clock, device)
    masker = SamGMasker(
        networks, draw_reference(), fit, FixedRules(), SamgOptions(), Source(variant, weights), device
    )
    frame = time_frames(masker, clock, flags.batch, flags.repeats)
    inside = {label: value for label, value in frame.items() if label in NETWORKS}
    decoder = next(value for label, value in inside.items() if "decoder" in label) * flags.batch / 3
    total = sum(fitting.values())
    return {
        "variant": variant,
        "weights": weights,
        "load_ms": loading,
        "fit_ms": {**fitting, "total": total},
        "fit_point_sets": fit.report["point_sets"],
        "fit_gain_over_decoding_each_iteration": samg.persam.ITERATIONS * decoder / flags.batch / total,
        "frame_ms": {**frame, "total": sum(frame.values())},
        "frame_outside_networks_ms": sum(frame.values()) - sum(inside.values()),
    }


def show(found: dict[str, Any], setting: dict[str, Any]) -> None:
    """Print one variant's table."""
    about = ", ".join(f"{name} {value}" for name, value in setting.items())
    print(f"\n{found['variant']} ({found['weights']} weights): {about}")
    print(f"  {'load':34}{found['load_ms']:10.1f} ms")
    sets, gain = found["fit_point_sets"], found["fit_gain_over_decoding_each_iteration"]
    for title, rows in (("fit", found["fit_ms"]), ("per frame", found["frame_ms"])):
        print(f"  {title}")
        for label, value in sorted(rows.items(), key=lambda row: (row[0] == "total", -row[1])):
            print(f"    {label:32}{value:10.1f} ms{100 * value / rows['total']:7.1f} %")
    print(f"  outside the networks, per frame   {found['frame_outside_networks_ms']:10.1f} ms")
    print(f"  fit: {sets} distinct prompt sets; {gain:.0f} times less than a decoder call in each iteration")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variants", nargs="+", default=["paper", "tiny"], help="paper, fast, tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--batch", type=int, default=1, help="frames per call")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--precision", default="float32", help="float32 or bfloat16")
    for name in ("compile", "channels-last"):
        parser.add_argument(f"--{name}", action="store_true", help="see docs/speed.md")
    parser.add_argument("--out", help="write the figures as JSON")
    flags = parser.parse_args(arguments)
    for variant in flags.variants:
        if variant not in NETWORK_SETS:
            raise unknown_choice("masker", variant, NETWORK_SETS)
    return flags


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    flags = parse(arguments)
    torch.set_num_threads(flags.threads)
    device = resolve_device(flags.device)
    setting = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": flags.threads,
        "batch": flags.batch,
        "precision": flags.precision,
        "compile": flags.compile,
        "channels_last": flags.channels_last,
        "torch": torch.__version__,
        "clock": "wall" if device.type == "cuda" else "cpu",
    }
    results = []
    for variant in flags.variants:
        results.append(benchmark(variant, device, flags))
        show(results[-1], setting)
    if flags.out:
        write_json(output_path(flags.out), {"setting": setting, "variants": results})
        print(f"\nWritten: {output_path(flags.out)}")


if __name__ == "__main__":
    run_script(main)
