"""The levels on the Adroit scenes: what they change, what they leave alone, and what is refused."""

import json

import numpy as np
import pytest

import envs
from common.errors import ConfigError
from envs.adroit_axes import MOVING_LIGHT
from envs.adroit_levels import KEY_PURPLE
from envs.adroit_textures import TABLES, table_picture
from envs.colors import colour_index, texture_texels
from envs.level_names import LEVELS, expand_levels, supported_groups
from envs.levels import build_scene, describe_level
from envs.procedural import ProceduralClips, procedural_colours
from envs.tasks import ADROIT_DOMAINS
from tests.support.playing import play

DRESSED = LEVELS[1:]


@pytest.fixture(scope="module")
def make():
    """Make environments of levels, or give one of the same kind again; close them all in the end."""
    opened = {}

    def build(domain, level="train", copy=0, **options):
        key = (domain, level, copy, *sorted(options.items()))
        if key not in opened:
            fixed = {"source": "procedural", "fast_render": True, "foreground": True, "seed": 4}
            opened[key] = envs.make_env(f"adroit_{domain}", level, **{**fixed, **options})
        return opened[key]

    yield build
    for env in opened.values():
        env.close()


@pytest.mark.parametrize(
    ("domain", "level"),
    [
        ("door", "color_hard"),
        ("pen", "video_hard"),
        *(
            pytest.param(domain, level, marks=pytest.mark.slow)
            for domain in ADROIT_DOMAINS
            for level in DRESSED
            if (domain, level) not in (("door", "color_hard"), ("pen", "video_hard"))
        ),
    ],
)
def test_a_level_changes_the_picture_and_not_the_physics(domain, level, make):
    plain, masks = play(make(domain), 2, steps=2)
    env = make(domain, level)
    other = play(env, 1, steps=2)[0]
    frames, dressed_masks = play(env, 2, steps=2)
    np.testing.assert_array_equal(dressed_masks, masks)
    np.testing.assert_array_equal(env.data.qpos, make(domain).data.qpos)
    changed = (frames != plain).any(-1)
    assert changed[~masks].mean() > 0.9, "background"
    assert changed[masks].mean() > 0.3, "the hand is tinted"
    assert (frames != other).any(-1)[~masks].mean() > 0.5, "two episodes look alike"
    assert not (frames == KEY_PURPLE).all(-1).any(), "no key colour is left"


def test_a_moment_can_be_drawn_alone_again_and_after_others(make):
    env, fresh = make("pen", "video_hard"), make("pen", "video_hard", copy=1)
    for episode in (3, 0):
        play(env, episode, steps=1)
    frames = play(env, 2, steps=2)[0]
    fresh.set_state(env.get_state())
    np.testing.assert_array_equal(fresh.observe()[0]["pixels"], frames[-1])


@pytest.mark.parametrize("level", [pytest.param("color_easy", marks=pytest.mark.slow), "color_hard"])
def test_colours_are_those_of_the_table(level, make):
    env, difficulty = make("hammer", level), level.removeprefix("color_")
    own = np.array(make("hammer").model.geom_rgba)
    table = procedural_colours(difficulty).entries
    for episode in (0, 5):
        env.episode = episode
        env.reset()
        entry, model = table[colour_index(4, episode, len(table))], env.model
        tinted = {model.geom(name).id for name in ("V_palm", "V_forearm", "board", "handle")}
        for geom in tinted:
            assert np.allclose(model.geom_rgba[geom], (*entry["self_rgb"], 1))
        kept = [model.geom(name).id for name in ("neck", "head")]
        assert np.array_equal(model.geom_rgba[kept], own[kept]), "they have colours of their own"
        assert model.geom_rgba[model.geom("ground").id, 3] == 0
        sky = texture_texels(model, model.tex("skybox").id).reshape(-1, 3)
        assert (np.abs(sky - 255 * np.array(entry["skybox_rgb"])) <= 1).all()


def test_the_sky_shows_the_clip_pixel_by_pixel(make):
    bank = ProceduralClips("hard", 84)
    for key in (None, "segmentation"):
        env = make("pen", "video_hard", **({"key": key} if key else {}))
        frames = play(env, 2, steps=2)[0]
        sky = env.renderer.render_segmentation(env.data)[..., 1] == -1
        assert sky[:18].all(), "above the table"
        for step, frame in enumerate(frames):
            np.testing.assert_array_equal(frame[:18], bank.clip(3)[step][:18])
    assert (frames[0][~sky] == play(make("pen", "video_hard"), 2, steps=0)[0][0][~sky]).all(-1).mean() > 0.95


def test_ground_and_shadows_on_it_are_gone(make):
    env = make("door", "video_easy")
    play(env, 0, steps=0)
    shown = env.renderer.render_segmentation(env.data)
    assert not ((shown[..., 0] == env.model.geom("ground").id) & (shown[..., 1] == 5)).any()
    assert (shown[..., 1] == -1).mean() > 0.2


def test_tables_are_ten_pictures_of_each_difficulty(make):
    for difficulty in MOVING_LIGHT:
        pictures = [table_picture(difficulty, index, 64) for index in range(TABLES)]
        assert all(picture.shape == (64, 64, 3) and picture.dtype == np.uint8 for picture in pictures)
        assert all(picture.std() > 3 for picture in pictures)
        assert len({picture.tobytes() for picture in pictures}) == TABLES
        np.testing.assert_array_equal(table_picture(difficulty, 7, 64), pictures[7])
    env, seen = make("hammer", "color_hard"), set()
    known = {table_picture("hard", index, 512).tobytes() for index in range(TABLES)}
    for episode in range(4):
        env.episode = episode
        env.reset()
        seen.add(texture_texels(env.model, env.model.tex("marblecube").id).tobytes())
    assert seen <= known and len(seen) > 1


@pytest.mark.parametrize("difficulty", [pytest.param("easy", marks=pytest.mark.slow), "hard"])
def test_videos_move_the_light_and_colours_do_not(difficulty, make):
    speed = {"easy": 0.04, "hard": 0.12}[difficulty]
    for level, moved in ((f"video_{difficulty}", speed), (f"color_{difficulty}", 0.0)):
        env = make("relocate", level)
        play(env, 0, steps=0)
        before = np.array(env.model.light_pos[0])
        for _ in range(2):
            env.step(np.zeros(30, np.float32))
        assert np.allclose(env.model.light_pos[0] - before, 2 * moved)


def test_what_is_supported():
    for domain in ADROIT_DOMAINS:
        assert supported_groups(domain) == ("all", "axes")
        assert expand_levels(["all"], domain) == LEVELS
    assert expand_levels(["video_hard+cam_id_1"], "pen") == ("video_hard+cam_id_1",)


@pytest.mark.parametrize(
    ("level", "options", "words", "cure"),
    [
        ("object_size_hard", {}, "object_size is not part of it on the Adroit hand", "video_hard"),
        ("distracting_cs_0.1", {}, "distracting is not part of it", "color_easy"),
        ("second_object", {}, "second_object is not part of it", "train"),
        ("video_hard", {"key": "green"}, "cannot be keyed by 'green'", "purple, segmentation"),
        ("video_hard", {"protocol": "nobody"}, "Unknown protocol 'nobody'", "dmcgb, samg"),
        ("video_hrd", {}, "Unknown level 'video_hrd'", "video_hard"),
    ],
)
def test_what_is_not_supported_is_refused_before_the_simulator(level, options, words, cure):
    with pytest.raises(ConfigError) as caught:
        build_scene(level, "door", source="procedural", **options)
    assert words in caught.value.message and cure in caught.value.hint


def test_results_say_what_was_done():
    facts = describe_level("video_hard", domain="pen", source="procedural", protocol="samg")
    assert facts["key"] == "purple" and facts["agent_recoloured"] is True and facts["colors"] == 100
    assert facts["moving_light"] == {"speed": 0.12, "bound": 3.0} and facts["clips"] == 30
    assert facts["tables"] == {"pictures": 10, "name": "procedural-hard-v1"}
    assert describe_level("train", domain="pen") == {"level": "train"}
    colours = describe_level("color_easy", domain="door", source="procedural")
    assert colours["tables"]["name"] == "procedural-easy-v1" and "key" not in colours
    assert json.loads(json.dumps(facts)) == facts
