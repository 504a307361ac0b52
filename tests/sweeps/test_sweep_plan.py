"""What a sweep would run, what it would need, and everything it refuses before anything starts."""

import json
import os
import re
import subprocess
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf
from rich.console import Console

from common.errors import ConfigError, DependencyError, InputError, ResourceError
from common.files import write_json
from training import config
from training.config import prepare_overrides
from training.status import update_status
from training.sweeps import evaluation, launchers, needs, plan
from training.sweeps.expand import chosen_launcher, expand, is_sweep, name_folders
from training.sweeps.launchers import check_launcher, check_partition, derived_settings

PLAIN = ["--multirun", "task=cartpole_balance", "masker=none", "device=cpu", "num_threads=1"]


@pytest.fixture(scope="module")
def two_by_two():
    return expand(["--multirun", "task=cartpole_balance,cup_catch", "seed=3,4", "masker=none", "device=cpu"])


def made(sweep, directory):
    return type(sweep)(directory, sweep.launcher, sweep.launcher_config, sweep.runs)


@pytest.mark.parametrize(
    ("arguments", "several"),
    [
        (["task=cup_catch"], False),
        (["-m", "seed=0,1"], True),
        (["+suite=samg8"], True),
        (["+launcher=local"], True),
        (["+study=passes"], True),
    ],
)
def test_a_command_line_says_whether_it_is_a_sweep(arguments, several):
    assert is_sweep(arguments) is several


def test_runs_are_the_product_of_what_is_swept_in_folders_without_a_time(two_by_two):
    assert [run.subdir for run in two_by_two.runs] == [
        f"{task}/drqv2-none-s{seed}" for task in ("cartpole_balance", "cup_catch") for seed in (3, 4)
    ]
    assert [run.config.seed for run in two_by_two.runs] == [3, 4, 3, 4]
    assert two_by_two.runs[2].config.task_name == "cup_catch"
    assert "hydra" not in two_by_two.runs[0].config
    assert two_by_two.directory.parts[-2:] == ("runs", "sweep")


def test_further_swept_keys_name_folders_too():
    named = name_folders([*PLAIN, "lr=1e-3,1e-4", "seed=0"])
    assert [run.subdir for run in expand(named).runs] == [
        "cartpole_balance/drqv2-none-lr=0.001-s0",
        "cartpole_balance/drqv2-none-lr=0.0001-s0",
    ]
    own = [*PLAIN, "lr=1e-3,1e-4", "hydra.sweep.subdir=s${seed}-${lr}"]
    assert name_folders(own) == own


def test_runs_that_would_share_a_folder_are_refused():
    with pytest.raises(ConfigError, match="share the folder x"):
        expand([*PLAIN, "seed=0,1", "hydra.sweep.subdir=x"])


def test_a_suite_brings_tasks_seeds_and_folder():
    sweep = expand(["+suite=samg8", "task=cup_catch", "masker=none", "seed=0,1", "+launcher=local"])
    assert [run.subdir for run in sweep.runs] == ["cup_catch/drqv2-none-s0", "cup_catch/drqv2-none-s1"]
    assert sweep.directory.name == "samg8"
    assert sweep.launcher == "local" and "n_jobs" in sweep.launcher_config


def test_every_suite_names_tasks_that_exist_or_is_refused(monkeypatch):
    for name in ("samg8", "quickstart", "adroit3"):
        assert prepare_overrides([f"+suite={name}"]) == [f"+suite={name}"]
    choices = config._group_choices
    monkeypatch.setattr(config, "_group_choices", lambda group: [c for c in choices(group) if c != "pen"])
    with pytest.raises(ConfigError, match="adroit3 names tasks that this version does not have: pen"):
        prepare_overrides(["+suite=adroit3"])


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("+launcher=slrum", "Unknown launcher 'slrum'.*Did you mean slurm"),
        ("launcher=slurm", "added to the configuration.*launcher=..., with the plus"),
        ("+suite=samg9", "Unknown suite 'samg9'.*samg8"),
    ],
)
def test_unknown_names_get_the_nearest(argument, words):
    with pytest.raises(ConfigError) as caught:
        prepare_overrides([argument])
    assert re.search(words, str(caught.value))


def test_a_launcher_without_its_packages_names_the_extra(monkeypatch):
    monkeypatch.setattr(launchers, "_is_installed", lambda module: False)
    for name, cure in (("local", r"'\.\[local\]'"), ("slurm", r"'\.\[slurm\]'"), ("ray", "make setup-ray")):
        with pytest.raises(DependencyError, match=rf"launcher={name} needs .*{cure}"):
            check_launcher(name)
    check_launcher("basic")


def test_slurm_needs_a_cluster(monkeypatch):
    monkeypatch.setattr(launchers.shutil, "which", lambda name: None)
    with pytest.raises(DependencyError, match=r"no sbatch here.*\+launcher=local"):
        check_launcher("slurm")


def test_partitions_are_those_of_sinfo(monkeypatch):
    answer = subprocess.CompletedProcess([], 0, "main* (null)\nbig gpu:8\n", "")
    monkeypatch.setattr(launchers.subprocess, "run", lambda *a, **k: answer)
    assert check_partition("big") == "gpu:8"
    assert check_partition(None) == "(null)"
    with pytest.raises(ConfigError, match=r"no SLURM partition 'bog'.*mean big\? .*main, big"):
        check_partition("bog")
    answer.returncode, answer.stderr = 1, "slurm_load_partitions: Unable to contact slurm controller"
    with pytest.raises(DependencyError, match="Unable to contact"):
        check_partition(None)


def test_jobs_get_what_the_largest_run_needs_unless_told_otherwise(two_by_two, tmp_path, monkeypatch):
    found = needs.all_needs(made(two_by_two, tmp_path))
    slurm = type(two_by_two)(tmp_path, "slurm", {"partition": None}, two_by_two.runs)
    monkeypatch.setattr(launchers, "check_partition", lambda name: "gpu:8")
    settings = derived_settings(slurm, found, 2, ["hydra.launcher.timeout_min=30"])
    values = dict(text.removeprefix("hydra.launcher.").split("=") for text in settings)
    memory = max(need.memory for need in found)
    assert values == {"cpus_per_task": "4", "mem_gb": str(2 * needs.gibibytes(memory))}  # device=cpu: no GPU
    on_gpu = [type(need)(**{**vars(need), "gpu": True}) for need in found]
    assert "hydra.launcher.gpus_per_node=1" in derived_settings(slurm, on_gpu, 2, [])
    local = type(two_by_two)(tmp_path, "local", {}, two_by_two.runs)
    monkeypatch.setattr(launchers, "available_memory", lambda: 3 * memory)
    monkeypatch.setattr(launchers, "count_cores", lambda: 64)
    assert derived_settings(local, found, 1, []) == ["hydra.launcher.n_jobs=3"]
    assert derived_settings(local, found, 1, ["hydra.launcher.n_jobs=1"]) == []


def test_ray_is_asked_for_what_its_machines_have(two_by_two, tmp_path, monkeypatch):
    found = needs.all_needs(made(two_by_two, tmp_path))
    many = [type(need)(**{**vars(need), "gpu": True, "cpus": 9}) for need in found]
    ray = type(two_by_two)(tmp_path, "ray", {}, two_by_two.runs)
    monkeypatch.setattr(launchers, "count_cores", lambda: 4)
    monkeypatch.setattr(launchers, "count_gpus", lambda: 2)
    for name in ("RAY_AUTH_MODE", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    cluster = "hydra.launcher.ray.init.address=auto"
    cores, share = "+hydra.launcher.ray.remote.num_cpus=9", "+hydra.launcher.ray.remote.num_gpus=0.25"
    assert derived_settings(ray, many, 4, [cluster]) == [cores, share]
    with monkeypatch.context() as told:
        told.setenv("RAY_ADDRESS", "auto")
        assert derived_settings(ray, many, 4, []) == [cores, share]
    assert "RAY_AUTH_MODE" not in os.environ, "a cluster has its own ways"
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert derived_settings(ray, many, 4, []) == [cores.replace("9", "4"), share]
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert derived_settings(ray, many, 4, ["+hydra.launcher.ray.remote.num_gpus=1"]) == [
        cores.replace("9", "4")
    ]
    assert evaluation._settings("ray", []) == {"ray.remote.num_cpus": 2, "ray.remote.num_gpus": 1.0}
    monkeypatch.setattr(launchers, "count_gpus", lambda: 0)
    assert derived_settings(ray, many, 4, []) == [cores.replace("9", "4")]


def test_needs_follow_from_configuration_and_from_what_is_there(two_by_two, tmp_path):
    run = two_by_two.runs[0]
    fresh = needs.run_needs(run, tmp_path, None, True)
    assert fresh.decisions == fresh.left == 550_000
    assert fresh.memory > 550_000 * 3 * 84 * 84
    assert fresh.hours == pytest.approx(550_000 / fresh.rate / 3600) and not fresh.measured
    (tmp_path / "snapshots" / "step_0000500000").mkdir(parents=True)
    begun = needs.run_needs(run, tmp_path, 100.0, True)
    assert begun.left == 50_000 and begun.hours == pytest.approx(50_000 / 100 / 3600) and begun.measured
    assert begun.disk < fresh.disk


def test_speed_of_a_run_here_is_used_for_its_other_seeds(two_by_two, tmp_path):
    sweep = made(two_by_two, tmp_path)
    update_status(sweep.folder(sweep.runs[0]), agent_steps=4000, seconds=100.0)
    assert [need.rate for need in needs.all_needs(sweep)][:2] == [40.0, 40.0]
    assert not needs.all_needs(sweep)[2].measured
    assert {need.rate for need in needs.all_needs(sweep, rate=7.0)} == {7.0}


def test_a_plan_is_shown_and_written_and_keeps_earlier_runs(two_by_two, tmp_path):
    sweep = made(two_by_two, tmp_path)
    whole = plan.Plan(sweep, needs.all_needs(sweep), [])
    console = Console(record=True, width=160)
    console.print(plan.plan_table(whole))
    text = console.export_text() + "\n".join(plan.plan_summary(whole))
    assert "task=cup_catch" in text and "4 runs in" in text and "2,200,000 decisions are left" in text
    half = type(sweep)(tmp_path, "basic", {}, sweep.runs[:1])
    plan.write_plan(plan.Plan(half, whole.needs[:1], []))
    plan.write_plan(plan.Plan(type(sweep)(tmp_path, "basic", {}, sweep.runs[2:]), whole.needs[2:], []))
    assert sorted(plan.planned_runs(tmp_path)) == [run.subdir for run in (sweep.runs[0], *sweep.runs[2:])]
    stored = json.loads((tmp_path / ".sweep" / "plan.json").read_text())
    assert stored["runs"]["cup_catch/drqv2-none-s4"]["decisions"] == 550_000


def test_a_folder_of_another_experiment_is_refused_and_left_alone(two_by_two, tmp_path):
    sweep = made(two_by_two, tmp_path)
    folder = sweep.folder(sweep.runs[1])
    (folder / "snapshots" / "step_0000000100").mkdir(parents=True)
    other = OmegaConf.merge(sweep.runs[1].config, {"nstep": 7})
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(other, resolve=True))
    with pytest.raises(ConfigError, match=r"another experiment \(nstep: 7 -> 3\).*hydra.sweep.dir=DIR"):
        plan._check_runs(sweep)
    assert sorted(path.name for path in folder.iterdir()) == ["config.yaml", "snapshots"]


def test_the_folder_of_a_single_run_is_no_sweep(two_by_two, tmp_path):
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    with pytest.raises(ConfigError, match="folder of a single run"):
        plan.write_plan(plan.Plan(made(two_by_two, tmp_path), [], []))


def test_a_disk_that_is_too_small_is_refused_unless_told_otherwise(two_by_two, tmp_path, monkeypatch):
    sweep = made(two_by_two, tmp_path / "not" / "there")
    whole = plan.Plan(sweep, needs.all_needs(sweep), [])
    monkeypatch.setattr(plan.shutil, "disk_usage", lambda path: SimpleNamespace(free=1 << 30))
    with pytest.raises(ResourceError, match=r"need \d+ GiB .* 1 GiB are free.*check_disk=false"):
        plan.check_disk(whole)
    for run in sweep.runs:
        monkeypatch.setitem(run.config, "sweep", {"check_disk": False, "pack": 1, "retry_failed": False})
    plan.check_disk(whole)


def test_folders_without_runs_are_named(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        plan.planned_runs(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds no runs"):
        plan.planned_runs(tmp_path)


def test_the_launcher_is_read_from_the_command_line():
    assert chosen_launcher(["+launcher=ray", "seed=0,1"]) == "ray"
    assert chosen_launcher(["-m", "seed=0,1"]) == "basic"


def test_a_damaged_plan_is_named(tmp_path):
    write_json(tmp_path / ".sweep" / "plan.json", {})
    (tmp_path / ".sweep" / "plan.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        plan.planned_runs(tmp_path)
