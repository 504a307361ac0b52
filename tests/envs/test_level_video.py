"""Video backgrounds: keys and composites against loops, the order of clips, and what a bad clip says."""

import colorsys
import os
import stat

import cv2
import numpy as np
import pytest

from common.errors import ConfigError, InputError
from envs import video_background
from envs.levels import build_scene
from envs.procedural import CLIP_COUNT, ProceduralClips, make_clip
from envs.renderer import load_mujoco
from envs.video_background import VideoFiles, VideoScene, black_pixels, decode, green_pixels, shrink
from tests.support.stage import Stage


def write_video(path, frames):
    """Write uint8 (T, H, W, 3) RGB frames as MPEG-4."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = frames.shape[1:3]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, (width, height))
    assert writer.isOpened()
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[:, :, ::-1]))
    writer.release()
    return path


def flat_video(path, colours, side=120):
    """One frame per colour."""
    return write_video(path, np.stack([np.full((side, side, 3), rgb, np.uint8) for rgb in colours]))


class Clips:
    """Clips in memory; clip i, frame t is flat grey 50 * i + t."""

    def __init__(self, count=3, length=4, size=84):
        self.clips = [
            np.stack([np.full((size, size, 3), 50 * i + t, np.uint8) for t in range(length)])
            for i in range(count)
        ]

    def __len__(self):
        return len(self.clips)

    def clip(self, index):
        return self.clips[index]


@pytest.fixture(scope="module")
def stage():
    built = Stage("walker")
    yield built
    built.renderer.close()


@pytest.fixture
def show(stage):
    """Run a scene: returns composite, raw frame, segmentation; puts the model's colours back afterwards."""
    scenes = []

    def run(scene, episode=0, step=0):
        scenes.append(scene)
        scene.begin_episode(stage.model, stage.renderer, episode)
        frame, segmentation = stage.picture(), stage.renderer.render_segmentation(stage.data)
        return scene.compose(frame, lambda: segmentation, step), frame, segmentation

    yield run
    for scene in scenes:
        scene._painter.restore(stage.model, stage.renderer)


def is_green(red, green, blue):
    hue, saturation, value = colorsys.rgb_to_hsv(red / 255.0, green / 255.0, blue / 255.0)
    return 100 <= hue * 360 <= 185 and 80 <= saturation * 255 <= 255 and 70 <= value * 255 <= 255


def test_the_green_key_decides_every_pixel_as_the_loop_does():
    rng = np.random.default_rng(0)
    levels = np.array([0, 1, 35, 69, 70, 71, 80, 128, 150, 175, 200, 254, 255])
    grid = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(13, 169, 3)
    greens = rng.integers([0, 90, 0], [130, 256, 200], (60, 169, 3))
    frame = np.concatenate([grid, greens, rng.integers(0, 256, (60, 169, 3))]).astype(np.uint8)
    expected = [[is_green(*map(int, pixel)) for pixel in row] for row in frame]
    np.testing.assert_array_equal(green_pixels(frame), expected)
    assert 0.1 < np.mean(expected) < 0.9


def test_the_black_key_takes_exactly_black():
    frame = np.array([[[0, 0, 0], [1, 0, 0], [0, 0, 1], [0, 255, 0]]], np.uint8)
    np.testing.assert_array_equal(black_pixels(frame), [[True, False, False, False]])


def test_shrinking_samples_bilinearly_and_truncates():
    rng = np.random.default_rng(1)
    for height, width, size in ((121, 150, 84), (100, 100, 130)):
        frame = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        expected = np.empty((size, size, 3))
        for i in range(size):
            for j in range(size):
                y = min(max((i + 0.5) * height / size - 0.5, 0), height - 1)
                x = min(max((j + 0.5) * width / size - 0.5, 0), width - 1)
                y0, x0 = int(y), int(x)
                y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
                top = frame[y0, x0] * (1 - (x - x0)) + frame[y0, x1] * (x - x0)
                bottom = frame[y1, x0] * (1 - (x - x0)) + frame[y1, x1] * (x - x0)
                expected[i, j] = top * (1 - (y - y0)) + bottom * (y - y0)
        got = shrink(frame, size)
        assert got.dtype == np.uint8
        # Truncated, up to the rounding of single precision just above or below a whole number.
        assert (expected - got).min() > -0.01 and (expected - got).max() < 1.01
        assert (got == np.floor(expected)).mean() > 0.98


@pytest.mark.parametrize("key", ["green", "black", "segmentation"])
@pytest.mark.parametrize("floor", [False, True])
def test_composites_equal_a_loop_over_pixels(key, floor, show, stage):
    clips = Clips()
    clips.clips[1] = np.random.default_rng(2).integers(0, 256, (4, 84, 84, 3), dtype=np.uint8)
    got, frame, segmentation = show(VideoScene(clips, "walker", floor, key), episode=0, step=6)
    background = clips.clips[1][2]
    mujoco = load_mujoco()
    floor_id = mujoco.mj_name2id(stage.model, int(mujoco.mjtObj.mjOBJ_GEOM), "floor")
    expected = frame.copy()
    for y in range(84):
        for x in range(84):
            ids = segmentation[y, x, 0]
            if key == "green":
                replace = is_green(*map(int, frame[y, x]))
            elif key == "black":
                replace = frame[y, x].tolist() == [0, 0, 0]
            else:
                replace = ids == -1 or (floor and ids == floor_id)
            if replace:
                expected[y, x] = background[y, x]
    np.testing.assert_array_equal(got, expected)
    sky = segmentation[..., 0] == -1
    ground = segmentation[..., 0] == floor_id
    agent = ~sky & ~ground
    changed = (got != frame).any(axis=-1)
    assert changed[sky].mean() > 0.9
    assert changed[ground].mean() > 0.85 if floor else changed[ground].mean() < 0.1
    assert changed[agent].mean() < 0.06


def test_the_segmentation_key_paints_nothing_and_spares_the_agent(show, stage):
    before = stage.picture()
    got, frame, segmentation = show(VideoScene(Clips(), "walker", True, "segmentation"))
    np.testing.assert_array_equal(frame, before)
    agent = (segmentation[..., 0] != -1) & (segmentation[..., 0] != 0)
    np.testing.assert_array_equal(got[agent], before[agent])


def test_clips_follow_the_episode_and_frames_the_agent_step(stage):
    scene = VideoScene(Clips(count=3, length=4), "walker", True, "segmentation")
    sky = np.full((84, 84, 2), -1, np.int32)
    frame = np.zeros((84, 84, 3), np.uint8)
    for episode in (0, 1, 2, 5, 3):
        scene.begin_episode(stage.model, stage.renderer, episode)
        for step in (0, 1, 3, 4, 9):
            shown = scene.compose(frame, lambda: sky, step)
            assert (shown == 50 * ((episode + 1) % 3) + step % 4).all()


@pytest.mark.reliability("20", "a clip of one frame is refused, one of two repeats")
def test_a_clip_of_one_frame_is_no_video_and_two_repeat(stage, tmp_path):
    still = flat_video(tmp_path / "video0.mp4", [(200, 40, 40)])
    with pytest.raises(InputError, match=r"video0.mp4 \(fewer than 2 frames"):
        VideoFiles([still], 84, tmp_path / "cache")
    path = flat_video(tmp_path / "video1.mp4", [(200, 40, 40), (20, 200, 40)])
    scene = VideoScene(VideoFiles([path], 84, tmp_path / "cache"), "walker", False, "segmentation")
    scene.begin_episode(stage.model, stage.renderer, 3)
    sky = np.full((84, 84, 2), -1, np.int32)
    first, next_one, later = (
        scene.compose(np.zeros((84, 84, 3), np.uint8), lambda: sky, t) for t in (0, 1, 78)
    )
    np.testing.assert_array_equal(first, later)
    assert (first != next_one).any()
    assert abs(first[0, 0].astype(int) - [200, 40, 40]).max() < 12, "channels in the wrong order"


def test_misuse_names_the_mistake():
    scene = VideoScene(Clips(size=50), "walker", False, "segmentation")
    with pytest.raises(ValueError, match="begin_episode"):
        scene.compose(np.zeros((84, 84, 3), np.uint8), lambda: None, 0)
    scene._clip = scene.bank.clip(0)
    with pytest.raises(ValueError, match="50"):
        scene.compose(np.zeros((84, 84, 3), np.uint8), lambda: None, 0)
    with pytest.raises(ValueError, match="purple"):
        VideoScene(Clips(), "walker", False, "purple")


def test_decoded_clips_are_kept_and_shared(tmp_path, monkeypatch):
    moving = np.random.default_rng(3).integers(0, 256, (7, 110, 130, 3), dtype=np.uint8)
    path = write_video(tmp_path / "video_easy" / "video0.mp4", moving)
    bank = VideoFiles([path], 84, tmp_path / "cache")
    clip = bank.clip(0)
    assert clip.shape == (7, 84, 84, 3) and clip.dtype == np.uint8
    np.testing.assert_array_equal(clip, decode(path, 84))
    monkeypatch.setattr(video_background, "decode", lambda *_: pytest.fail("decoded twice"))
    again = VideoFiles([path], 84, tmp_path / "cache").clip(0)
    assert isinstance(again, np.memmap) and not again.flags.writeable
    np.testing.assert_array_equal(again, clip)
    assert VideoFiles([path], 64, tmp_path / "cache")._cached(path) != bank._cached(path)


@pytest.mark.reliability("20", "a damaged cache of decoded clips is made again")
def test_a_damaged_cache_is_made_again(tmp_path):
    path = flat_video(tmp_path / "video0.mp4", [(10, 20, 30)] * 3)
    bank = VideoFiles([path], 84, tmp_path / "cache")
    expected = bank.clip(0).copy()
    bank._cached(path).write_bytes(b"\x93NUMPY broken")
    np.testing.assert_array_equal(VideoFiles([path], 84, tmp_path / "cache").clip(0), expected)


def test_without_a_writable_cache_few_clips_stay_in_memory(tmp_path):
    paths = [flat_video(tmp_path / f"video{i}.mp4", [(60 * i, 0, 0)] * 2) for i in range(4)]
    (tmp_path / "occupied").write_text("a file where the cache folder should be")
    bank = VideoFiles(paths, 84, tmp_path / "occupied")
    for index in (0, 1, 2, 3, 0):
        assert abs(int(bank.clip(index)[0, 0, 0, 0]) - 60 * index) < 12
    assert len(bank._open) <= 2


@pytest.mark.reliability(
    "20", "empty, truncated, small and foreign clips are all named at once, before any episode"
)
def test_all_bad_clips_are_named_at_once_before_any_episode(tmp_path, monkeypatch):
    folder = tmp_path / "video_hard"
    good = flat_video(folder / "video0.mp4", [(1, 2, 3)] * 5)
    (folder / "video1.mp4").write_bytes(b"")
    (folder / "video2.mp4").write_text("this is not a video at all" * 50)
    flat_video(folder / "video3.mp4", [(1, 2, 3)] * 5, side=64)
    (folder / "video4.mp4").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    monkeypatch.setenv("SAMG_CACHE", str(tmp_path / "cache"))
    with pytest.raises(InputError) as caught:
        build_scene("video_hard", "walker", data_dir=tmp_path)
    message = caught.value.message
    assert "4 of 5" in message and "video0" not in message
    for name, why in (("video1", "empty file"), ("video2", ""), ("video3", "64x64"), ("video4", "")):
        assert f"{name}.mp4 ({why}" in message
    assert "procedural" in caught.value.hint and "setup/download.py dmcgb" in caught.value.hint


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_clip_is_named(tmp_path):
    path = flat_video(tmp_path / "video0.mp4", [(1, 2, 3)] * 2)
    path.chmod(stat.S_IWUSR)
    with pytest.raises((InputError, PermissionError), match="video0"):
        VideoFiles([path], 84, tmp_path / "cache")


@pytest.mark.parametrize("difficulty", ["easy", "hard"])
def test_generated_clips_are_deterministic_different_and_moving(difficulty):
    bank = ProceduralClips(difficulty, 84)
    assert len(bank) == CLIP_COUNT[difficulty] >= 10
    clips = [bank.clip(i) for i in range(6)]
    for index, clip in enumerate(clips):
        assert clip.shape == (100, 84, 84, 3) and clip.dtype == np.uint8
        steps = np.abs(np.diff(clip.astype(np.int16), axis=0)).mean(axis=(1, 2, 3))
        assert (steps > 0).all(), f"clip {index} stands still"
        assert np.abs(clip[0].astype(int) - clip[-1]).mean() > 2
        assert clip.std(axis=(1, 2)).mean() > 8, f"clip {index} is nearly flat"
    np.testing.assert_array_equal(clips[2], make_clip(difficulty, 2, 84))
    for i in range(6):
        for j in range(i):
            assert np.abs(clips[i][0].astype(int) - clips[j][0]).mean() > 5
    assert bank.clip(0) is clips[0], "generated twice"
    with pytest.raises(ValueError, match="does not exist"):
        bank.clip(len(bank))


def test_generated_clips_fit_other_sizes():
    assert make_clip("hard", 0, 64).shape == (100, 64, 64, 3)


@pytest.mark.parametrize(("level", "source"), [("video_easy", "procedural"), ("video_hard", "procedural")])
def test_levels_use_the_protocols_key(level, source):
    assert build_scene(level, "walker", source=source).key == "green"
    assert build_scene(level, "walker", source=source, protocol="samg").key == "black"
    scene = build_scene(level, "walker", source=source, protocol="samg", key="segmentation")
    assert scene.key == "segmentation" and scene.floor == (level == "video_hard")
    with pytest.raises(ConfigError, match="purple"):
        build_scene(level, "walker", source=source, key="purple")
