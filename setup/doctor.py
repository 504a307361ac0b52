"""Say whether training can start on this machine, and what to do where it cannot.

    python setup/doctor.py                                     # the default: task=walker_walk masker=paper
    python setup/doctor.py masker=tiny task=cup_catch num_envs=4
    python setup/doctor.py masker=tiny --json                  # for programs

Overrides are those of train.py. Looked at: versions against setup/constraints.txt, the configuration, device
and threads, a rendered frame per OpenGL backend (each in a process of its own), the benchmark's data, the
reference, the masker's weights and their digests, memory and disk against what the run will take. Nothing is
written, and the network is not asked (ImageNet weights for agent=pieg are fetched, as train.py would do).

Exit code 0: training with this configuration can start. Else that of the first problem, as train.py's: 2
configuration, 3 input or asset, 5 disk, memory or device, 7 rendering or dependency.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OK, WARNING, PROBLEM = "ok", "warning", "problem"
# What a run cannot do without; another version of the pair is a problem, of the others a warning.
PAIR = ("mujoco", "dm-control")
NEEDED = ("torch", "torchvision", "numpy", "timm", "segment-anything", "gymnasium", "hydra-core", "omegaconf")
NEEDED += ("pillow", "opencv-python-headless", "safetensors", "huggingface-hub", "pooch", *PAIR)
SNAPSHOTS = 3 * 10**8  # bytes: two are kept and a third is written; DrQ-v2's has 100 MB
REFERENCE_KEYS = ("original_image", "masked_image", "extra_points_list", "extra_masked_images_list")


@dataclass(frozen=True)
class Check:
    """One line of the table.

    Attributes:
        name: what was looked at.
        status: ``ok``, ``warning`` or ``problem``.
        found: what was found.
        cure: what to do; empty where nothing is.
        code: exit code where it is a problem.
    """

    name: str
    status: str
    found: str
    cure: str = ""
    code: int = 0


def guarded(name: str, look: Callable[[], list[Check]]) -> list[Check]:
    """Return what ``look`` finds; an error with a cure becomes a problem."""
    from common.errors import SamgError

    try:
        return look()
    except SamgError as error:
        return [Check(name, PROBLEM, error.message, error.hint, error.exit_code)]
    except OSError as error:
        return [Check(name, PROBLEM, str(error), "Check the disk and its permissions.", 5)]


def check_versions(pins: dict[str, str], version: Callable[[str], str] = metadata.version) -> list[Check]:
    """Compare Python and the libraries with what was tested together."""
    python = platform.python_version()
    right, fix = [], "Run: make setup"
    checks = [Check("Python", OK, python)]
    if sys.version_info < (3, 11):  # noqa: UP036 (other than make setup, this script runs anywhere)
        checks = [Check("Python", PROBLEM, f"{python}, expected 3.11 or newer", fix, 7)]
    for name in NEEDED:
        try:
            found = version(name).split("+")[0]
        except metadata.PackageNotFoundError:
            checks.append(Check(name, PROBLEM, "not installed", fix, 7))
            continue
        if found == pins.get(name):
            right.append(name)
        elif name in PAIR:
            cure = f"{' and '.join(PAIR)} belong together. {fix}"
            checks.append(Check(name, PROBLEM, f"{found}, expected {pins.get(name)}", cure, 7))
        else:
            checks.append(Check(name, WARNING, f"{found}, tested is {pins.get(name)}", fix))
    pair = ", ".join(f"{name} {pins[name]}" for name in PAIR if name in right)
    return [*checks, Check("libraries", OK, f"{len(right)} of {len(NEEDED)} as tested; {pair}")]


def read_pins(path: Path = ROOT / "setup" / "constraints.txt") -> dict[str, str]:
    """Return package -> version of the constraints file."""
    return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)$", path.read_text(), re.MULTILINE))


def check_device(cfg: Any) -> list[Check]:
    """Find the device, and say what it can promise."""
    import torch

    from common.cores import count_cores
    from common.devices import resolve_device

    device = resolve_device(cfg.device)
    cores = count_cores()
    threads = cfg.num_threads or torch.get_num_threads()
    found, cure = f"torch uses {threads}, this process may use {cores} cores", f"Set num_threads={cores}."
    checks = [Check("threads", *((WARNING, found, cure) if threads > cores else (OK, found)))]
    if device.type == "cpu":
        promise = "a resumed run equals an uninterrupted one bitwise (same versions and num_threads)"
        return [Check("device", OK, f"cpu: {promise}"), *checks]
    about = torch.cuda.get_device_properties(device)
    free, total = torch.cuda.mem_get_info(device)
    found = (
        f"{device}: {about.name}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free, CUDA {torch.version.cuda}"
    )
    return [Check("device", OK, f"{found}; resumed runs agree statistically, not bitwise"), *checks]


def check_backends() -> list[Check]:
    """Draw one frame with every backend; only the chosen one must succeed."""
    from envs.backends import BACKENDS, INSTALL, chosen_backend, probe_backend

    chosen, checks = chosen_backend(), []
    for backend in dict.fromkeys((chosen, *BACKENDS)):
        why = probe_backend(backend)
        name = f"MUJOCO_GL={backend}"
        if backend == chosen:
            status, cure, code = (OK, "", 0) if why is None else (PROBLEM, INSTALL, 7)
            checks.append(Check(name, status, why or "draws; used for training", cure, code))
        else:
            checks.append(Check(name, OK, "draws" if why is None else f"not usable, not needed ({why[:70]})"))
    return checks


def check_data(cfg: Any, run: Any) -> list[Check]:
    """Look for what the level of training draws from, and for what a default evaluation will want."""
    from common.errors import InputError
    from envs.data import CURES, data_directory, find_clips, is_published, load_colours
    from envs.levels import build_scene
    from envs.tasks import find_task
    from evaluation.plan import background_rules

    background = run.background()
    rules = {"image_size": cfg.image_size, **background_rules(background)}
    build_scene(background.levels[0], find_task(cfg.task_name).domain, **rules)
    checks = [Check("level of training", OK, background.levels[0])]
    folder = background.data_dir
    try:
        for difficulty in ("easy", "hard"):
            load_colours(difficulty, folder)
        whole = all(is_published(find_clips(difficulty, folder)) for difficulty in ("easy", "hard"))
    except InputError as error:
        return [*checks, Check("DMC-GB data", WARNING, f"for evaluation only: {error.message}", CURES)]
    if not whole:
        return [*checks, Check("DMC-GB data", WARNING, "not all published clips, byte for byte", CURES)]
    return [*checks, Check("DMC-GB data", OK, f"whole and verified in {data_directory(folder)}")]


def check_masker(cfg: Any, run: Any) -> list[Check]:
    """Read the reference and verify the weights, without loading large networks."""
    from samg import build_masker, load_reference
    from samg.weights import RELEASED, verify_paper
    from training.config import MASKERS_WITHOUT_REFERENCE

    variant, settings = run.masker_variant, run.masker_settings(run.masker_variant)
    builder = build_masker(variant, "cpu", **settings)
    if variant in MASKERS_WITHOUT_REFERENCE:
        return [Check("masker", OK, f"{variant}: needs no reference and no weights")]
    reference = load_reference(run.reference(), image_size=int(cfg.image_size))
    each = getattr(reference, "references", (reference,))
    checks = [Check("reference", OK, f"{', '.join(one.sources)}, {len(one.points)} points") for one in each]
    if variant == "tiny":
        checks.append(Check("weights", OK, f"tiny: SHA-256 {builder.load().source.digest[:12]}..., verified"))
        return checks
    given = {key: settings[key] for key in ("sam", "dino", "encoders") if settings.get(key)}
    chosen: dict[str, Any] = {**RELEASED[variant], **given}
    for path, file in verify_paper(settings.get("weights"), **chosen).items():
        how = "equals the hub's digest" if file.source == "hub" else "no published digest to compare with"
        checks.append(Check("weights", OK, f"{path.name}: SHA-256 {file.sha256[:12]}..., {how}"))
    return checks


def check_space(cfg: Any, run_dir: Path) -> list[Check]:
    """Compare memory and disk with what replay and snapshots will take."""
    from common.devices import resolve_device
    from common.errors import ResourceError
    from evaluation.run_directory import chosen_views
    from training.demonstrations.reading import planned_transitions
    from training.memory import replay_rows
    from training.replay_cache import choose_place
    from training.settings import TrainSettings

    settings = TrainSettings.from_config(cfg)
    frame = 3 * chosen_views(cfg) * int(cfg.image_size) ** 2
    capacity = settings.replay_capacity(planned_transitions(cfg, run_dir))
    needed, folder = replay_rows(capacity) * frame, Path(settings.replay_cache_dir or run_dir).absolute()
    found = f"replay {needed / 1e9:.1f} GB for {capacity:,} transitions"
    try:
        place = choose_place(settings.replay_cache, needed, capacity, resolve_device(cfg.device), folder)
        checks = [Check("memory", OK, f"{found}, replay.cache={place}")]
    except ResourceError as error:
        checks = [Check("memory", PROBLEM, f"{found}: {error.message}", error.hint, error.exit_code)]
    there = next(path for path in (run_dir, *run_dir.parents) if path.exists())
    free = shutil.disk_usage(there).free
    # How often frames shrink on disk; measured on the references of seven tasks, as they are and masked.
    best, worst = (2.3, 1.7) if cfg.masker.variant == "none" else (80, 9)
    least, most = (capacity * frame / times + SNAPSHOTS for times in (best, worst))
    found = (
        f"about {least / 1e9:.1f} to {most / 1e9:.1f} GB to be written, {free / 1e9:.1f} GB free in {there}"
    )
    cure = "Free some space, choose hydra.run.dir=DIR, or set a smaller replay_buffer_size."
    if free < least:
        return [*checks, Check("disk", PROBLEM, found, cure, 5)]
    return [*checks, Check("disk", WARNING if free < most else OK, found, cure if free < most else "")]


def check_folders(run_dir: Path) -> list[Check]:
    """Say where nothing can be written: fatal for the run's folder, a nuisance for the others."""
    from common.paths import cache_dir

    checks = []
    places = {"run directory": run_dir, "cache": cache_dir(), "temporary folder": Path(tempfile.gettempdir())}
    for name, place in places.items():
        there = next(path for path in (place, *place.parents) if os.path.lexists(path))
        if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
            checks.append(Check(name, OK, str(place)))
        elif name == "run directory":
            checks.append(Check(name, PROBLEM, f"{there} is not writable", "Choose hydra.run.dir=DIR.", 5))
        else:
            checks.append(Check(name, WARNING, f"{there} is not writable", "Set SAMG_CACHE or TMPDIR."))
    return checks


def examine(overrides: Sequence[str]) -> list[Check]:
    """Return all checks, in the order in which train.py would meet what they find."""
    checks = check_versions(read_pins())
    if any(check.status == PROBLEM and check.found == "not installed" for check in checks):
        return checks
    from common.errors import SamgError
    from common.paths import output_path
    from evaluation.run_directory import RunDirectory
    from training.config import compose_config, prepare_overrides, validate

    try:
        prepared = prepare_overrides(list(overrides))
        own = [text for text in prepared if not text.startswith("hydra.")]
        cfg = compose_config(own)
        validate(cfg)
    except SamgError as error:
        return [*checks, Check("configuration", PROBLEM, error.message, error.hint, error.exit_code)]
    checks.append(Check("configuration", OK, f"{cfg.task_name}, masker {cfg.masker.variant}"))
    named = dict(text.split("=", 1) for text in prepared if "=" in text)
    run_dir = output_path(named.get("hydra.run.dir", "runs"))
    run = RunDirectory(run_dir, cfg)
    checks += guarded("device", lambda: check_device(cfg))
    checks += guarded("data", lambda: check_data(cfg, run))
    checks += guarded("rendering", check_backends)
    checks += guarded("masker", lambda: check_masker(cfg, run))
    checks += guarded("folders", lambda: check_folders(run_dir))
    return checks + guarded("space", lambda: check_space(cfg, run_dir))


def exit_code(checks: Sequence[Check]) -> int:
    """Return 0 where training can start, else the code of the first problem."""
    return next((check.code for check in checks if check.status == PROBLEM), 0)


def show(checks: Sequence[Check]) -> None:
    """Print the table, cures below their line."""
    width = max(len(check.name) for check in checks)
    for check in checks:
        print(f"{check.status:8} {check.name:{width}}  {check.found}")
        if check.cure:
            print(f"{'':8} {'':{width}}  -> {check.cure}")
    problems = sum(check.status == PROBLEM for check in checks)
    print(f"{problems} problems: training cannot start." if problems else "Training can start.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Examine, print, and return the exit code."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="doctor.py", description=__doc__, formatter_class=form)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for train.py")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    options = parser.parse_args(arguments)
    checks = examine(options.overrides)
    code = exit_code(checks)
    if options.json:
        print(
            json.dumps({"ok": code == 0, "exit_code": code, "checks": [asdict(c) for c in checks]}, indent=2)
        )
    else:
        show(checks)
    return code


if __name__ == "__main__":
    if importlib.util.find_spec("common"):
        sys.exit(main())
    print("error: this project is not installed in this Python.\n  cure: Run: make setup", file=sys.stderr)
    sys.exit(7)
