"""Every shipped configuration composes and is valid; every kind of bad override gets one clear error."""

import dataclasses

import pytest
from omegaconf import OmegaConf

from common.errors import ConfigError
from training.config import (
    CONFIG_DIR,
    GROUPS,
    _group_choices,
    compose_config,
    prepare_overrides,
    save_config,
    validate,
)
from training.guard import exclusive

TASKS = _group_choices("task")


@pytest.mark.parametrize("task", TASKS)
def test_every_task_composes_with_its_own_budget(task):
    cfg = compose_config([f"task={task}", "masker=none"])
    validate(cfg)
    assert cfg.task_name == (f"adroit_{task}" if cfg.env == "adroit" else task)
    assert cfg.num_train_frames in (1_001_000, 2_001_000, 1_100_000, 3_100_000, 30_100_000)
    assert cfg.agent.stddev_schedule == cfg.stddev_schedule


@pytest.mark.parametrize("masker", _group_choices("masker"))
def test_every_masker_composes(masker):
    cfg = compose_config([f"masker={masker}"])
    validate(cfg)
    assert cfg.masker.variant == masker


def test_suite_names_the_eight_tasks_of_the_comparison():
    assert len(suite_tasks("samg8")) == 8
    assert set(suite_tasks("samg8")) <= set(TASKS)


def suite_tasks(name: str) -> list[str]:
    suite = OmegaConf.load(CONFIG_DIR / "suite" / f"{name}.yaml")
    return suite.hydra.sweeper.params.task.split(",")


def test_task_values_win_over_defaults_and_the_command_line_over_both():
    walker = compose_config(["task=walker_walk", "masker=none"])
    assert (walker.nstep, walker.batch_size) == (1, 512)
    assert compose_config(["task=humanoid_run", "masker=none"]).agent.lr == 8e-5
    assert compose_config(["batch_size=32"]).batch_size == 32


@pytest.mark.reliability("24", "a mistyped key or choice names the nearest")
@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("batchsize=3", "batch_size"),
        ("task=walker_wlak", "walker_walk"),
        ("masker=tinny", "tiny"),
        ("agent=drqv3", "drqv2"),
        ("handmade_4_SAM.original_image=x.png", "original_image"),
        ("save_snapshot=true", "snapshot_every_frames"),
        ("agent.num_exp_steps=5", "num_expl_steps"),
        ("masker.pases=1", "masker.passes"),
        ("batch_size", "key=value"),
    ],
)
def test_bad_override_is_refused_and_the_cure_named(override, words):
    with pytest.raises(ConfigError) as caught:
        prepare_overrides([override])
    assert words in str(caught.value)


@pytest.mark.reliability("24", "an impossible value says what is possible")
@pytest.mark.parametrize(
    "override",
    [
        "batch_size=abc",
        "nstep=0",
        "seed=-1",
        "discount=1.5",
        "resume=maybe",
        "background.type=vidoe",
        "background.difficulty=medium",
    ],
)
def test_impossible_value_is_refused(override):
    with pytest.raises(ConfigError, match=override.split("=")[0]):
        validate(compose_config([override, "masker=none"]))


def test_a_schedule_that_is_none_is_refused():
    with pytest.raises(ConfigError, match="not a schedule"):
        validate(compose_config(["stddev_schedule=foo", "masker=none"]))


def test_good_overrides_pass_unchanged():
    arguments = [
        "task=cup_catch",
        "masker=tiny",
        "agent.num_expl_steps=5",
        "masker.passes=1",
        "hydra.run.dir=x",
        "seed=3",
    ]
    assert prepare_overrides(arguments) == arguments


@pytest.mark.parametrize("flags", [["--cfg", "job"], ["-c", "hydra", "--resolve"], ["--package", "agent"]])
def test_hydras_own_flags_are_no_overrides(flags):
    assert prepare_overrides([*flags, "masker=tiny"]) == [*flags, "masker=tiny"]


@pytest.mark.parametrize(
    "flags",
    [["--config-name", "config"], ["--config-name=config.yaml"], ["-cn", "config"], ["-cn", "drq_config"]],
)
def test_config_names_are_known_with_and_without_their_suffix(flags):
    assert prepare_overrides([*flags, "batch_size=3"])
    with pytest.raises(ConfigError, match="batch_size"):
        prepare_overrides([*flags, "batchsize=3"])


def test_use_sam_g_switch():
    assert prepare_overrides(["use_SAM_g=false"])[-1] == "masker=none"
    assert prepare_overrides(["use_SAM_g=true", "masker=tiny"]) == ["use_SAM_g=true", "masker=tiny"]
    for contradiction in (["use_SAM_g=false", "masker=tiny"], ["use_SAM_g=true", "masker=none"]):
        with pytest.raises(ConfigError, match="contradicts"):
            prepare_overrides(contradiction)


def test_sweeps_check_every_choice():
    assert prepare_overrides(["--multirun", "task=walker_walk,cheetah_run", "seed=1,2"])
    with pytest.raises(ConfigError, match="cheetah_rnu"):
        prepare_overrides(["--multirun", "task=walker_walk,cheetah_rnu"])


def test_masker_needs_a_reference():
    with pytest.raises(ConfigError, match="reference"):
        validate(compose_config(["task=reacher_easy", "masker=tiny"]))


def test_no_update_within_the_budget_is_announced(caplog):
    validate(compose_config(["num_train_frames=100", "masker=none"]))
    assert "no update will ever happen" in caplog.text


def test_never_is_a_possible_period():
    validate(compose_config(["eval_every_frames=0", "snapshot_every_frames=0", "masker=none"]))


@pytest.mark.reliability(
    "24",
    "another configuration in a run's folder: the changed keys are named; the length of the run may change",
)
def test_another_experiment_in_the_same_folder_is_refused(tmp_path):
    save_config(compose_config(["masker=none"]), tmp_path)
    (tmp_path / "snapshots" / "step_0000000001").mkdir(parents=True)
    save_config(compose_config(["masker=none", "num_train_frames=2000000"]), tmp_path)
    with pytest.raises(ConfigError, match="batch_size: 512 -> 32"):
        save_config(compose_config(["masker=none", "batch_size=32"]), tmp_path)
    faster = ["agent.numerics.compile=true", "agent.numerics.channels_last=false"]
    save_config(compose_config(["masker=none", *faster]), tmp_path)  # the last bits are another machine's
    with pytest.raises(ConfigError, match=r"agent\.numerics\.precision: float32 -> bfloat16"):
        save_config(compose_config(["masker=none", "agent.numerics.precision=bfloat16"]), tmp_path)


def test_a_start_that_failed_does_not_occupy_the_folder(tmp_path):
    save_config(compose_config(["masker=tiny"]), tmp_path)
    (tmp_path / "masker").mkdir()
    save_config(compose_config(["masker=none"]), tmp_path)
    assert not (tmp_path / "masker").exists()
    assert OmegaConf.load(tmp_path / "config.yaml").masker.variant == "none"


@pytest.mark.parametrize("variant", ["paper", "fast", "tiny"])
def test_masker_files_name_every_option(variant):
    from samg.build import NETWORKS
    from samg.numerics import NUMERICS
    from samg.options import SamgOptions

    options = {field.name for field in dataclasses.fields(SamgOptions)} | set(NUMERICS)
    expected = options | {"variant", "weights", "compat"} | set(NETWORKS[variant].settings)
    assert set(compose_config([f"masker={variant}"]).masker) == expected


def test_tasks_of_the_hand_have_the_budgets_of_sam_gs_scripts():
    for task, frames, size in (("door", 1_001_000, 84), ("hammer", 1_001_000, 84), ("pen", 2_001_000, 160)):
        cfg = compose_config([f"task={task}", "masker=tiny"])
        validate(cfg)
        assert (cfg.env, cfg.num_train_frames, cfg.image_size) == ("adroit", frames, size)
        assert (cfg.action_repeat, cfg.frame_stack) == (2, 3) and len(cfg.extra_masked_images_list) == 2
    assert tuple(suite_tasks("adroit3")) == ("door", "hammer", "pen")


@pytest.mark.parametrize(("task", "env"), [("door", "dmc"), ("walker_walk", "adroit")])
def test_a_simulator_without_the_task_is_refused(task, env):
    with pytest.raises(ConfigError, match=f"not of env={env}") as caught:
        validate(compose_config([f"task={task}", f"env={env}", "masker=none"]))
    assert f"task={task}" in caught.value.hint


def test_budgets_are_no_tasks():
    with pytest.raises(ConfigError, match="Unknown task 'easy'"):
        prepare_overrides(["task=easy"])


def test_suite_and_environments_agree():
    import envs

    assert tuple(suite_tasks("samg8")) == envs.SAMG8


@pytest.mark.parametrize("group", GROUPS)
def test_group_files_say_where_their_keys_belong(group):
    if group == "masker":
        return
    for path in (CONFIG_DIR / group).glob("**/*.yaml"):
        assert path.read_text().startswith("# @package _global_"), path


def test_a_folder_in_use_is_not_touched(tmp_path):
    save_config(compose_config(["masker=none"]), tmp_path)
    before = (tmp_path / "config.yaml").read_text()
    with exclusive(tmp_path), pytest.raises(ConfigError, match="in use by process"):
        save_config(compose_config(["masker=none", "num_train_frames=2000000"]), tmp_path)
    assert (tmp_path / "config.yaml").read_text() == before
