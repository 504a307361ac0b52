"""Body points of the references: found in the reference, followed everywhere, compared with what is drawn."""

import numpy as np
import pytest
import torch  # noqa: F401  (before MuJoCo's OpenGL libraries)
from omegaconf import OmegaConf
from PIL import Image

import envs
from common.paths import PROJECT_ROOT
from envs.anchors import Projection, locate_anchors, reference_anchors
from envs.reference_scene import POSES, posing_env
from envs.renderer import load_mujoco

GEOM, BALL = 5, 2  # mjOBJ_GEOM, mjGEOM_SPHERE


def reference_of(domain):
    """Return picture and points as the tasks' configurations name them."""
    config = OmegaConf.load(PROJECT_ROOT / "cfgs" / "task" / "reference" / f"{domain}.yaml")
    with Image.open(PROJECT_ROOT / config.original_image) as picture:
        return np.asarray(picture.convert("RGB")), np.array(config.extra_points_list, np.float32)


def make(task, **options):
    env = envs.make_env(task, foreground=True, **options)
    env.reset(seed=3)
    return env


def shown_geoms(env):
    """int (H, W): the geom that each pixel shows, -1 for none."""
    segmentation = env.renderer.render_segmentation(env.data)
    return np.where(segmentation[..., 1] == GEOM, segmentation[..., 0], -1)


# One of the hand's scenes does for all: each is drawn twice, for seconds where there is no GPU.
DOMAINS = [
    pytest.param(domain, marks=pytest.mark.slow) if domain in ("hammer", "pen", "relocate") else domain
    for domain in POSES
]


@pytest.fixture(scope="module")
def anchors():
    found = {}

    def get(domain):
        if domain not in found:
            found[domain] = reference_anchors(domain, *reference_of(domain))
        return found[domain]

    return get


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_point_of_our_references_lies_on_its_body(anchors, domain):
    found = anchors(domain)
    # In the reference itself, an anchor is seen exactly where the point is.
    env = posing_env(domain)
    try:
        moving = [env.model.body_weldid[env.model.body(name).id] != 0 for name in POSES[domain].points]
        named = [name if moves else None for name, moves in zip(POSES[domain].points, moving, strict=True)]
        assert [anchor and anchor.body for anchor in found] == named
        segmentation = env.renderer.render_segmentation(env.data)
        seen = locate_anchors(found, env.model, env.renderer.scene, segmentation)
        np.testing.assert_allclose(seen[moving], reference_of(domain)[1][moving], atol=1e-3)
        camera = Projection(env.renderer.scene, POSES[domain].image_size)
        for point in ((0, 0), (40.25, 70.5), (83, 12)):  # there and back
            place = camera.eye + 3 * camera.direction(np.array(point))
            np.testing.assert_allclose(camera.project(place[None])[0], point, atol=1e-4)
        assert np.isnan(camera.project((camera.eye - camera.forward)[None])).all()
    finally:
        env.close()


LEVELS = ["train", "cam_pos_hard", "object_size_hard", "distracting_cs_0.1", "second_object", "cam_id_1"]


@pytest.mark.parametrize(
    ("task", "level"),
    [
        *(("walker_walk", level) for level in LEVELS),
        *(("quadruped_walk", level) for level in LEVELS if "distracting" not in level),
        ("cup_catch", "train"),
    ],
)
def test_the_projection_is_where_a_geom_is_drawn(task, level):
    """A small ball is drawn in the place of each geom: the centre of its pixels against the projection.

    (The pixels of longer geoms have their centre elsewhere, for what is nearer is seen larger.)
    """
    env, alone = make(task, level=level, source="procedural", image_size=168), [0]

    def hide_others(scene):
        for index in range(scene.ngeom):
            drawn = scene.geoms[index]
            if drawn.objtype == GEOM and drawn.objid == alone[0]:
                drawn.type, drawn.size[:] = BALL, 0.05
            else:
                drawn.pos[:] = drawn.pos + 1e4

    try:
        compared = 0
        for _ in range(25):
            env.step(np.sin(np.arange(env.action_space.shape[0])).astype(np.float32))
        env.renderer.scene_edits.append(hide_others)
        for geom in np.flatnonzero(env.model.body_weldid[env.model.geom_bodyid] != 0):
            alone[0] = int(geom)
            rows, columns = np.nonzero(shown_geoms(env) == geom)
            whole = (
                len(rows) > 6 and min(rows.min(), columns.min()) > 0 and max(rows.max(), columns.max()) < 167
            )
            if not whole:
                continue
            scene = env.renderer.scene
            listed = (scene.geoms[i] for i in range(scene.ngeom))
            drawn = next(g for g in listed if g.objtype == GEOM and g.objid == geom)
            seen = Projection(scene, 168).project(np.array(drawn.pos)[None])[0]
            np.testing.assert_allclose(seen, [columns.mean(), rows.mean()], atol=0.5, err_msg=str(geom))
            compared += 1
        assert compared >= 1
    finally:
        env.close()


def test_hidden_anchors_are_left_out_and_others_move_with_the_picture(anchors):
    env = make("walker_walk")
    try:
        env.anchors = anchors("walker")
        _, info = env.observe()
        seen = info["anchors"]
        assert seen.shape == (3, 2) and seen.dtype == np.float32
        geoms = shown_geoms(env)
        for anchor, pixel in zip(anchors("walker"), seen, strict=True):
            if np.isfinite(pixel).all():
                geom = geoms[round(float(pixel[1])), round(float(pixel[0]))]
                assert env.model.body(env.model.geom_bodyid[geom]).name == anchor.body
        # Far away from the camera's target nothing is seen; what is not of this model is nowhere.
        env.anchors = (None, anchors("finger")[0], anchors("walker")[0])
        env.data.qpos[1] += 50.0
        env.renderer.scene_edits.append(lambda scene: None)
        load_mujoco().mj_kinematics(env.model, env.data)
        _, info = env.observe()
        assert np.isnan(info["anchors"]).all()
    finally:
        env.close()


def test_only_our_own_picture_of_the_domain_has_anchors():
    image, points = reference_of("walker")
    other = image.copy()
    other[0, 0] ^= 1
    assert reference_anchors("walker", other, points) is None
    assert reference_anchors("hopper", image, points) is None
    assert reference_anchors("humanoid", image, points) is None
    assert reference_anchors("walker", image, np.array([(1, 1), (80, 82)])) == (None, None)
    assert reference_anchors("walker", image, np.array([(np.nan, np.nan)])) == (
        None,
    )  # another camera has it


def test_anchors_are_asked_for_across_processes(anchors):
    venv = envs.make_vector_env("cup_catch", 1, foreground=True)
    try:
        venv.set_attr("anchors", [anchors("ball_in_cup")])
        venv.begin_episode(0, 0, 0)
        ((*_, info),) = venv.collect(1)
    finally:
        venv.close()
    ball = info["anchors"][0]
    env = make("cup_catch")
    try:
        env.episode = 0
        env.reset(seed=0)
        rows, columns = np.nonzero(shown_geoms(env) == env.model.geom("ball").id)
        if len(rows) and np.isfinite(ball).all():
            assert np.abs(ball - [columns.mean(), rows.mean()]).max() < 1
        assert np.isfinite(ball).all() == bool(len(rows))
    finally:
        env.close()
