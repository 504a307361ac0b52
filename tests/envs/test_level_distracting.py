"""The Distracting Control Suite: camera, colours and video against plain loops, limits, files."""

import numpy as np
import pytest
from PIL import Image

import envs
from common.errors import InputError
from envs.data import DAVIS_VIDEOS
from envs.distracting import (
    GROUND_ALPHA,
    INTENSITIES,
    TEXTURE_SIDE,
    CameraLimits,
    CameraState,
    DistractingScene,
    bounce,
    camera_walk,
    color_walk,
    from_sphere,
    look_at,
    to_sphere,
)
from envs.frame_folders import FrameFolders
from envs.levels import build_scene, describe_level
from tests.support.stage import Stage


class Flat:
    """Four clips of ten frames; clip i, frame t is flat (60 * i, 20 * t, 100)."""

    def __len__(self):
        return 4

    def clip(self, index):
        frames = [
            np.full((TEXTURE_SIDE, TEXTURE_SIDE, 3), (60 * index, 20 * t, 100), np.uint8) for t in range(10)
        ]
        return np.stack(frames)


@pytest.fixture(scope="module")
def stages():
    built = {}

    def get(domain):
        if domain not in built:
            built[domain] = Stage(domain)
        return built[domain]

    yield get
    for stage in built.values():
        stage.renderer.close()


@pytest.mark.parametrize("domain", sorted(GROUND_ALPHA))
def test_without_a_move_the_camera_looks_as_the_tasks_own_does(domain, stages):
    stage = stages(domain)
    place, axes = np.array(stage.data.cam_xpos[0]), np.array(stage.data.cam_xmat[0])
    scene = DistractingScene(domain, 0, "0.1", Flat())
    fixed = stage.model.cam_mode[0] == 0
    start = stage.model.cam_pos[0] if fixed else stage.model.cam_poscom0[0]
    still = CameraState(to_sphere(start), 0.0, np.zeros(3), 0.0)
    scene._place_camera(stage.model, stage.data, 0, still)
    np.testing.assert_allclose(stage.data.cam_xpos[0], place, atol=1e-9)
    np.testing.assert_allclose(stage.data.cam_xmat[0], axes, atol=1e-6)


def test_looking_somewhere_is_a_rotation_towards_it():
    rng = np.random.default_rng(0)
    for level in (True, False):
        for direction in rng.normal(size=(50, 3)):
            axes = look_at(direction, level)
            np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
            assert np.linalg.det(axes) > 0.99
            np.testing.assert_allclose(-axes[:, 2], direction / np.linalg.norm(direction), atol=1e-12)
            if level:
                assert abs(axes[2, 0]) < 1e-12 and axes[2, 1] > 0, "the horizon is not level"
    np.testing.assert_allclose(look_at(np.array([0.0, 0.0, -2.0]), level=False), np.eye(3), atol=1e-12)


def test_spheres_and_back():
    for place in np.random.default_rng(1).normal(size=(20, 3)):
        np.testing.assert_allclose(from_sphere(to_sphere(place)), place, atol=1e-12)
    np.testing.assert_allclose(to_sphere(np.array([0.0, -4.0, 0.0])), [4.0, -np.pi / 2, np.pi / 2])


@pytest.mark.parametrize("intensity", [0.025, 0.3, 0.5])
def test_cameras_wander_and_stay_within_the_published_limits(intensity):
    start = np.array([0.0, -4.0, 1.0])
    limits = CameraLimits.around(start, intensity, above_ground=True)
    radius, around, down = to_sphere(start)
    turn = np.pi / 2 * intensity
    np.testing.assert_allclose(limits.low, [radius * (1 - 0.5 * intensity), around - turn, down - turn])
    expected = [radius * (1 + 1.5 * intensity), around + turn, min(down + turn, np.pi / 2)]
    np.testing.assert_allclose(limits.high, expected)
    walk = camera_walk(limits, intensity, np.random.default_rng(0))
    states = [walk.at(step) for step in range(1000)]
    places = np.array([state.place for state in states])
    assert (places >= limits.low - 1e-12).all() and (places <= limits.high + 1e-12).all()
    assert (places[:, 2] <= np.pi / 2 + 1e-12).all(), "below the floor"
    moved = np.linalg.norm(np.diff([from_sphere(place) for place in places], axis=0), axis=1)
    assert moved.max() <= 0.4 * intensity * radius / 4 * 1.5 and (moved > 0).mean() > 0.9
    rolls = np.array([state.roll for state in states])
    assert np.abs(rolls).max() <= turn and np.abs(np.diff(rolls)).max() <= np.pi / 50 * intensity + 1e-12
    assert places.std(axis=0).min() > 0 and walk.at(17) is states[17]


def test_colours_wander_within_their_intensity():
    own = np.random.default_rng(2).uniform(0, 1, (13, 3))
    walk = color_walk(own, 0.2, np.random.default_rng(3))
    colors = np.array([walk.at(step) for step in range(600)])
    assert np.abs(colors - own).max() <= 0.2 + 1e-12 and colors.min() >= 0 and colors.max() <= 1
    steps = np.diff(colors, axis=0)
    assert abs(np.median(np.abs(steps[steps != 0])) / 0.6745 - 0.03 * 0.2) < 0.0006
    assert (colors.max(axis=0) - colors.min(axis=0)).min() > 0.05


def test_videos_run_to_and_fro():
    for length in (1, 2, 5):
        for start in range(length):
            for direction in (-1, 1):
                place, way = start, direction
                for steps in range(40):
                    assert bounce(start, direction, steps, length) == place
                    if not 0 <= place + way < length:
                        way = -way
                    place += way if length > 1 else 0


def test_an_episode_shows_one_video_and_any_moment_can_be_drawn_alone(stages):
    stage = stages("walker")
    scene = DistractingScene("walker", 4, "0.2", Flat())
    sky, seen, videos = stage.model.tex("skybox").id, {}, set()
    texel = stage.model.tex_adr[sky]
    for episode in (0, 1, 2, 3, 4, 5):
        scene.begin_episode(stage.model, stage.renderer, episode)
        for step in range(12):
            scene.begin_frame(stage.data, step, 2 * step)
            red, green, _ = map(int, stage.model.tex_data[texel : texel + 3])
            seen[episode, step] = (
                red,
                green,
                stage.model.mat_rgba.tobytes(),
                stage.data.cam_xpos[0].tobytes(),
            )
        reds = {seen[episode, step][0] for step in range(12)}
        greens = [seen[episode, step][1] // 20 for step in range(12)]
        assert len(reds) == 1 and set(np.abs(np.diff(greens))) == {1}, (
            "the video does not advance frame by frame"
        )
        videos |= reds
    assert len(videos) > 1
    scene._memory.restore(stage.model)
    fresh = DistractingScene("walker", 4, "0.2", Flat())
    for episode, step in ((3, 11), (0, 0), (5, 4), (3, 2)):
        fresh.begin_episode(stage.model, stage.renderer, episode)
        fresh.begin_frame(stage.data, step, 2 * step)
        red, green, _ = map(int, stage.model.tex_data[texel : texel + 3])
        moment = (red, green, stage.model.mat_rgba.tobytes(), stage.data.cam_xpos[0].tobytes())
        assert moment == seen[episode, step]


@pytest.mark.parametrize("task", ["walker_walk", "cartpole_swingup", "reacher_easy"])
def test_the_agent_stays_in_the_picture_and_its_physics_too(task):
    env = envs.make_env(task, "distracting_cs_0.2", source="procedural", foreground=True, fast_render=True)
    plain = envs.make_env(task, fast_render=True)
    for episode in range(3):
        env.episode = plain.episode = episode
        (observation, info), (own, _) = env.reset(), plain.reset()
        assert info["foreground"].sum() > 20
        assert (observation["pixels"] != own["pixels"]).any(axis=-1).mean() > 0.7
        for _ in range(2):
            action = np.full(env.action_space.shape, 0.5, np.float32)
            env.step(action), plain.step(action)
        np.testing.assert_array_equal(env.data.qpos, plain.data.qpos)
    alpha = env.model.mat_rgba[env.model.mat("grid").id, 3]
    assert alpha == np.float32(GROUND_ALPHA[envs.find_task(task).domain])
    env.close(), plain.close()


def davis(folder, names, frames=3, side=120):
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for t in range(frames):
            flat = np.full((side, side, 3), (40 * number, 50 * t, 90), np.uint8)
            Image.fromarray(flat).save(folder / name / f"{t:05d}.jpg", quality=95)


def test_davis_folders_are_found_checked_and_shown(tmp_path, stages):
    place = tmp_path / "DAVIS" / "JPEGImages" / "480p"
    davis(place, DAVIS_VIDEOS[:4])
    for data_dir in (tmp_path, tmp_path / "DAVIS", place):
        scene = build_scene("distracting_cs_0.1", "walker", data_dir=data_dir)
        assert isinstance(scene.bank, FrameFolders) and len(scene.bank) == 4
    assert scene.bank.clip(2).shape == (3, TEXTURE_SIDE, TEXTURE_SIDE, 3)
    assert abs(scene.bank.clip(2)[1, 5, 5].astype(int) - [80, 50, 90]).max() < 6
    for index in range(4):
        scene.bank.clip(index)
    assert len(scene.bank._clips) == 2, "all stay in memory"
    facts = describe_level("distracting_cs_0.1", data_dir=tmp_path)
    assert facts["clip_names"] == list(DAVIS_VIDEOS[:4]) and len(facts["clips_sha256"]) == 64
    with pytest.raises(InputError, match=r"4 of 8 videos .*dance|2 of 6 videos") as caught:
        build_scene("distracting_cs_0.2", "walker", data_dir=tmp_path)
    assert all(name in caught.value.message for name in DAVIS_VIDEOS[4:8])
    with pytest.raises(InputError, match="DAVIS 2017 are not in"):
        build_scene("distracting_cs_0.1", "walker", data_dir=tmp_path / "nowhere")


def test_all_bad_davis_folders_are_named_at_once(tmp_path):
    davis(tmp_path, DAVIS_VIDEOS[:1])
    davis(tmp_path, DAVIS_VIDEOS[1:2], frames=1)
    davis(tmp_path, DAVIS_VIDEOS[2:3], side=60)
    davis(tmp_path, DAVIS_VIDEOS[3:4])
    broken = tmp_path / DAVIS_VIDEOS[3] / "00002.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    with pytest.raises(InputError, match="3 of 4") as caught:
        build_scene("distracting_cs_0.1", "walker", data_dir=tmp_path)
    for name, why in zip(DAVIS_VIDEOS[1:4], ("1 pictures", "60x60", "00002.jpg cannot"), strict=True):
        assert f"{name} ({why}" in caught.value.message
    bank = FrameFolders([tmp_path / DAVIS_VIDEOS[0]], 64)
    (tmp_path / DAVIS_VIDEOS[0] / "00001.jpg").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"00001\.jpg cannot be decoded"):
        bank.clip(0)


def test_the_published_numbers_of_videos():
    assert len(DAVIS_VIDEOS) == len(set(DAVIS_VIDEOS)) == 60 and list(DAVIS_VIDEOS) == sorted(DAVIS_VIDEOS)
    assert list(INTENSITIES.values()) == [2, 2, 4, 6, 8, None, None, None]
