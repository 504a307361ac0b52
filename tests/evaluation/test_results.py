"""Result files: written whole, never overwritten by accident, every field checked when read."""

import dataclasses
import json

import pytest

from common import files
from common.errors import ConfigError, InputError
from common.masking import MaskerInfo
from evaluation.evaluate import EpisodeResult
from evaluation.results import (
    Conditions,
    load_result,
    make_result,
    protocol_returns,
    refuse_existing,
    result_stem,
    save_result,
)

MASKER = MaskerInfo(
    "samg", "tiny", "ab" * 32, {"device": "cpu"}, {"passes": 2}, {"sha256": "cd" * 32, "release": None}
).to_dict()
TRAINING_MASKER = {"name": "samg", "variant": "tiny", "fingerprint": "ef" * 32}


def conditions(**changes):
    fixed = {
        "task": "walker_walk",
        "level": "video_hard",
        "source": "procedural",
        "protocol": "dmcgb",
        "key": None,
        "colors": None,
        "level_facts": {"level": "video_hard", "clips": 16},
        "masker": MASKER,
        "training_masker": TRAINING_MASKER,
        "padded_batch": 8,
        "algorithm": "drqv2",
        "agent": {"class": "DrQV2Agent"},
        "agent_steps": 2000,
        "frames": 4000,
        "updates": 750,
        "action_repeat": 2,
        "seed": 0,
        "train_seed": 1,
    }
    return Conditions(**{**fixed, **changes})


def episode(index, value, **changes):
    fixed = {
        "seed": 1000 + index,
        "length": 500,
        "terminated": False,
        "success": None,
        "mask_iou": 0.5,
        "mask_recall": 0.75,
        "mask_precision": 1.0,
        "empty_share": 0.25,
        "point_error": 2.0,
    }
    return EpisodeResult(episode=index, episode_return=value, **{**fixed, **changes})


@pytest.fixture
def result():
    return make_result(conditions(), [episode(0, -2.0), episode(1, 6.0)], [1.0, 2.0])


def test_aggregates(result):
    assert (result.mean, result.std, result.episodes) == (2.0, 4.0, 2)
    assert (result.mask_iou, result.mask_recall, result.mask_precision) == (0.5, 0.75, 1.0)
    assert (result.empty_share, result.random_return, result.success_rate) == (0.25, 1.5, None)
    assert result.random_returns == [1.0, 2.0] and result.episode_seeds == [1000, 1001]
    assert make_result(conditions(), [episode(0, 1.0)]).random_returns is None
    assert result.versions["mujoco"] and result.date.endswith("+00:00")


def test_protocol_samg_clips_episodes_not_the_mean():
    clipped = make_result(conditions(protocol="samg"), [episode(0, -2.0), episode(1, 6.0)])
    assert clipped.episode_returns == [0.0, 6.0] and clipped.mean == 3.0
    assert protocol_returns([-1.0, 2.0], "dmcgb") == [-1.0, 2.0]


def test_success_rate_counts_known_episodes():
    made = make_result(conditions(), [episode(0, 1.0, success=True), episode(1, 1.0, success=False)])
    assert made.success_rate == 0.5 and made.episode_success == [True, False]
    assert made.point_error == 2.0


def test_means_are_over_the_episodes_in_which_they_are_known():
    known = [episode(0, 1.0, point_error=None), episode(1, 1.0, point_error=3.0), episode(2, 1.0)]
    made = make_result(conditions(), known)
    assert (made.point_error, made.episode_point_error) == (2.5, [None, 3.0, 2.0])


def test_unknown_foreground_stays_unknown():
    unknown = {"mask_iou": None, "mask_recall": None, "mask_precision": None}
    assert make_result(conditions(), [episode(0, 1.0, **unknown)]).mask_iou is None


def test_round_trip(tmp_path, result):
    path = tmp_path / "eval" / f"{result_stem('video_hard', 'procedural', 'tiny', 0)}.json"
    assert path.name == "video_hard-procedural-tiny-s0.json"
    save_result(path, result)
    assert load_result(path) == result


def test_existing_results_are_kept(tmp_path, result):
    path = tmp_path / "r.json"
    save_result(path, result)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"r\.json exists already") as caught:
        save_result(path, make_result(conditions(), [episode(0, 9.0)]))
    assert "--overwrite" in caught.value.hint and path.read_bytes() == before
    save_result(path, make_result(conditions(), [episode(0, 9.0)]), overwrite=True)
    assert load_result(path).mean == 9.0


def test_refuse_existing_looks_at_all(tmp_path):
    (tmp_path / "b").touch()
    refuse_existing([tmp_path / "a"], overwrite=False)
    refuse_existing([tmp_path / "a", tmp_path / "b"], overwrite=True)
    with pytest.raises(ConfigError, match="b exists"):
        refuse_existing([tmp_path / "a", tmp_path / "b"], overwrite=False)


def test_an_interrupted_write_leaves_nothing(tmp_path, result, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_result(tmp_path / "r.json", result)
    assert list(tmp_path.iterdir()) == []


def spoil(content, **changes):
    return {**content, **changes}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: spoil(c, version=99), "version is 99, expected 4"),
        (lambda c: {k: v for k, v in c.items() if k != "iqm"}, "lacks the field iqm"),
        (lambda c: {k: v for k, v in c.items() if k != "fingerprint"}, "lacks the field fingerprint"),
        (lambda c: {k: v for k, v in c.items() if k != "conditions"}, "lacks the field conditions"),
        (lambda c: spoil(c, seed=5), "seed is 5, but the conditions say 0"),
        (lambda c: spoil(c, training_fingerprint=None), "training_fingerprint is None, but"),
        (lambda c: spoil(c, episode_seeds=[1]), "episode_seeds has 1 values for 2 episodes"),
        (lambda c: spoil(c, extra=1), "unknown field extra"),
        (lambda c: spoil(c, mean="high"), "mean is 'high'"),
        (lambda c: spoil(c, episodes=True), "episodes is True"),
        (lambda c: spoil(c, episodes=3), "episode_returns has 2 values for 3 episodes"),
        (lambda c: spoil(c, mean=77.0), "mean is 77.0, but"),
        (lambda c: spoil(c, mask_iou=0.9), "mask_iou is 0.9, but the mean of episode_mask_iou is 0.5"),
        (lambda c: spoil(c, point_error=None), "point_error is None, but"),
        (lambda c: spoil(c, episode_success=[None]), "episode_success has 1 values for 2 episodes"),
        (lambda c: spoil(c, episode_empty_share=[0.5, None]), "episode_empty_share is"),
        (lambda c: spoil(c, conditions=3), "conditions is not an object"),
        (lambda c: spoil(c, conditions=spoil(c["conditions"], task=3)), "conditions.task is 3"),
        (lambda c: spoil(c, episode_returns=[1.0, None]), "episode_returns is"),
        (lambda c: [c], "not a JSON object"),
    ],
)
def test_a_spoilt_file_says_what_is_wrong(tmp_path, result, change, message):
    path = tmp_path / "r.json"
    path.write_text(json.dumps(change(result.to_dict())))
    with pytest.raises(InputError) as caught:
        load_result(path)
    assert message in caught.value.message and str(path) in caught.value.message


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_result(tmp_path / "none.json")
    (tmp_path / "half.json").write_text('{"version": 4, ')
    with pytest.raises(InputError, match="not valid JSON"):
        load_result(tmp_path / "half.json")


def test_every_field_reaches_the_file(result):
    content = result.to_dict()
    assert set(content) >= {field.name for field in dataclasses.fields(result)}
    assert set(content["conditions"]) == {field.name for field in dataclasses.fields(Conditions)}


def test_the_file_says_at_its_top_level_what_was_evaluated(result):
    content = result.to_dict()
    expected = {
        "task": "walker_walk",
        "level": "video_hard",
        "source": "procedural",
        "protocol": "dmcgb",
        "key": None,
        "masker": MASKER,
        "fingerprint": "ab" * 32,
        "training_fingerprint": "ef" * 32,
        "algorithm": "drqv2",
        "agent_steps": 2000,
        "frames": 4000,
        "updates": 750,
        "action_repeat": 2,
        "seed": 0,
        "train_seed": 1,
        "episode_seeds": [1000, 1001],
        "random_returns": [1.0, 2.0],
    }
    assert {name: content[name] for name in expected} == expected
    assert content["masker"]["weights"]["sha256"] == "cd" * 32 and content["masker"]["method"] == {
        "passes": 2
    }
    used = conditions(level_facts={"level": "video_hard", "key": "green"}, training_masker=None)
    again = make_result(used, [episode(0, 1.0)]).to_dict()
    assert again["key"] == "green" and again["training_fingerprint"] is None
