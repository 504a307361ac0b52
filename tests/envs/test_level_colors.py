"""Recolouring the live model: equal to a rebuild, changes what the level says, leaves no trace."""

import numpy as np
import pytest

from common.errors import ConfigError
from envs.colors import ColorScene, Painter, Palette, colour_index
from envs.levels import build_scene
from envs.procedural import procedural_colours
from envs.renderer import Renderer, load_mujoco
from tests.support.stage import DOMAINS, Stage

SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in DOMAINS if name not in ("walker", "cartpole")]


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


def rebuilt_picture(stage, domain, entry):
    """The same state drawn from a model that was compiled anew from edited XML text."""
    from dm_control.suite import common

    text = {name: " ".join(map(repr, rgb)) for name, rgb in entry.items()}
    assets = {name: content.decode() for name, content in common.ASSETS.items()}
    sky, materials = "./common/skybox.xml", "./common/materials.xml"
    assert assets[sky].count('rgb1=".4 .6 .8"') == 1
    assets[sky] = assets[sky].replace('rgb1=".4 .6 .8"', f'rgb1="{text["skybox_rgb"]}"')
    changed = assets[materials]
    for old, new in (
        ('rgb1=".1 .2 .3" rgb2=".2 .3 .4"', f'rgb1="{text["grid_rgb1"]}" rgb2="{text["grid_rgb2"]}"'),
        ('name="self" rgba=".7 .5 .3 1"', f'name="self" rgba="{text["self_rgb"]} 1"'),
    ):
        assert changed.count(old) == 1
        changed = changed.replace(old, new)
    assets[materials] = changed
    if domain == "quadruped":
        from dm_control import suite
        from dm_control.suite import quadruped

        xml = quadruped.make_model(
            floor_size=suite.quadruped._DEFAULT_TIME_LIMIT * suite.quadruped._WALK_SPEED
        )
    else:
        xml = common.read_model(f"{domain}.xml").decode()
    mujoco = load_mujoco()
    model = mujoco.MjModel.from_xml_string(
        xml if isinstance(xml, str) else xml.decode(), {k: v.encode() for k, v in assets.items()}
    )
    if model.nq != stage.model.nq:
        pytest.skip("the task edits its XML beyond what this test rebuilds")
    model.geom_pos[:], model.geom_size[:] = stage.model.geom_pos, stage.model.geom_size
    model.body_pos[:] = stage.model.body_pos
    model.geom_rgba[:], model.site_rgba[:] = stage.model.geom_rgba, stage.model.site_rgba
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:], data.act[:] = stage.data.qpos, stage.data.qvel, stage.data.act
    data.ctrl[:], data.mocap_pos[:], data.time = stage.data.ctrl, stage.data.mocap_pos, stage.data.time
    mujoco.mj_forward(model, data)
    renderer = Renderer(model, 84, 84, 2 if domain == "quadruped" else 0)
    picture = renderer.render(data)
    renderer.close()
    return picture


@pytest.mark.parametrize("domain", ["walker", "cartpole", *SLOW])
def test_painting_equals_a_rebuild_from_edited_xml(domain, stages):
    stage = stages(domain)
    mujoco = load_mujoco()
    mujoco.mj_forward(stage.model, stage.data)
    entry = procedural_colours("hard").entries[7]
    painter = Painter(domain)
    before = stage.picture()
    painter.paint(stage.model, stage.renderer, Palette.from_entry(entry, recolour_agent=True))
    painted = stage.picture()
    np.testing.assert_array_equal(painted, rebuilt_picture(stage, domain, entry))
    assert (painted != before).any(axis=-1).mean() > 0.9
    painter.restore(stage.model, stage.renderer)
    np.testing.assert_array_equal(stage.picture(), before)


@pytest.mark.parametrize(("protocol", "recoloured"), [("dmcgb", True), ("samg", False)])
def test_the_agent_changes_only_where_the_protocol_says(protocol, recoloured, stages):
    stage = stages("walker")
    interior = stage.agent_interior()
    assert interior.sum() > 50
    before = stage.picture()
    scene = build_scene("color-hard", "walker", source="procedural", protocol=protocol, seed=3)
    scene.begin_episode(stage.model, stage.renderer, 0)
    after = stage.picture()
    changed = (after != before).any(axis=-1)
    assert changed[:10].all(), "the sky keeps its colour"
    assert changed[interior].any() == recoloured
    if recoloured:
        assert changed[interior].all()
    Painter.restore(scene._painter, stage.model, stage.renderer)


def test_the_colour_scheme_can_be_chosen_apart_from_the_protocol():
    entry = procedural_colours("easy").entries[0]
    scene = build_scene("color_easy", "walker", source="procedural", protocol="dmcgb", colors="samg")
    assert isinstance(scene, ColorScene)
    assert scene.entries[0].self_rgb is None and scene.entries[0].skybox_rgb == entry["skybox_rgb"]
    scene = build_scene("color_easy", "walker", source="procedural", protocol="samg", colors="dmcgb")
    assert scene.entries[0].self_rgb == entry["self_rgb"]


def test_an_episode_looks_the_same_whether_or_not_others_came_before(stages):
    stage = stages("cartpole")
    original = stage.picture()

    def play(episodes):
        scene = build_scene("color_hard", "cartpole", source="procedural", seed=11)
        pictures = []
        for episode in episodes:
            scene.begin_episode(stage.model, stage.renderer, episode)
            pictures.append(stage.picture())
        scene._painter.restore(stage.model, stage.renderer)
        return pictures

    in_order, alone = play([0, 1, 2, 3]), play([3])
    np.testing.assert_array_equal(in_order[3], alone[0])
    assert (in_order[2] != in_order[3]).any()
    np.testing.assert_array_equal(play([3, 1])[1], in_order[1])
    np.testing.assert_array_equal(stage.picture(), original)


def test_frames_pass_a_colour_scene_untouched():
    scene = build_scene("color_easy", "walker", source="procedural")
    frame = np.random.default_rng(0).integers(0, 256, (84, 84, 3), dtype=np.uint8)
    assert scene.compose(frame, lambda: pytest.fail("no segmentation needed"), 5) is frame


def test_two_models_in_turn_keep_their_own_colours(stages):
    walker, cartpole = stages("walker"), stages("cartpole")
    pictures = walker.picture(), cartpole.picture()
    painter = Painter("both")
    palette = Palette.key_paint((0.2, 0.8, 0.2), floor=True)
    painter.paint(walker.model, walker.renderer, palette)
    np.testing.assert_array_equal(cartpole.picture(), pictures[1])
    painter.restore(walker.model, walker.renderer)
    painter.paint(cartpole.model, cartpole.renderer, palette)
    np.testing.assert_array_equal(walker.picture(), pictures[0])
    painter.restore(cartpole.model, cartpole.renderer)
    np.testing.assert_array_equal(cartpole.picture(), pictures[1])


def test_the_order_of_colours_is_one_draw_per_reset():
    for seed in (0, 1, 42):
        generator = np.random.RandomState(seed)
        drawn = [generator.randint(100) for _ in range(30)]
        assert [colour_index(seed, episode, 100) for episode in range(30)] == drawn
    assert colour_index(2**40 + 1, 3, 100) < 100  # any Python integer is a seed


def test_a_model_without_the_common_sky_is_refused():
    mujoco = load_mujoco()
    model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><geom size='1'/></worldbody></mujoco>")
    scene = build_scene("color_easy", "homemade", source="procedural")
    with pytest.raises(ConfigError, match="homemade"):
        scene.begin_episode(model, None, 0)
