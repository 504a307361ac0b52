"""Flags, run directories and the choice of the masker: every contradiction has its own sentence."""

import json

import pytest
from omegaconf import OmegaConf

from common.errors import ConfigError, SnapshotError
from common.masking import MaskerInfo
from envs.level_names import get_level
from evaluation.cli import parse_options
from evaluation.masker_choice import ReferenceFlags, check_masker, choose_masker, choose_maskers
from evaluation.plan import (
    choose_processes,
    choose_threads,
    plan_background,
    plan_benchmark,
    record_conditions,
)
from evaluation.run_directory import RunDirectory, canonical_task, task_from_flags

LEVELS = ("train", "color_easy", "color_hard", "video_easy", "video_hard")
DOCUMENTED = (
    "--domain_name walker --task_name walk --model_dir {run} --seed 0 --use_SAM_g "
    "--original_image reference_images/walker_0.png --masked_image reference_images/walker_masked_0.jpg "
    "--extra_points_list 40 24 23 68 68 57 --extra_masked_images_list A B"
)
CONFIG = {
    "task_name": "walker_walk",
    "action_repeat": 2,
    "frame_stack": 3,
    "image_size": 84,
    "seed": 7,
    "protocol": "dmcgb",
    "agent": {"_target_": "algos.DrQV2Agent"},
    "masker": {"variant": "tiny", "weights": None, "passes": 2},
    "original_image": "reference_images/walker_0.png",
    "masked_image": "reference_images/walker_masked_0.png",
    "extra_points_list": [[40, 24]],
    "extra_masked_images_list": [],
    "background": {
        "type": "color",
        "difficulty": "hard",
        "source": "dmcgb",
        "data_dir": None,
        "key": "green",
    },
}


def expand(names):
    return tuple(get_level(name).name for name in names)


def parse(line):
    return parse_options(line.split(), LEVELS)


def make_run(path, saved_masker=True, **changes):
    (path / "snapshots" / "step_0000002000").mkdir(parents=True)
    OmegaConf.save(OmegaConf.create({**CONFIG, **changes}), path / "config.yaml")
    if saved_masker:
        (path / "masker").mkdir()
        record = {"name": "samg", "variant": "tiny", "fingerprint": "aa", "format": 1}
        (path / "masker" / "masker.json").write_text(json.dumps(record))
    return RunDirectory.open(path)


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


# Flags -----------------------------------------------------------------------------------------------------


def test_the_documented_line():
    options = parse(DOCUMENTED.format(run="RUN"))
    assert (options.domain_name, options.task_name, options.model_dirs) == ("walker", "walk", ("RUN",))
    assert options.use_sam_g is True and options.seed == 0 and options.modes == () == options.maskers
    assert options.reference.extra_points_list == ["40", "24", "23", "68", "68", "57"]
    assert options.reference.extra_masked_images_list == ["A", "B"]
    assert options.episodes == 100


def test_defaults_and_aliases():
    options = parse(
        "--model_dir R --save-video --num-envs=3 --mode color-hard original --background-source dmcgb"
    )
    assert (options.episodes, options.num_envs, options.source) == (10, 3, "dmcgb")
    assert options.modes == ("color-hard", "original") and not options.reference.given
    assert (
        parse("--model_dir R --eval_episodes 7").episodes == parse("--model_dir R --episodes 7").episodes == 7
    )
    several = parse("--model_dir A B --masker none tiny run --mode video_hard+cam_pos_easy axes")
    assert (several.model_dirs, several.maskers) == (("A", "B"), ("none", "tiny", "run"))
    assert several.modes == ("video_hard+cam_pos_easy", "axes")
    assert parse("--model_dir R --use_SAM_g false").use_sam_g is False


@pytest.mark.parametrize(
    ("flags", "cores", "threads", "processes"),
    [
        ("", 1, 1, 1),
        ("", 2, 1, 2),
        ("", 8, 4, 5),
        ("", 64, 32, 8),
        ("--episodes 3", 64, 32, 3),
        ("--num_envs 12", 2, 1, 12),
        ("--num_threads 7 --episodes 20", 8, 7, 2),
    ],
)
def test_cores_are_shared_out(flags, cores, threads, processes):
    options = parse(f"--model_dir R {flags}")
    assert (choose_threads(options, cores), choose_processes(options, cores)) == (threads, processes)


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("--seed 0", "--model_dir is missing", "train.py"),
        ("--model_dir R --masker none sam", "Unknown masker 'sam'", "Choose one of"),
        ("--model_dir R --background-source dmc", "Unknown background source 'dmc'", "Did you mean dmcgb?"),
        ("--model_dir R --protocol x", "Unknown protocol 'x'", "dmcgb"),
        ("--model_dir R --episodes 0", "0 is less than 1", "--help"),
        ("--model_dir R --seed one", "invalid whole number of at least 0 value: 'one'", "--help"),
        ("--model_dir R --sead 1", "Unknown argument '--sead'", "Did you mean --seed?"),
        ("--model_dir R --use_SAM_g maybe", "'maybe' is neither true nor false", "--help"),
    ],
)
def test_impossible_flags(line, message, hint):
    with pytest.raises(ConfigError) as caught:
        parse(line)
    assert message in caught.value.message and hint in caught.value.hint


# Run directories -------------------------------------------------------------------------------------------


def test_a_run_is_read(run):
    assert (run.task, run.algorithm, run.masker_variant) == ("walker_walk", "drqv2", "tiny")
    background = run.background()
    assert background.levels == ("color_hard",) and background.key == "green" and background.colors is None
    assert run.trained_masker() == {"name": "samg", "variant": "tiny", "fingerprint": "aa", "numerics": {}}


def test_a_snapshot_says_on_what_its_training_went_on(run):
    moved = {"masker": {"numerics": {"device": "cuda"}}}
    assert run.trained_masker(moved) == {**run.trained_masker(), "numerics": {"device": "cuda"}}
    assert run.trained_masker({"agent_steps": 5}) == run.trained_masker()  # written by an older version


def test_what_is_no_run(tmp_path):
    with pytest.raises(SnapshotError, match="does not exist"):
        RunDirectory.open(tmp_path / "nothing")
    (tmp_path / "walker_walk").mkdir()
    make_run(tmp_path / "walker_walk" / "drqv2-tiny-s0")
    with pytest.raises(SnapshotError, match=r"no config\.yaml") as caught:
        RunDirectory.open(tmp_path / "walker_walk")
    assert "drqv2-tiny-s0" in caught.value.hint
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "snapshot.pt").touch()
    with pytest.raises(SnapshotError) as caught:
        RunDirectory.open(tmp_path / "old")
    assert "original code cannot be loaded" in caught.value.hint
    (tmp_path / "walker_walk" / "drqv2-tiny-s0" / "snapshots" / "step_0000002000").rmdir()
    with pytest.raises(SnapshotError, match="holds no snapshot"):
        RunDirectory.open(tmp_path / "walker_walk" / "drqv2-tiny-s0")


@pytest.mark.parametrize("text", ["a: [1", "- 1\n- 2\n", "task_name: walker_walk\n", "\x00"])
def test_a_spoilt_configuration(run, text):
    (run.path / "config.yaml").write_text(text)
    with pytest.raises(SnapshotError, match=r"config\.yaml"):
        RunDirectory.open(run.path)


@pytest.mark.parametrize(
    ("domain", "task", "default", "expected"),
    [
        (None, None, "walker_walk", "walker_walk"),
        ("walker", "walk", "walker_walk", "walker_walk"),
        (None, "walker_walk", "walker_walk", "walker_walk"),
        (None, "walk", "walker_walk", "walker_walk"),
        ("ball_in_cup", "catch", "cup_catch", "cup_catch"),
        ("cup", "catch", "cup_catch", "cup_catch"),
        (None, "ball_in_cup_catch", "cup_catch", "cup_catch"),
        ("ball_in_cup", None, "cup_catch", "cup_catch"),
        ("walker", "stand", "walker_walk", "walker_stand"),
        ("cheetah", None, "walker_walk", "cheetah_walk"),
    ],
)
def test_task_from_flags(domain, task, default, expected):
    assert task_from_flags(domain, task, default) == expected


def test_other_tasks_and_agents_are_refused(run):
    run.check_task("walker", "walk")
    run.check_algorithm("drqv2")
    with pytest.raises(ConfigError, match="trained on walker_walk, but the flags name walker_stand"):
        run.check_task("walker", "stand")
    with pytest.raises(ConfigError, match="Unknown algorithm 'drqv3'"):
        run.check_algorithm("drqv3")
    assert canonical_task("ball_in_cup_catch") == "cup_catch"


def test_background_flags_override_the_run(run):
    chosen = plan_background(parse("--model_dir R --mode train --background-source procedural"), run, expand)
    assert chosen.levels == ("train",) and chosen.source == "procedural" and chosen.key == "green"
    other = plan_background(parse("--model_dir R --protocol samg"), run, expand)
    assert other.protocol == "samg" and other.key is None, "the key of the old protocol must not stay"
    assert plan_background(parse("--model_dir R --protocol samg --key green"), run, expand).key == "green"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"type": "colour"}, ("background.type", "colour", "color")),
        ({"difficulty": "medium"}, ("background.difficulty", "medium", "hard")),
    ],
)
def test_a_background_that_does_not_exist_is_refused(tmp_path, change, words):
    run = make_run(tmp_path / "run", background={**CONFIG["background"], **change})
    with pytest.raises(ConfigError) as caught:
        run.background()
    for word in words:
        assert word in f"{caught.value.message} {caught.value.hint}"


# The masker ------------------------------------------------------------------------------------------------


def choose(run, line="", **options):
    flags = parse(f"--model_dir R {line}")
    (choice,) = choose_maskers(run, flags.maskers, flags.use_sam_g, flags.reference, **options)
    return choice


def test_the_runs_own_masker_is_loaded(run):
    for line in ("", "--masker run", "--use_SAM_g", "--masker tiny"):
        choice = choose(run, line)
        assert choice.load and choice.variant == "tiny" and choice.reference is None
    assert not choose(run).explicit and choose(run, "--masker tiny").explicit


def test_reference_flags_fit_another(run):
    choice = choose(run, "--original_image O --masked_image M --extra_points_list 1 2")
    assert not choice.load and choice.explicit and choice.settings == {"weights": None, "passes": 2}
    assert choice.reference == {
        "original_image": "O",
        "masked_image": "M",
        "extra_points_list": ["1", "2"],
        "extra_masked_images_list": [],
    }
    assert choose(run, "--original_image O --masked_image M").reference["extra_points_list"] == []
    assert choose(run, "--extra_points_list 1 2").reference["original_image"] == CONFIG["original_image"]


def test_another_variant_takes_its_own_settings(run):
    choice = choose(run, "--masker paper")
    assert choice.variant == "paper" and choice.settings["passes"] == 3 and not choice.load
    assert choice.reference["extra_points_list"] == [[40, 24]]
    assert choose(run, "--masker none").reference is None
    assert choose(run, "--use_SAM_g false").variant == "none"


def test_a_mismatch_allowed_or_a_lost_masker_fits_anew(run, tmp_path):
    assert not choose(run, allow_mismatch=True).load
    assert choose(run, allow_mismatch=True).reference["masked_image"] == CONFIG["masked_image"]
    assert not choose(make_run(tmp_path / "lost", saved_masker=False)).load


@pytest.mark.parametrize(
    ("line", "variant", "message"),
    [
        ("--use_SAM_g", "none", "--use_SAM_g contradicts the masker 'none', which the run"),
        ("--use_SAM_g --masker none", "tiny", "--use_SAM_g contradicts the masker 'none' of --masker"),
        ("--use_SAM_g false --masker tiny", "tiny", "--use_SAM_g false contradicts --masker tiny"),
        ("--masker groundtruth --extra_points_list 1 2", "tiny", "'groundtruth' reads no reference"),
        ("--original_image O", "tiny", "--original_image was given without --masked_image"),
        ("--masked_image O", "tiny", "--masked_image was given without --original_image"),
    ],
)
def test_contradictions(tmp_path, line, variant, message):
    run = make_run(tmp_path / "run", masker={"variant": variant})
    with pytest.raises(ConfigError) as caught:
        choose(run, line)
    assert message in caught.value.message and caught.value.hint


def test_several_maskers_are_named_once_each(run):
    flags = parse("--model_dir R --masker none run tiny groundtruth --original_image O --masked_image M")
    choices = choose_maskers(run, flags.maskers, None, flags.reference)
    assert [choice.variant for choice in choices] == ["none", "tiny", "groundtruth"]
    assert [choice.reference is None for choice in choices] == [True, False, True]
    assert all(choice.explicit for choice in choices) and choices[1].reference["original_image"] == "O"
    own = choose_maskers(run, ("none", "run"), None, ReferenceFlags())
    assert [(choice.variant, choice.load, choice.explicit) for choice in own] == [
        ("none", False, True),
        ("tiny", True, False),
    ]
    with pytest.raises(ConfigError, match="reads no reference"):
        choose_maskers(run, ("none", "groundtruth"), None, flags.reference)
    assert choose_masker(run, None, None, ReferenceFlags()).variant == "tiny"


def test_no_reference_at_all(tmp_path):
    run = make_run(tmp_path / "run", original_image=None, masker={"variant": "none"})
    with pytest.raises(ConfigError, match="walker_walk has no reference image"):
        choose(run, "--masker tiny")


def test_another_fingerprint_needs_consent(run, caplog):
    info, trained = MaskerInfo("samg", "tiny", "bb", {}), run.trained_masker()
    with pytest.raises(ConfigError, match="not the one of training") as caught:
        check_masker(info, trained, choose(run), allow_mismatch=False)
    assert "--allow-masker-mismatch" in caught.value.hint and "bb" in caught.value.message
    assert not caplog.records
    check_masker(info, trained, choose(run, "--masker tiny"), allow_mismatch=False)
    check_masker(info, trained, choose(run), allow_mismatch=True)
    assert len(caplog.records) == 2 and "both are recorded" in caplog.text
    check_masker(MaskerInfo("samg", "tiny", "aa", {}), trained, choose(run), allow_mismatch=False)
    assert len(caplog.records) == 2


def test_masks_computed_otherwise_than_in_training_are_worth_a_line(run, caplog):
    trained = {**run.trained_masker(), "numerics": {"device": "cuda", "precision": "bfloat16", "torch": "2"}}
    now = {"device": "cpu", "precision": "float32", "compile": True, "batch_size": 8, "torch": "2"}
    check_masker(MaskerInfo("samg", "tiny", "aa", now), trained, choose(run), allow_mismatch=False)
    (record,) = caplog.records
    assert "(device cuda, precision bfloat16, torch 2)" in record.getMessage()
    assert "here: device cpu, precision float32, compile, torch 2" in record.getMessage()
    same = {**trained["numerics"], "batch_size": 8, "compile": False}  # older records lack some
    check_masker(MaskerInfo("samg", "tiny", "aa", same), trained, choose(run), allow_mismatch=False)
    assert len(caplog.records) == 1


# The plan --------------------------------------------------------------------------------------------------


def test_plan_and_record(run, tmp_path):
    options = parse(
        "--model_dir R --mode train video_hard --background-source procedural --save_video --seed 3"
    )
    background = plan_background(options, run, expand)
    benchmark = plan_benchmark(options, run, background, "tiny", on_gpu=True)
    assert benchmark.result_path("train") == run.path / "eval" / "train-procedural-tiny-s3.json"
    assert benchmark.videos == run.path / "videos" and benchmark.padded_batch == 8
    assert plan_benchmark(options, run, background, "tiny", on_gpu=False).padded_batch == 1
    elsewhere = parse(f"--model_dir R --out {tmp_path}/o --save_video --padded_batch 4")
    other = plan_benchmark(elsewhere, run, background, "tiny", on_gpu=True)
    assert other.out == other.videos == tmp_path / "o" and other.padded_batch == 4

    several = parse(f"--model_dir R S --out {tmp_path}/o")
    assert plan_benchmark(several, run, background, "tiny", on_gpu=True).out == tmp_path / "o" / "run"

    info = MaskerInfo("samg", "tiny", "bb", {})
    manifest = {"agent_steps": 2000, "updates": 750}
    facts = {"level": "video_hard", "clips": 16}
    recorded = record_conditions(run, benchmark, background, facts, info, manifest)
    assert (recorded.frames, recorded.updates, recorded.seed, recorded.train_seed) == (4000, 750, 3, 7)
    assert recorded.masker["fingerprint"] == "bb" and recorded.training_masker["fingerprint"] == "aa"


def test_pictures_of_many_levels_or_combinations_have_a_short_name(run):
    def name(*modes):
        options = parse(f"--model_dir R --mode {' '.join(modes)} --background-source procedural")
        background = plan_background(options, run, expand)
        return plan_benchmark(options, run, background, "tiny", on_gpu=False).picture_path.name

    assert name("train", "video_hard") == "train+video_hard-procedural-tiny-s0.png"
    assert name("video_hard+cam_pos_easy") == "video_hard+cam_pos_easy-procedural-tiny-s0.png"
    assert name("train", "video_hard+cam_pos_easy") == "2_levels-procedural-tiny-s0.png"
    assert name(*LEVELS, "cam_pos_easy") == "6_levels-procedural-tiny-s0.png"


def test_flags_of_a_reference():
    assert not ReferenceFlags().given and ReferenceFlags(extra_points_list=[]).given
