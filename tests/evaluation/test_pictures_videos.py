"""Pictures show the pixels they were given; videos decode or are not there."""

import numpy as np
import pytest
import torch
from PIL import Image

from evaluation.pictures import Explanation, Panel, Prompts, Scene, draw_grid, explain_frame, level_picture
from evaluation.pictures import strip_picture as strip
from evaluation.videos import VideoRecorder, count_frames, side_by_side

FRAME = np.random.default_rng(0).integers(0, 256, (84, 84, 3), dtype=np.uint8)
MASK = np.zeros((84, 84), dtype=bool)
MASK[20:60, 30:50] = True


def scene(prompts=True):
    explanation = Explanation()
    if prompts:
        points, labels = np.array([[40.0, 30.0], [5.0, 5.0]]), np.array([1, 0])
        explanation = Explanation(Prompts(points, labels, np.array([30.0, 20, 50, 60])), MASK * 0.5)
    return Scene("video_hard", FRAME, MASK, FRAME * MASK[..., None], explanation, "IoU 1.00")


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB"))


def has_colour(image, rgb):
    return bool((np.abs(image.astype(int) - rgb).max(-1) <= 2).any())


def test_a_panel_shows_its_pixels(tmp_path):
    four = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [10, 200, 90]]], dtype=np.uint8)
    draw_grid(tmp_path / "p.png", [[Panel(four)]], ["row"], ["column"])
    image = pixels(tmp_path / "p.png")
    for rgb in four.reshape(4, 3):
        share = (image == rgb).all(-1).mean()
        assert share > 0.08, f"{rgb} fills {share:.3f}: pixels are smoothed or missing"


def test_prompts_are_drawn_where_they_are(tmp_path):
    grey = np.full((84, 84, 3), 128, np.uint8)
    found = Prompts(np.array([[0.0, 0.0], [83.0, 83.0], [42.0, 42.0]]), np.array([1, 0, -1]))
    draw_grid(tmp_path / "p.png", [[Panel(grey, prompts=found)]], [""], [""])
    image = pixels(tmp_path / "p.png").astype(int)
    green = np.argwhere(np.abs(image - (0x2C, 0xA0, 0x2C)).max(-1) <= 8).mean(0)
    red = np.argwhere(np.abs(image - (0xD6, 0x27, 0x28)).max(-1) <= 8).mean(0)
    panel = np.argwhere((image == 128).all(-1))
    low, high = panel.min(0), panel.max(0)
    unit = (high - low) / 84
    assert np.abs(green - low).max() < 3 * unit.max() and np.abs(red - high).max() < 3 * unit.max()


def test_level_picture_has_a_row_per_level(tmp_path):
    level_picture(tmp_path / "one.png", [scene()], "title")
    level_picture(tmp_path / "three.png", [scene()] * 3, "title")
    level_picture(tmp_path / "plain.png", [scene(prompts=False)], "title")
    one, three, plain = (pixels(tmp_path / f"{name}.png") for name in ("one", "three", "plain"))
    assert three.shape[0] - one.shape[0] >= 2 * 252 and three.shape[1] == one.shape[1]
    assert plain.shape[1] < one.shape[1], "without prompts there is no column for them"
    assert has_colour(one, (0xFF, 0xBF, 0x00)) and not has_colour(plain, (0xFF, 0xBF, 0x00))


def test_strip_has_a_column_per_frame(tmp_path):
    strip(tmp_path / "two.png", [scene()] * 2)
    strip(tmp_path / "four.png", [scene()] * 4)
    assert pixels(tmp_path / "four.png").shape[1] > 1.6 * pixels(tmp_path / "two.png").shape[1]


def test_a_failed_picture_leaves_the_old_one(tmp_path):
    path = tmp_path / "p.png"
    path.write_bytes(b"old")
    with pytest.raises(ValueError):
        draw_grid(path, [[Panel(np.array([["text"]]))]], [""], [""])
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_maskers_without_prompts_explain_nothing():
    assert explain_frame(object(), FRAME) == Explanation()


def test_prompts_of_a_masker_are_those_of_the_frame():
    class Answer:
        points = torch.tensor([[[1.0, 2.0]]])
        labels = torch.tensor([[1]])
        boxes = None
        similarity = torch.ones(1, 84, 84)

    class Masker:
        def explain(self, frames):
            assert frames.shape == (1, 84, 84, 3) and frames.dtype == torch.uint8
            return Answer()

    found = explain_frame(Masker(), FRAME)
    assert found.prompts.points.tolist() == [[1.0, 2.0]] and found.prompts.box is None
    assert found.similarity.shape == (84, 84)


def test_side_by_side_keeps_pixels_and_has_even_sides():
    small = FRAME[:3, :5]
    frame = side_by_side(small, small * 0, scale=3)
    assert frame.shape[0] % 2 == 0 and frame.shape[1] % 2 == 0
    np.testing.assert_array_equal(frame[1:9:3, 1:15:3], small)
    assert not frame[:9, 19:34].any() and (frame[:9, 15:19] == 255).all()


def record(count):
    recorder = VideoRecorder()
    for k in range(count):
        recorder.add(np.full((84, 84, 3), 5 * k, np.uint8), FRAME)
    return recorder


def test_a_video_decodes_to_its_frames(tmp_path):
    path = tmp_path / "videos" / "v.mp4"
    assert record(31).save(path)
    assert count_frames(path) == 31
    assert [p.name for p in path.parent.iterdir()] == ["v.mp4"]


def test_a_video_that_fails_only_warns(tmp_path):
    with pytest.warns(RuntimeWarning, match="could not be written: there are no frames"):
        assert not record(0).save(tmp_path / "v.mp4")
    (tmp_path / "file").touch()
    with pytest.warns(RuntimeWarning, match="could not be written"):
        assert not record(2).save(tmp_path / "file" / "v.mp4")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_truncated_video_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr("evaluation.videos.count_frames", lambda path: 3)
    with pytest.warns(RuntimeWarning, match="3 of 5 frames can be read back"):
        assert not record(5).save(tmp_path / "v.mp4")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    assert record(5).save(tmp_path / "v.mp4")
    (tmp_path / "half.mp4").write_bytes((tmp_path / "v.mp4").read_bytes()[:300])
    with pytest.raises(OSError, match=r"half\.mp4 does not decode"):
        count_frames(tmp_path / "half.mp4")
