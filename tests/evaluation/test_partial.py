"""Unfinished evaluations: kept whole after every episode, and only for the conditions they belong to."""

import json

import numpy as np
import pytest

from common import files
from common.errors import ConfigError, InputError
from evaluation.evaluate import EpisodeResult, StepView
from evaluation.partial import Partial, differences

IDENTITY = {"conditions": {"seed": 0, "level": "train", "points": (1, 2)}, "versions": {"torch": "2"}}


def episode(index, **changes):
    fixed = {
        "seed": 7,
        "episode_return": 0.1 + index,
        "length": 5,
        "terminated": False,
        "success": None,
        "mask_iou": 1 / 3,
        "mask_recall": None,
        "mask_precision": 0.5,
        "empty_share": 0.0,
        "point_error": None,
    }
    return EpisodeResult(episode=index, **{**fixed, **changes})


@pytest.fixture
def view():
    generator = np.random.default_rng(0)
    raw, masked = generator.integers(0, 256, (2, 9, 9, 3), dtype=np.uint8)
    mask, foreground = generator.random((2, 9, 9)) < 0.5
    return StepView(0, 50, raw, masked, mask, foreground)


@pytest.fixture
def kept(tmp_path, view):
    partial = Partial.open(tmp_path / "eval" / "a.partial", IDENTITY, overwrite=False)
    assert partial.episodes == [] and partial.view is None and not partial.path.exists()
    partial.add_random(3, 1.5)
    partial.add_episode(episode(2))
    partial.add_episode(episode(0, success=True), view)
    partial.add_episode(episode(5))
    return partial


def test_everything_comes_back(kept, view):
    again = Partial.open(kept.path, IDENTITY, overwrite=False)
    assert again.episodes == [episode(2), episode(0, success=True), episode(5)]
    assert again.random_returns == {3: 1.5}
    assert (again.view.episode, again.view.step) == (0, 50)
    for name in ("raw", "masked", "mask", "foreground"):
        found, expected = getattr(again.view, name), getattr(view, name)
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype
    again.remove()
    again.remove()
    assert list(kept.path.parent.iterdir()) == []


def test_a_frame_without_foreground_comes_back(tmp_path, view):
    partial = Partial(tmp_path / "a.partial", IDENTITY)
    partial.add_episode(episode(0), StepView(0, 3, view.raw, view.masked, view.mask))
    assert Partial.open(partial.path, IDENTITY, overwrite=False).view.foreground is None


def test_other_conditions_are_refused_by_name(kept):
    other = {**IDENTITY, "conditions": {"seed": 1, "level": "train", "points": [1, 2]}, "versions": {}}
    with pytest.raises(ConfigError) as caught:
        Partial.open(kept.path, other, overwrite=False)
    assert 'conditions.seed is 0 there and 1 here; versions.torch is "2" there' in caught.value.message
    assert "--overwrite" in caught.value.hint and str(kept.path) in caught.value.message
    assert Partial.open(kept.path, other, overwrite=True).episodes == []
    # The same conditions go on even so: an episode is what it is.
    assert len(Partial.open(kept.path, IDENTITY, overwrite=True).episodes) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("view"), "lacks the field view"),
        (lambda c: c.update(version=9), "version is 9, expected 1"),
        (lambda c: c["episodes"][1].pop("length"), "lacks the field episodes.length"),
        (lambda c: c["episodes"][1].update(length="5"), "episodes.length is '5'"),
        (lambda c: c["random_returns"].update(x=1), "random_returns or view cannot be read"),
        (lambda c: c["view"].update(raw="nonsense"), "random_returns or view cannot be read"),
    ],
)
def test_a_damaged_file_says_so(kept, change, message):
    content = json.loads(kept.path.read_text())
    change(content)
    kept.path.write_text(json.dumps(content))
    with pytest.raises(InputError) as caught:
        Partial.open(kept.path, IDENTITY, overwrite=False)
    assert message in caught.value.message and "--overwrite" in caught.value.hint
    assert Partial.open(kept.path, IDENTITY, overwrite=True).episodes == []
    kept.path.write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        Partial.open(kept.path, IDENTITY, overwrite=False)


def test_an_interrupted_write_leaves_what_was_there(kept, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        kept.add_episode(episode(9))
    monkeypatch.undo()
    assert len(Partial.open(kept.path, IDENTITY, overwrite=False).episodes) == 3
    assert [path.name for path in kept.path.parent.iterdir()] == ["a.partial"]


def test_differences_are_named_and_few():
    ours = {"a": 1, "b": {"c": [1], "d": None}, "e": "x" * 90}
    assert differences(ours, ours) == []
    found = differences({"a": 2, "b": {"c": [2], "d": 0}, "e": "y", "f": 1}, ours)
    assert found == [
        "a is 2 there and 1 here",
        "b.c is [2] there and [1] here",
        "b.d is 0 there and null here",
    ]
    assert differences({"e": "y"}, {"e": "x" * 90}) == [f'e is "y" there and "{"x" * 35} ... here']
    assert differences({"f": 1}, {}) == ["f is 1 there and null here"]
