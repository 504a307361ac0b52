"""Lights and cameras: equal to a model that was compiled with them, aimed, reversing, and restored."""

import re

import numpy as np
import pytest

import envs
from envs.camera_light import CAM_POS, MOVING_LIGHT, CameraScene, LightScene, Motion
from envs.renderer import Renderer, load_mujoco
from tests.support.stage import Stage


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


def rebuilt(stage, domain, edit):
    """Picture and labels of the stage's state, drawn by a model that was compiled from edited XML."""
    from dm_control.suite import common

    mujoco = load_mujoco()
    xml = edit(common.read_model(f"{domain}.xml").decode())
    model = mujoco.MjModel.from_xml_string(xml, common.ASSETS)
    data = mujoco.MjData(model)
    data.qpos[:] = stage.data.qpos
    mujoco.mj_forward(model, data)
    renderer = Renderer(model)
    try:
        return renderer.render(data), renderer.render_segmentation(data)
    finally:
        renderer.close()


def attribute(tag, name, value, xml):
    """Set an attribute of the first element of that tag."""
    text = " ".join(map(repr, map(float, value)))
    element = re.search(rf"<{tag}[^>]*>", xml).group()
    if re.search(rf' {name}="', element):
        changed = re.sub(rf' {name}="[^"]*"', f' {name}="{text}"', element)
    else:
        changed = element.replace(f"<{tag}", f'<{tag} {name}="{text}"')
    assert changed != element
    return xml.replace(element, changed, 1)


def perturbed(stage, scene, episode=3, step=0):
    """Draw the stage through a scene."""
    mujoco = load_mujoco()
    scene.begin_episode(stage.model, stage.renderer, episode)
    mujoco.mj_forward(stage.model, stage.data)
    scene.begin_frame(stage.data, step, 2 * step)
    return stage.picture(), stage.renderer.render_segmentation(stage.data)


def restore(stage, scene):
    scene._memory.restore(stage.model)
    load_mujoco().mj_forward(stage.model, stage.data)


@pytest.mark.parametrize("domain", ["cartpole", "walker", "ball_in_cup"])
@pytest.mark.parametrize("axis", ["position", "color", "moving"])
def test_lights_equal_a_model_compiled_with_them(domain, axis, stages):
    """Of a fixed, a following and a parallel light; as they stand in the world, read off what is drawn."""
    stage = stages(domain)
    load_mujoco().mj_forward(stage.model, stage.data)
    before, direction = np.array(stage.data.light_xpos[0]), np.array(stage.data.light_xdir[0])
    diffuse, plain = np.array(stage.model.light_diffuse[0]), stage.picture()
    scene = LightScene(5, **{axis: "hard"})
    picture, _ = perturbed(stage, scene, step=0 if axis != "moving" else 130)
    offset = np.array(stage.data.light_xpos[0]) - before
    own = np.array(stage.model.light_pos[0]) - offset  # in the XML's terms, for these three models
    colour = np.array(stage.model.light_diffuse[0])
    restore(stage, scene)
    if axis == "position":
        assert set(np.round(offset, 5)) <= {9.0, 10.0}
    elif axis == "moving":
        np.testing.assert_allclose(offset, 130 * 0.05, atol=1e-5)
    else:
        np.testing.assert_array_equal(offset, 0)
        assert (colour != diffuse).all() and colour.min() >= 0 and colour.max() <= 1
    origin = stage.data.subtree_com[1] if domain == "walker" else np.zeros(3)
    aim = (
        direction * (origin - before).dot(direction) - offset
    )  # at what the ray passed nearest to the origin

    def edit(xml):
        for name, value in (("pos", own + offset), ("dir", aim), ("diffuse", colour)):
            xml = attribute("light", name, value, xml)
        return xml

    expected, _ = rebuilt(stage, domain, edit)
    # A direction that was normalised twice may differ in its last bit.
    assert np.abs(picture.astype(int) - expected).max() <= 2 and (picture != expected).mean() < 0.01
    assert (picture != plain).any(axis=-1).mean() > 0.1
    np.testing.assert_array_equal(stage.picture(), plain)


@pytest.mark.parametrize("domain", ["cartpole", "walker"])
def test_moved_cameras_equal_a_model_compiled_with_them_labels_too(domain, stages):
    stage = stages(domain)
    load_mujoco().mj_forward(stage.model, stage.data)
    plain, place = stage.picture(), np.array(stage.data.cam_xpos[0])
    scene = CameraScene(1, "hard")
    picture, labels = perturbed(stage, scene)
    offset = np.array(stage.data.cam_xpos[0]) - place
    own = {"cartpole": (0, -4, 1), "walker": (0, -2, 0.7)}[domain]
    restore(stage, scene)
    assert 0.01 < np.abs(offset).max() <= 0.15
    edited = rebuilt(stage, domain, lambda xml: attribute("camera", "pos", np.array(own) + offset, xml))
    np.testing.assert_array_equal(picture, edited[0])
    np.testing.assert_array_equal(labels, edited[1])
    np.testing.assert_array_equal(stage.picture(), plain)


def test_a_following_camera_goes_on_following():
    env = envs.make_env("walker_walk", "cam_pos_hard", seed=2, fast_render=True)
    plain = envs.make_env("walker_walk", seed=2, fast_render=True)
    offsets = []
    for each in (env, plain):
        each.reset()
    for _ in range(4):
        for each in (env, plain):
            each.step(np.full(6, 0.7, np.float32))
        offsets.append(env.data.cam_xpos[0] - plain.data.cam_xpos[0])
        np.testing.assert_array_equal(env.data.qpos, plain.data.qpos)
    np.testing.assert_allclose(offsets, offsets[:1] * 4, atol=1e-12)
    env.close(), plain.close()


def test_moving_lights_turn_round_at_their_bound():
    for motion in (*MOVING_LIGHT.values(), Motion(0.5, 2.0)):
        place, direction = 0.0, 1.0
        for step in range(3000):
            assert abs(motion.offset(step) - place) < 1e-6
            if abs(place + direction * motion.speed) > motion.bound + 1e-9:
                direction = -direction
            place += direction * motion.speed
    assert MOVING_LIGHT["easy"].offset(500) == pytest.approx(5.0)
    assert MOVING_LIGHT["hard"].offset(400) == pytest.approx(0.0)


def test_a_moving_light_is_where_it_is_whatever_was_drawn_before(stages):
    stage = stages("walker")
    scene = LightScene(0, moving="hard")
    alone = perturbed(stage, scene, episode=0, step=60)[0]
    for step in (0, 350, 60):
        picture = perturbed(stage, scene, episode=step, step=step)[0]
    np.testing.assert_array_equal(picture, alone)
    assert stage.data.light_xpos[0, 2] > 0
    perturbed(stage, scene, episode=0, step=500)
    assert stage.data.light_xpos[0, 2] > 0, "below the floor"
    restore(stage, scene)


def test_offsets_are_pure_functions_of_seed_and_episode_and_cover_their_range(stages):
    stage = stages("cartpole")
    own = np.array(stage.model.cam_pos[0])

    def draw(seed, episodes, difficulty):
        scene = CameraScene(seed, difficulty)
        found = {}
        for episode in episodes:
            scene.begin_episode(stage.model, stage.renderer, episode)
            found[episode] = np.array(stage.model.cam_pos[0]) - own
        scene._memory.restore(stage.model)
        return found

    for difficulty, most in CAM_POS.items():
        forwards = draw(0, range(60), difficulty)
        np.testing.assert_array_equal(draw(0, [17, 3, 17], difficulty)[17], forwards[17])
        values = np.array(list(forwards.values()))
        assert np.abs(values).max() <= most and values.max() > 0.85 * most and values.min() < -0.85 * most
        assert (draw(1, [0], difficulty)[0] != forwards[0]).any()
    np.testing.assert_array_equal(stage.model.cam_pos[0], own)
