"""Relocate through three cameras at once, with real pictures: as each camera alone, in every level."""

import contextlib

import numpy as np
import pytest

import envs
from common.errors import ConfigError
from envs.anchors import reference_anchors
from envs.level_names import LEVELS, expand_levels
from envs.reference_scene import VIEWS, draw_reference
from envs.tasks import find_cameras, find_task
from evaluation.run_directory import chosen_reference
from samg import load_reference
from samg.views import ViewReferences
from tests.support.playing import play
from training.config import compose_config

CAMERAS = ("cam1", "cam2", "cam3")
FIXED = {"source": "procedural", "fast_render": True, "foreground": True, "seed": 4}


@contextlib.contextmanager
def relocate(level="train", camera=CAMERAS, **options):
    env = envs.make_env("adroit_relocate", level, camera=camera, **{**FIXED, **options})
    try:
        yield env
    finally:
        env.close()


@pytest.mark.parametrize(
    "level", ["video_hard", *(pytest.param(n, marks=pytest.mark.slow) for n in LEVELS if n != "video_hard")]
)
def test_several_views_are_those_of_each_camera_alone(level):
    with relocate(level) as env:
        frames, masks = play(env, 2, steps=2)
        assert env.observation_space.contains(env.observe()[0])
        assert frames.shape == (3, 3, 84, 84, 3) and masks.shape == (3, 3, 84, 84)
        assert np.array_equal(env.render(), np.concatenate(list(frames[-1]), axis=1))
    assert all(0.02 < share < 0.2 for share in masks.mean((0, 2, 3)))
    for view, camera in enumerate(CAMERAS):
        with relocate(level, camera) as env:
            alone, alone_masks = play(env, 2, steps=2)
        np.testing.assert_array_equal(frames[:, view], alone)
        np.testing.assert_array_equal(masks[:, view], alone_masks)


def test_the_first_camera_is_no_other_than_before():
    with relocate(camera=None) as plain, relocate(camera=("cam3",)) as named:
        assert plain.observation_space["pixels"].shape == (84, 84, 3)
        np.testing.assert_array_equal(play(plain, 2, steps=2)[0], play(named, 2, steps=2)[0])


def test_a_moment_of_several_views_can_be_restored():
    with relocate("video_hard") as env, relocate("video_hard") as fresh:
        frames, _ = play(env, 2, steps=2)
        fresh.set_state(env.get_state())
        np.testing.assert_array_equal(fresh.observe()[0]["pixels"], frames[-1])


@pytest.mark.slow
def test_a_vector_of_environments_shares_all_views():
    venv = envs.make_vector_env("adroit_relocate", 1, camera=list(CAMERAS), **FIXED)
    try:
        observation, info = envs.reset_episodes(venv, [2], np.ones(1, bool), seed=4)
        assert observation["pixels"].shape == (1, 3, 84, 84, 3) and info["foreground"].shape == (1, 3, 84, 84)
    finally:
        venv.close()
    with relocate() as env:
        np.testing.assert_array_equal(play(env, 2, steps=0)[0][0], observation["pixels"][0])


def test_cameras_are_found_by_name_or_refused():
    task = find_task("adroit_relocate")
    assert find_cameras(task, None) == find_cameras(task, "cam3") == find_cameras(task, ["cam3"]) == 4
    assert find_cameras(task, CAMERAS) == (2, 3, 4)
    for names, words in ((["cam1", "cam1"], "twice"), ([], "no camera"), (["top"], "no camera 'top'")):
        with pytest.raises(ConfigError, match=words):
            find_cameras(task, names)
    with pytest.raises(ConfigError, match="chooses another camera"):
        envs.make_env("adroit_relocate", "cam_id_2", camera=CAMERAS)
    with pytest.raises(ConfigError, match="sees several at once"):
        expand_levels(["cam_id_2"], "relocate", one_camera=False)
    assert not any("cam_id" in name for name in expand_levels(["axes"], "relocate", one_camera=False))


def test_each_camera_has_a_reference_and_it_is_what_that_camera_sees():
    cfg = compose_config(["task=relocate"])
    assert tuple(cfg.camera) == CAMERAS
    references = load_reference(chosen_reference(cfg), image_size=cfg.image_size)
    assert isinstance(references, ViewReferences)
    names = (*VIEWS, "relocate")
    for name, reference in zip(names, references.references, strict=True):
        drawn = draw_reference(name)
        np.testing.assert_array_equal(reference.image, drawn.image)
        np.testing.assert_array_equal(reference.mask, drawn.mask)
        np.testing.assert_array_equal(reference.part_masks, drawn.parts)
        assert [tuple(point) for point in reference.points.astype(int).tolist()] == drawn.points
        assert reference.mask[reference.points[:, 1].astype(int), reference.points[:, 0].astype(int)].all()


def test_a_camera_without_its_own_reference_takes_the_tasks():
    for camera, image in (
        ("cam1", "relocate_cam1_0"),
        ("cam3", "relocate_0"),
        ("[fixed,cam3]", "relocate_0"),
    ):
        chosen = chosen_reference(compose_config(["task=relocate", f"camera={camera}"]))
        assert chosen["original_image"] == f"reference_images/{image}.png", camera


def test_body_points_are_located_in_every_view():
    references = load_reference(chosen_reference(compose_config(["task=relocate"]))).references
    anchors = [reference_anchors("relocate", one.image, one.points) for one in references]
    assert all(one is not None for one in anchors)
    with relocate(fast_render=False) as env:
        env.anchors = anchors
        info = env.reset(seed=0)[1]  # as the references were drawn
    found = info["anchors"]
    assert found.shape == (3, 3, 2)
    for view, reference in enumerate(references):  # palm and ball; the target hangs on no body that moves
        seen = np.isfinite(found[view, :2]).all(-1)
        assert seen.any() and np.isnan(found[view, 2]).all()
        assert (np.abs(found[view, :2] - reference.points[:2])[seen] < 1).all()
