"""The studies: every setting is a real, distinct masker; every level exists; the sweep continues."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from benchmarks import study as command
from benchmarks.mask_frames import DOMAINS
from benchmarks.study import Study, study_names, trained_runs
from benchmarks.study_masks import Measured, difference, masks_report, measure_masker
from common.errors import ConfigError, InputError
from common.files import read_json
from common.paths import PROJECT_ROOT
from envs.levels import check_domain, get_level
from samg import SamgOptions, build_masker
from samg.numerics import NUMERICS
from training.config import CONFIG_DIR, compose_config, prepare_overrides, save_config, validate

STUDIES = study_names()


def test_the_questions_of_the_paper_each_have_a_study():
    assert STUDIES == ["appearance", "encoders", "features", "passes", "persam", "points"]


@pytest.mark.parametrize("name", STUDIES)
def test_every_setting_is_a_masker_of_its_own(name):
    study = Study.load(name)
    assert study.baseline in study.settings and len(study.settings) >= 3
    methods = []
    for setting in study.settings:
        config = study.masker(setting, "tiny")
        builder = build_masker(config.pop("variant"), **config)  # refuses what is no option
        own = ("weights", "compat", *NUMERICS)
        options = {key: value for key, value in config.items() if key not in own}
        methods.append((builder.variant, SamgOptions.parse(options).method()))
    assert all(methods[i] != methods[k] for i in range(len(methods)) for k in range(i))


@pytest.mark.parametrize("name", [name for name in STUDIES if name != "appearance"])
def test_the_baseline_is_the_default_masker(name):
    study = Study.load(name)
    own, default = study.masker(study.baseline, "paper"), compose_config(["masker=paper"]).masker
    changed = {key for key in default if own[key] != default[key]}
    # The shipped walker lists three extra points: to name their number changes nothing.
    assert changed == ({"extra_points"} if name == "points" else set())


@pytest.mark.parametrize("name", STUDIES)
def test_every_level_exists_for_every_domain_with_a_reference(name):
    for level in Study.load(name).levels:
        assert get_level(level).name == level
        for domain in DOMAINS:
            check_domain(get_level(level), domain)


def sweep_of(name, *overrides):
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIG_DIR), version_base=None):
        return compose("config", overrides=[f"+study={name}", *overrides], return_hydra_config=True)


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_is_a_sweep_whose_runs_have_places_of_their_own(name, monkeypatch):
    study = Study.load(name)
    folders = set()
    for setting in study.settings:
        for seed in ("0", "1"):
            config = sweep_of(name, f"{study.key}={setting}", f"seed={seed}", "task=cup_catch")
            validate(config)
            assert config.hydra.mode.name == "MULTIRUN"
            monkeypatch.setattr(HydraConfig.instance(), "cfg", config)  # as Hydra does before it starts a job
            assert config.hydra.sweep.dir == f"runs/study/{name}"
            folders.add(config.hydra.sweep.subdir)
            assert config.study.setting == setting and config.study.name == name
    assert len(folders) == 2 * len(study.settings)
    assert all(folder.startswith("cup_catch/drqv2-") for folder in folders), "no timestamps: it continues"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["+study=pases"], "Did you mean passes?"),
        (["study=passes"], "+study="),
        (["+study=passes", "study.setting=four"], "four"),
        (["+study=passes", "study.setting=one,four"], "four"),
        (["+study=passes", "study.seting=one"], "study.setting"),
        (["study.setting=one"], "study.setting"),
    ],
)
def test_bad_overrides_are_refused_before_hydra_starts(overrides, words):
    with pytest.raises(ConfigError) as caught:
        prepare_overrides(overrides)
    assert words in str(caught.value)


def test_good_overrides_pass_unchanged():
    given = ["+study=passes", "study.setting=one,two", "seed=0", "masker=paper", "masker.on_empty=raw"]
    assert prepare_overrides(list(given)) == given


def test_a_study_may_gain_levels_and_old_runs_lack_new_options(tmp_path):
    config = compose_config(["+study=passes"])
    save_config(config, tmp_path)
    (tmp_path / "snapshots" / "step_0000000001").mkdir(parents=True)
    config.study.levels.append("cam_pos_easy")
    save_config(config, tmp_path)
    text = (tmp_path / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text.replace("  mask_from: decoder\n", ""))
    save_config(config, tmp_path)
    config.masker.mask_from = "map"
    with pytest.raises(ConfigError, match="mask_from: decoder -> map"):
        save_config(config, tmp_path)


def measured(**iou):
    values = {level: np.stack([np.asarray(x, float)] * 3, 1) for level, x in iou.items()}
    return Measured("print", values, dict.fromkeys(values, 0.0), 0.01)


def test_differences_weigh_domains_and_levels_alike_and_pair_the_pictures():
    noise = np.random.default_rng(0).random(40)
    own = {"a": measured(x=noise + 0.1, y=noise[:5] + 0.3), "b": measured(x=noise)}
    other = {"a": measured(x=noise, y=noise[:5]), "b": measured(x=noise)}
    change, low, high = difference(own, other, "test")
    assert change == pytest.approx((0.1 + 0.3 + 0) / 3)
    assert low == pytest.approx(change) and high == pytest.approx(change), "paired: no spread is left"
    spread = {
        "a": measured(x=noise + np.where(np.arange(40) % 2, 0.2, 0.0), y=noise[:5]),
        "b": measured(x=noise),
    }
    change, low, high = difference(spread, other, "test")
    assert change == pytest.approx(0.1 / 3) and low < change < high
    # The standard error of 40 draws of 0 or .2 is .1 / sqrt(40), in one of three cells.
    assert (high - low) / 2 == pytest.approx(1.96 * 0.1 / 40**0.5 / 3, rel=0.15)


def test_masks_are_measured_per_level():
    from benchmarks.mask_frames import Frames

    masks = np.zeros((2, 84, 84), bool)
    masks[:, :42] = True
    frames = Frames(np.zeros((2, 84, 84, 3), np.uint8), masks, np.zeros((2, 0, 84, 84), bool), masks[:, 0, 0])
    found = measure_masker(build_masker("none").fit(), {"train": frames})
    assert found.cells() == {"train": {"iou": 0.5, "recall": 1.0, "precision": 0.5, "empty": 0.0}}


def test_the_command_measures_and_reports(tmp_path, capsys):
    flags = ["--domains", "cartpole", "--levels", "objects_color_hard", "--frames", "3"]
    flags += ["--masker_options", "presence=null"]
    code = command.main(["passes", "masks", *flags, "--source", "procedural", "--runs", str(tmp_path / "s")])
    assert code == 0
    record = read_json(tmp_path / "s" / "masks.json")
    assert list(record["settings"]) == ["one", "two", "three"] and record["baseline"] == "three"
    prints = {setting["fingerprints"]["cartpole"] for setting in record["settings"].values()}
    assert {setting["masker"]["presence"] for setting in record["settings"].values()} == {None}
    assert len(prints) == 3 and record["settings"]["three"]["difference"] == [0, 0, 0]
    assert record["settings"]["three"]["cells"]["cartpole"]["objects_color_hard"]["iou"] > 0.6
    text = (tmp_path / "s" / "masks.md").read_text()
    assert text == masks_report(record) and text.strip() in capsys.readouterr().out
    assert "| three |" in text and "objects color hard" in text


def test_all_studies_have_folders_of_their_own(tmp_path, monkeypatch):
    places = []
    monkeypatch.setattr(command, "measure_masks", lambda study, chosen, folder: places.append(folder))
    command.main(["all", "masks", "--runs", str(tmp_path)])
    assert places == [tmp_path / name for name in study_names()]


def test_unknown_studies_and_empty_folders_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="passes"):
        Study.load("pases")
    with pytest.raises(InputError, match="no trained run"):
        trained_runs(Study.load("passes"), tmp_path)


def test_only_trained_runs_of_the_study_count(tmp_path):
    for name, study, setting, snapshot in (
        ("a", "passes", "one", True),
        ("b", "passes", "two", False),
        ("c", "points", "zero", True),
    ):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.yaml").write_text(f"study: {{name: {study}, setting: {setting}}}\n")
        if snapshot:
            (folder / "snapshots" / "step_0000000001").mkdir(parents=True)
    assert trained_runs(Study.load("passes"), tmp_path) == {tmp_path / "a": "one"}


TINY_BUDGET = (
    "task=cartpole_balance",
    "+study=passes",
    "study.setting=one,two",
    "seed=0",
    "action_repeat=50",  # an episode has 20 decisions
    "num_train_frames=1600",
    "num_seed_frames=1000",
    "batch_size=8",
    "agent.num_expl_steps=10",
    "agent.hidden_dim=64",
    "use_tb=false",
)


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT_ROOT)}
    environment.pop("SAMG_DATA", None)
    return subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        timeout=900,
        cwd=folder,
        env=environment,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_one_study_from_the_sweep_to_the_report(tmp_path):
    train = (str(PROJECT_ROOT / "train.py"), *TINY_BUDGET)
    done = run(tmp_path, *train)
    assert done.returncode == 0, done.stderr
    runs = sorted((tmp_path / "runs" / "study" / "passes").glob("*/*/masker/masker.json"))
    assert [path.parent.parent.name for path in runs] == ["drqv2-tiny-one-s0", "drqv2-tiny-two-s0"]
    assert [read_json(path)["options"]["passes"] for path in runs] == [1, 2]
    tables = [(path.parent.parent / "train.csv").read_bytes() for path in runs]

    again = run(tmp_path, *train)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("at 32 decisions") == 2 and "decisions, " not in again.stdout.replace(
        "at 32 decisions, ", ""
    ), "a second start has nothing left to do"
    assert [(path.parent.parent / "train.csv").read_bytes() for path in runs] == tables

    flags = ("--mode", "train", "--episodes", "1")  # one of the study's levels is enough here
    done = run(tmp_path, "-m", "benchmarks.study", "passes", "evaluate", *flags)
    assert done.returncode == 0, done.stderr
    for path in runs:
        (result,) = (path.parent.parent / "eval").glob("*.json")
        assert read_json(result)["level"] == "train"
    told = (tmp_path / "runs" / "study" / "passes" / "report" / "report.md").read_text()
    assert Study.load("passes").question in told and "| one" in told and "| two" in told
