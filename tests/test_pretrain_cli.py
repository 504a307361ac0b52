"""Pretraining on a user's own environments through the real command: killed, continued, stopped, refused."""

from __future__ import annotations

import csv
import io
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

import pretrain
from common.display import Display
from common.errors import ConfigError, InputError, SamgError
from common.files import sha256_file
from common.paths import PROJECT_ROOT
from envs.pretraining_domains import find_domains
from envs.pretraining_frames import POSE_TASKS
from envs.pretraining_gym import GymDomain, collect_gym
from samg.pretraining import thinning
from samg.pretraining.arguments import parse
from samg.pretraining.banks import Amounts, describe, prepare_banks
from samg.pretraining.data import PART, build_bank
from samg.pretraining.loop import Trainer
from samg.tiny import load_tiny_networks, read_tiny_record
from tests.support.shapes_env import GOOD, Shapes, register

pytestmark = pytest.mark.usefixtures("one_thread")
DOMAINS = [f"{name}={entry}" for name, entry in GOOD.items()]
SMALL = ["--domains", *DOMAINS, "--frames", "6", "--backgrounds", "3", "--objects", "2"]
TRAIN = [*SMALL, "--composites", "2", "--save-every", "3", "--device", "cpu", "--threads", "1"]


def losses(folder: Path) -> list[list[str]]:
    """Rows of the curve without the clock's column."""
    with (folder / "curves.csv").open() as handle:
        return [[row[0], *row[2:]] for row in csv.reader(handle)]


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_curve_and_weights(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"

    def command(folder: Path) -> list[str]:
        script = str(PROJECT_ROOT / "pretrain.py")
        return [sys.executable, script, *TRAIN, "--steps", "10", "--out", str(folder)]

    first = subprocess.Popen(command(parts), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    waited = time.monotonic()
    while not (parts / "checkpoint.pt").exists() or len(losses(parts)) <= 4:
        assert first.poll() is None, first.communicate()[0]
        assert time.monotonic() - waited < 280
        time.sleep(0.02)
    first.kill()
    first.communicate()
    assert first.returncode == -signal.SIGKILL
    assert not (parts / "tiny.safetensors").exists() and len(losses(parts)) < 11
    for folder in (parts, whole):
        done = subprocess.run(command(folder), capture_output=True, text=True, timeout=280, check=False)
        assert done.returncode == 0, done.stderr
        assert ("Continuing at step" in done.stdout) == (folder is parts)
        assert "\x1b" not in done.stdout  # no terminal: plain lines
    assert len(losses(whole)) == 11 and losses(whole) == losses(parts)
    weights = [(folder / "tiny.safetensors").read_bytes() for folder in (whole, parts)]
    assert weights[0] == weights[1]
    assert not list(parts.glob(".stage-*"))


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_a_signal_saves_and_says_how_to_go_on(
    number: int,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    step = Trainer.train_step

    def interrupted(trainer: Trainer) -> dict[str, float]:
        if trainer.step == 1:
            os.kill(os.getpid(), number)
        return step(trainer)

    given = [*TRAIN, "--steps", "3", "--out", str(tmp_path)]
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", interrupted)
        assert pretrain.main(given) == code
    assert signal.getsignal(number) is before
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("Stopped. To continue: python ") and last.endswith(shlex.join(given))
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 2
    assert pretrain.main(given) == 0
    assert "Continuing at step 2" in capsys.readouterr().out
    assert [row[0] for row in losses(tmp_path)] == ["step", "1", "2", "3"]


def test_a_signal_while_data_are_collected_ends_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(domain: GymDomain, count: int, seed: int) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("collecting went on")

    monkeypatch.setattr(GymDomain, "collect", interrupted)
    assert pretrain.main([*TRAIN, "--steps", "3", "--out", str(tmp_path)]) == 143
    assert "To continue" in capsys.readouterr().out
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_checkpoints_of_other_data_are_refused_before_any_are_made(tmp_path: Path) -> None:
    given = [*TRAIN, "--steps", "1", "--out", str(tmp_path)]
    assert pretrain.main(given) == 0
    (tmp_path / "data" / "backgrounds-s0.npz").unlink()
    for flag, value, named in (
        ("--frames", "7", "frames"),
        ("--backgrounds", "4", "backgrounds"),
        ("--learning-rate", "0.001", "learning_rate"),
    ):
        with pytest.raises(InputError, match=f"another {named}"):
            pretrain.main([*given, flag, value])
    with pytest.raises(InputError, match="another domains"):
        pretrain.main([*given, "--domains", "walker", "hopper"])
    assert not (tmp_path / "data" / "backgrounds-s0.npz").exists()


def test_a_run_starts_from_the_wider_networks_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thinning, "_BATCHES", 1)
    monkeypatch.setattr(thinning, "_COMPOSITES", 2)
    wide = tmp_path / "wide.safetensors"
    save_file(thinning.wide_networks().state_dict(), wide, {"architecture": thinning.WIDER})
    given = [*TRAIN, "--start", str(wide), "--out", str(tmp_path / "out")]
    assert pretrain.main([*given, "--steps", "1"]) == 0
    assert read_tiny_record(tmp_path / "out" / "tiny.safetensors")["start"]["sha256"] == sha256_file(wide)
    monkeypatch.setattr(pretrain, "thin_start", None)  # a run that goes on has its own weights
    assert pretrain.main([*given, "--steps", "2"]) == 0
    load_tiny_networks(weights=tmp_path / "out" / "tiny.safetensors")


def test_labels_are_exact_and_seeded() -> None:
    one, again, other = (collect_gym(GOOD["disc"], 12, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(one[key], again[key]) for key in one)
    assert not np.array_equal(one["clean"], other["clean"])
    shown = one["labels"] == PART
    assert np.array_equal(shown, (one["clean"] == (200, 60, 40)).all(-1))
    assert set(np.unique(one["labels"])) == {0, PART}
    assert len(np.unique(shown.reshape(12, -1), axis=0)) > 6, "the disc hardly moves"
    rendered = collect_gym("tests.support.shapes_env:Rendered-v0", 3, 1)
    assert np.array_equal(rendered["labels"] == PART, (rendered["clean"] == (200, 60, 40)).all(-1))


def test_other_sizes_are_reduced_by_area_and_majority() -> None:
    arrays = collect_gym(GOOD["bars"], 4, seed=0)
    assert arrays["clean"].shape == (4, 84, 84, 3) and arrays["labels"].shape == (4, 84, 84)
    for frame, labels in zip(arrays["clean"].astype(int), arrays["labels"], strict=True):
        for label, colour in ((PART, (30, 90, 220)), (PART + 1, (220, 90, 30))):
            # How much of a pixel the part covers can be read from how far its colour is from the ground's.
            share = (np.abs(frame - 90) @ (1, 0, 1)) / np.abs(np.subtract(colour, 90)).sum()
            towards = (frame[..., 0] > frame[..., 2]) == (label == PART + 1)
            assert np.array_equal(labels == label, (share > 0.49) & towards)
    assert build_bank({"a": arrays, "b": arrays}).two_parts == (True, True)


def test_actions_stay_in_their_space() -> None:
    register("Box-v0")
    register("Keys-v0", actions="discrete")
    for name in ("Box-v0", "Keys-v0"):
        seen: list[object] = []
        step = Shapes.step

        def record(env: Shapes, action: object, seen: list[object] = seen, step=step) -> object:
            assert env.action_space.contains(action)
            seen.append(action)
            return step(env, action)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Shapes, "step", record)
            collect_gym(name, 30, 0)
        values = np.array(seen, float)
        assert values.std() > 0.3 and (name == "Keys-v0" or np.abs(values).max() <= 1)
    bounds = gymnasium.spaces.Box(np.array([5, -np.inf], np.float32), np.array([np.inf, -7], np.float32))
    from envs.pretraining_gym import _Actions

    actions = _Actions(bounds, np.random.default_rng(0))
    for _ in range(20):
        actions.begin()
        assert all(bounds.contains(actions.next()) for _ in range(20))


@pytest.mark.parametrize(
    ("entry", "error", "said", "cure"),
    [
        ("walkr", ConfigError, "Unknown pretraining domain 'walkr'", "Did you mean walker"),
        (
            "tests.support.shapes_env:Dsc-v0",
            ConfigError,
            "`Dsc` doesn't exist. Did you mean: `Disc`",
            "module:id",
        ),
        ("NoSuchThing-v0", ConfigError, "NoSuchThing", "module:id"),
        ("no_such_module:Disc-v0", ConfigError, "module 'no_such_module' cannot be imported", "PYTHONPATH"),
        ("a:b:Disc-v0", ConfigError, "names no environment", "name=module:id"),
        ("=Disc-v0", ConfigError, "names no environment", "name=module:id"),
        ("Faulty-broken-v0", InputError, "OSError: no such robot", "SAMG_DEBUG"),
        ("Faulty-raises-v0", InputError, r"step\(\) fails \(RuntimeError: the arm", "SAMG_DEBUG"),
        ("Faulty-maskless-v0", InputError, "info has no 'foreground'", "Every step"),
        ("Faulty-bytes-v0", InputError, r"is uint8 \(84, 84\), expected bool \(84, 84\)", "Every step"),
        ("Faulty-small-v0", InputError, r"is bool \(42, 42\), expected bool \(84, 84\)", "Every step"),
        ("Faulty-list-v0", InputError, "is a list, expected bool", "Every step"),
        ("Faulty-parts-v0", InputError, r"info\['parts'\].* is bool", "second part"),
        ("Faulty-float-v0", InputError, r"shows float64 \(84, 84, 3\), expected uint8", "RGB"),
        ("Faulty-grey-v0", InputError, r"shows uint8 \(84, 84, 1\), expected uint8", "RGB"),
        ("Faulty-empty-v0", InputError, r"shows uint8 \(0, 84, 3\), expected uint8", "RGB"),
        ("Faulty-dark-v0", InputError, "shows a NoneType, expected uint8", "rgb_array"),
        ("CartPole-v1", InputError, "info has no 'foreground'", "Every step"),
    ],
)
def test_unusable_domains_are_named_before_anything_is_made(
    entry: str, error: type[SamgError], said: str, cure: str, tmp_path: Path
) -> None:
    arguments = [*TRAIN, "--steps", "1", "--out", str(tmp_path / "out"), "--domains", DOMAINS[0], entry]
    with pytest.raises(error, match=said) as caught:
        pretrain.main(arguments)
    assert cure in caught.value.hint and caught.value.hint
    assert entry.rpartition(":")[2] in str(caught.value) or "names no environment" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_an_object_that_is_never_visible_is_named() -> None:
    with pytest.raises(
        InputError, match="'Faulty-unseen-v0' shows at least 12 pixels of its object in only 0"
    ):
        collect_gym("Faulty-unseen-v0", 5, 0)


def test_names_are_unique_and_safe_in_files() -> None:
    for entries, said in (
        (["walker"], "Only 1 domain"),
        (["walker", "walker"], "Two domains are called 'walker'"),
        (["a.b:Hand-v0", "c.d:Hand-v0"], "Two domains are called 'Hand-v0'"),
    ):
        with pytest.raises(ConfigError, match=said):
            find_domains(entries)
    entries = ["Hand-v0", "x=a:Hand-v0", "y=a:../up/Hand-v0", "a:ns/Hand-v0", "z=b:Hand-v0", ".z=b:Hand-v0"]
    found = find_domains([*POSE_TASKS, *entries])
    stems = [domain.stem for domain in found]
    assert stems[:7] == list(POSE_TASKS)  # files of earlier runs are read again
    assert len({stem.lower() for stem in stems}) == len(stems)
    assert not set("".join(stems)) & set(":/\\ ") and not any(stem.startswith(".") for stem in stems)
    assert [domain.name for domain in found[7:]] == ["Hand-v0", "x", "y", "ns/Hand-v0", "z", ".z"]


def test_banks_are_prepared_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    domains, amounts = find_domains(DOMAINS), Amounts(3, 2, 2)
    banks = prepare_banks(domains, tmp_path, amounts, 0, Display(Console(file=io.StringIO())))
    assert describe(banks) == amounts.describe(domains)
    assert banks.frames.domains == ("disc", "bars") and banks.frames.two_parts == (False, True)
    # What is missing is filled in: other paints by the clean frame, the key mask by the exact background.
    assert torch.equal(banks.frames.paints[:, 0], banks.frames.paints[:, 2])
    assert torch.equal(banks.frames.key_mask, banks.frames.labels == 0)
    monkeypatch.setattr(GymDomain, "check", lambda self: pytest.fail("cached frames need no environment"))
    again = prepare_banks(domains, tmp_path, amounts, 0, Display(Console(file=io.StringIO())))
    assert torch.equal(again.frames.paints, banks.frames.paints)
    assert torch.equal(again.backgrounds, banks.backgrounds) and torch.equal(again.objects, banks.objects)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "No budget"),
        (["--steps", "-3"], "--steps is -3, expected at least 0"),
        (["--minutes", "nan"], "--minutes is nan"),
        (["--minutes", "inf"], "--minutes is inf"),
        (["--steps", "3", "--frames", "0"], "--frames is 0, expected at least 2"),
        (["--steps", "3", "--backgrounds", "0"], "--backgrounds is 0"),
        (["--steps", "3", "--objects", "-1"], "--objects is -1"),
        (["--steps", "3", "--composites", "0"], "--composites is 0"),
        (["--steps", "3", "--save-every", "0"], "--save-every is 0"),
        (["--steps", "3", "--threads", "-1"], "--threads is -1"),
        (["--steps", "3", "--seed", "-1"], "--seed is -1"),
        (["--steps", "3", "--learning-rate", "0"], "--learning-rate is 0"),
        (["--steps", "3", "--learning-rate", "nan"], "--learning-rate is nan"),
        (["--steps", "3", "--out", str(PROJECT_ROOT / "LICENSE")], "is a file"),
    ],
)
def test_impossible_flags_are_refused(given: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse(given, list(POSE_TASKS))


def test_flags_are_read() -> None:
    chosen = parse(["--steps", "3", "--domains", "walker", "hopper"], list(POSE_TASKS))
    assert chosen.domains == ["walker", "hopper"] and chosen.steps == 3 and chosen.save_every == 50
    assert parse(["--minutes", "2"], list(POSE_TASKS)).domains == list(POSE_TASKS)


def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere() -> None:
    screen, pipe = io.StringIO(), io.StringIO()
    for file, terminal in ((screen, True), (pipe, False)):
        console = Console(file=file, force_terminal=terminal, width=80)
        display = Display(console, interval=0.0 if not terminal else 10.0)
        with display.progress("Training") as update:
            update(0.25, "step 1  map [0.5]")
            update(0.5, "step 2  map [0.4]" + 60 * "." * terminal)
        assert list(display.track(range(3), "Drawing")) == [0, 1, 2]
        display.say("[done] " + "x" * 200)
    last = next(line for line in reversed(screen.getvalue().splitlines()) if "Training" in line)
    assert "━" in last and "50.0 %" in last and "step 2" in last
    lines = pipe.getvalue().splitlines()
    assert lines[:2] == ["Training  25.0 %  step 1  map [0.5]", "Training  50.0 %  step 2  map [0.4]"]
    assert lines[4] == "Drawing 100.0 %  3 of 3" and lines[5] == "[done] " + "x" * 200


def test_lines_are_shown_now_and_then_and_at_the_end() -> None:
    pipe = io.StringIO()
    with Display(Console(file=pipe), interval=1000.0).progress("Training") as update:
        for step in range(5):
            update(step / 4, f"step {step}")
    assert pipe.getvalue().splitlines() == ["Training 100.0 %  step 4"]
