"""Footage of the user's: every unreadable file is named, sizes are made to fit; scenes become records."""

import logging

import numpy as np
import pytest
import torch
from PIL import Image

from common.errors import InputError
from evaluation.footage import ImageFootage, VideoFootage
from evaluation.painting import Panel, enlarge, marker_kinds, paint
from evaluation.pictures import Explanation, Prompts, Scene, Step, scene_frame, scene_panels
from evaluation.scenes import agent_policy, footage_scenes, play, random_policy, scene_record
from evaluation.showing import Showing
from evaluation.videos import VideoFile, count_frames
from samg import build_masker
from tests.support.maskers import fake_reference, register_fake, scenes

FRAME = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)


@pytest.fixture
def masker(monkeypatch):
    register_fake(monkeypatch)
    return build_masker("fake").fit(fake_reference())


def save(folder, name, pixels):
    Image.fromarray(pixels).save(folder / name)


def test_images_come_in_order_and_untouched_where_they_fit(tmp_path, caplog):
    for name, value in (("b.png", 20), ("a.png", 10)):
        save(tmp_path, name, np.full((48, 48, 3), value, np.uint8))
    (tmp_path / "notes.txt").write_text("not a picture")
    footage = ImageFootage(tmp_path, 48)
    found = list(footage.frames(None))
    assert [name for name, _ in found] == ["a.png", "b.png"] and footage.length == 2
    assert [int(frame.max()) for _, frame in found] == [10, 20] and not caplog.records
    assert len(list(footage.frames(1))) == 1


def test_other_sizes_are_cropped_to_their_middle_and_resized_with_a_notice(tmp_path, caplog):
    wide = np.zeros((40, 100, 3), np.uint8)
    wide[:, 30:70] = (200, 100, 50)  # exactly the middle square
    save(tmp_path, "wide.png", wide)
    save(tmp_path, "grey.png", np.full((48, 48), 7, np.uint8))
    with caplog.at_level(logging.WARNING):
        (_, grey), (_, fitted) = ImageFootage(tmp_path, 48).frames(None)
    assert "1 of 2 images are not 48 x 48" in caplog.text
    assert fitted.shape == (48, 48, 3) and (fitted[:, 3:-3] == (200, 100, 50)).all()
    assert (grey == 7).all()


@pytest.mark.reliability("16", "all unreadable images of a folder are named at once")
def test_all_unreadable_images_are_named_at_once(tmp_path):
    save(tmp_path, "whole.png", FRAME)
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:500])
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(InputError) as caught:
        ImageFootage(tmp_path, 48)
    assert "2 of 3 images" in str(caught.value)
    assert "cut.png" in str(caught.value) and "text.jpg" in str(caught.value)


def test_folders_without_images_are_refused(tmp_path):
    with pytest.raises(InputError, match="holds no image"):
        ImageFootage(tmp_path, 48)
    with pytest.raises(InputError, match="is not a folder"):
        ImageFootage(tmp_path / "nowhere", 48)


def video(path, count, size=64):
    file = VideoFile(path, fps=10)
    for number in range(count):
        file.add(np.full((size, size, 3), 20 * number, np.uint8))
    assert file.close()


def test_a_video_is_read_frame_by_frame(tmp_path, caplog):
    video(tmp_path / "v.mp4", 7)
    with caplog.at_level(logging.WARNING):
        footage = VideoFootage(tmp_path / "v.mp4", 48)
    assert footage.fps == 10 and footage.length is None and "are not 48 x 48" in caplog.text
    found = list(footage.frames(None))
    assert [title for title, _ in found] == [f"frame {number}" for number in range(7)]
    for number, (_, frame) in enumerate(found):
        assert frame.shape == (48, 48, 3) and abs(float(frame.mean()) - 20 * number) < 4
    assert len(list(footage.frames(3))) == 3


@pytest.mark.reliability("20", "a user's video that is missing or does not decode is named")
def test_videos_that_are_none_are_refused(tmp_path):
    (tmp_path / "v.mp4").write_text("no video")
    with pytest.raises(InputError, match="does not decode"):
        VideoFootage(tmp_path / "v.mp4", 48)
    with pytest.raises(InputError, match="does not exist"):
        VideoFootage(tmp_path / "nowhere.mp4", 48)


def test_frames_of_another_size_fail_a_video_with_a_warning_only(tmp_path):
    file = VideoFile(tmp_path / "v.mp4")
    file.add(np.zeros((64, 64, 3), np.uint8))
    file.add(np.zeros((32, 32, 3), np.uint8))
    with pytest.warns(RuntimeWarning, match="could not be written"):
        assert not file.close()
    assert list(tmp_path.iterdir()) == []


def test_large_panels_are_shrunk_and_small_ones_enlarged_exactly():
    small = paint(Panel(FRAME), side=100)
    np.testing.assert_array_equal(np.asarray(small), np.repeat(np.repeat(FRAME, 2, 0), 2, 1))
    assert paint(Panel(np.zeros((300, 200, 3), np.uint8)), side=100).size == (67, 100)
    assert enlarge(np.arange(16).reshape(4, 4), 0.5).shape == (2, 2)


def test_outlines_lie_outside_their_region():
    region = np.zeros((20, 20), bool)
    region[8:12, 8:12] = True
    image = np.asarray(paint(Panel(np.full((20, 20, 3), 90, np.uint8), mask=region), side=100))
    inside = image[40:60, 40:60]
    assert (inside == 90).all(), "what is kept is shown as it is"
    assert (image[38:40, 40:60] == (64, 160, 255)).all() and (image[:30] == 31).all()


def test_the_first_positive_point_is_the_best_match():
    assert marker_kinds(np.array([0, 1, 1, -1, 0])) == ["drop", "best", "keep", "", "drop"]


def known_scene(soft=False):
    mask, truth = np.zeros((48, 48), bool), np.zeros((48, 48), bool)
    mask[10:20, 10:20] = truth[10:20, 15:25] = True
    box = np.array([10.0, 10, 19, 19])
    found = Explanation(
        Prompts(np.array([[12.0, 13.0], [1, 2], [0, 0]]), np.array([1, 0, -1]), box),
        np.linspace(-1, 1, 48 * 48).reshape(48, 48),
        (Step(truth), Step(mask, box)),
    )
    shown = mask * 0.7 if soft else mask
    return Scene("step 3", FRAME, shown, FRAME * mask[..., None], found, foreground=truth)


def test_the_record_says_what_the_picture_shows():
    record = scene_record(known_scene())
    assert record["points"] == [{"x": 12, "y": 13, "label": 1}, {"x": 1, "y": 2, "label": 0}]
    assert record["box"] == [10, 10, 19, 19] and record["mask_area"] == pytest.approx(100 / 48**2)
    assert record["iou"] == pytest.approx(50 / 150) and record["recall"] == record["precision"] == 0.5
    assert [one["iou"] for one in record["passes"]] == [1.0, pytest.approx(50 / 150)]
    assert [one["box"] is None for one in record["passes"]] == [True, False]
    assert "iou" not in scene_record(Scene("x", FRAME, FRAME[..., 0] > 9, FRAME))


def test_panels_name_every_pass_and_video_frames_have_even_sides():
    names = ["observation", "similarity", "prompts", "pass 1", "pass 2"]
    assert list(scene_panels(known_scene())) == [*names, "simulator's mask", "the agent sees"]
    assert "soft mask" in scene_panels(known_scene(soft=True))
    frame = scene_frame(known_scene(), "title")
    assert frame.shape[0] % 2 == 0 and frame.shape[1] % 2 == 0 and frame.dtype == np.uint8


def test_a_showing_writes_picture_video_and_record(tmp_path, masker):
    from common.files import read_json

    frames = [(f"f{number}", frame) for number, frame in enumerate(scenes(5)[0].numpy())]
    showing = Showing(tmp_path / "p.png", "mine", "my pictures", masker.info, 2, 2, 5)
    picture, record, film = showing.show(footage_scenes(frames, masker))
    assert Image.open(picture).width > 400 and count_frames(film) == 5
    told = read_json(record)
    assert told["masker"]["fingerprint"] == masker.info.fingerprint
    assert [one["title"] for one in told["frames"]] == ["f0", "f1", "f2", "f3", "f4"]
    explained = masker.explain(torch.from_numpy(frames[3][1])[None])
    points = [[point["x"], point["y"]] for point in told["frames"][3]["points"]]
    assert points == explained.points[0].tolist()
    assert len(told["frames"][3]["passes"]) == 3
    with pytest.raises(ValueError, match="no scene"):
        showing.show([])


class Counting:
    """Counts its steps in the red channel and ends after the fourth."""

    def __init__(self):
        self.actions = []

    def reset(self, seed):
        self.actions = []
        return self._view()

    def step(self, action):
        self.actions.append(action)
        obs, info = self._view()
        return obs, 0.0, False, len(self.actions) == 4, info

    def _view(self):
        frame = np.full((48, 48, 3), len(self.actions), np.uint8)
        return {"pixels": frame}, {"foreground": np.ones((48, 48), bool)}


def test_an_episode_is_played_as_far_as_asked_or_to_its_end():
    env, none = Counting(), build_masker("none").fit()
    found = list(play(env, none, lambda frame, state: frame[0, 0], 3, seed=0))
    assert [scene.title for scene in found] == ["step 0", "step 1", "step 2"]
    assert [int(action[0]) for action in env.actions] == [0, 1], "the last frame asks for no action"
    assert len(list(play(env, none, lambda frame, state: frame[0, 0], None, seed=0))) == 4
    assert found[2].raw[0, 0, 0] == 2 and found[2].note == "IoU 1.00"


def test_an_agent_sees_stacks_of_masked_frames():
    class Agent:
        def __init__(self):
            self.seen = []

        def act(self, obs, step, eval_mode, state):
            assert obs.shape == (1, 9, 48, 48) and step == 70 and eval_mode and state is None
            self.seen.append(obs[0, ::3, 0, 0].tolist())
            return np.zeros((1, 2), np.float32)

    agent = Agent()
    list(play(Counting(), build_masker("none").fit(), agent_policy(agent, 3, 70), 4, seed=0))
    assert agent.seen == [[0, 0, 0], [0, 0, 1], [0, 1, 2]]


def test_random_actions_are_a_function_of_the_seed():
    from gymnasium.spaces import Box

    space = Box(-1, 1, (2,), np.float32)
    one, same, other = (random_policy(space, seed) for seed in (1, 1, 2))
    drawn = [one(FRAME), one(FRAME)]
    assert all(np.array_equal(a, same(FRAME)) for a in drawn)
    assert not np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[0], other(FRAME))
