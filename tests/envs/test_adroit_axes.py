"""RL-ViGen's axes on the Adroit scenes: what each changes, within its bounds, and what makes no sense."""

import numpy as np
import pytest

import envs
from common.errors import ConfigError
from envs.adroit_axes import CAM_ANGLE, CAM_FOV, CAM_POS, LIGHT_COLOR, LIGHT_INTENSITY, LIGHT_POSITION
from envs.level_names import AXIS_LEVELS, HAND_LEVELS, expand_levels
from envs.levels import build_scene, describe_level

FIXED = {"source": "procedural", "fast_render": True, "seed": 4}
NAMES = ("light_pos", "light_diffuse", "cam_pos", "cam_quat", "cam_fovy", "geom_rgba")
CHANGES = {
    "light_position": "light_pos",
    "light_color": "light_diffuse",
    "light_intensity": "light_diffuse",
    "cam_pos": "cam_pos",
    "cam_angle": "cam_quat",
    "cam_fov": "cam_fovy",
    "objects_color": "geom_rgba",
    "table_texture": None,
    "moving_light": None,  # not at its first moment
}


def shown(domain, level, episodes=(0, 1), **options):
    """Return pictures and the model's values of the first moments of episodes."""
    env = envs.make_env(f"adroit_{domain}", level, **{**FIXED, **options})
    try:
        found = []
        for episode in episodes:
            env.episode = episode
            frame = env.reset(seed=0)[0]["pixels"]
            found.append((frame, {name: np.array(getattr(env.model, name)) for name in NAMES}))
        return found
    finally:
        env.close()


@pytest.fixture(scope="module")
def plain():
    return {domain: shown(domain, "train", (0,))[0] for domain in ("door", "relocate")}


FAST = ("light_intensity_hard", "cam_pos_hard", "table_texture_hard")
SLOW = {*AXIS_LEVELS, *HAND_LEVELS} - {*FAST, "moving_light_easy", "moving_light_hard"}


@pytest.mark.parametrize("level", [*FAST, *(pytest.param(n, marks=pytest.mark.slow) for n in sorted(SLOW))])
def test_an_axis_changes_its_own_and_nothing_else(level, plain):
    axis = level.rsplit("_", 1)[0]
    own_frame, own = plain["door"]
    (first, values), (second, others), (third, _) = shown("door", level, (0, 1, 2))
    assert (first != own_frame).any(-1).mean() > 0.01
    # Whole degrees may come twice.
    assert max((first != other).any(-1).mean() for other in (second, third)) > 0.01, "episodes look alike"
    changed = {name for name in NAMES if not np.array_equal(values[name], own[name])}
    assert changed == ({CHANGES[axis]} - {None})
    again = shown("door", level, (1,))[0]
    np.testing.assert_array_equal(again[0], second, "an episode alone")
    assert all(np.array_equal(again[1][name], others[name]) for name in NAMES)


@pytest.mark.parametrize("how", [pytest.param("easy", marks=pytest.mark.slow), "hard"])
def test_draws_stay_within_their_bounds_and_reach_them(how, plain):
    own = plain["relocate"][1]
    axes = ("light_position", "light_intensity", "cam_pos", "cam_angle", "cam_fov")
    level = "+".join(f"{axis}_{how}" for axis in axes)
    drawn = [values for _, values in shown("relocate", level, range(12), camera="cam1")]
    light = np.array([v["light_pos"] - own["light_pos"] for v in drawn])
    farthest = np.abs(light).max((0, 1)) / LIGHT_POSITION[how]
    assert ((farthest > 0.6) & (farthest <= 1)).all()
    factor = np.array([v["light_diffuse"] / own["light_diffuse"] for v in drawn])
    low, high = LIGHT_INTENSITY[how]
    assert (
        low <= factor.min() < 1 < factor.max() <= high * (1 + 1e-6) and np.ptp(factor, axis=-1).max() < 1e-6
    )
    places = np.array([v["cam_pos"] - own["cam_pos"] for v in drawn])
    assert np.abs(places).max() <= CAM_POS[how] and np.abs(places).max() > 0.9 * CAM_POS[how]
    assert np.ptp(places, axis=1).min() > 0, "every camera by itself"
    assert (places[:, 2, 2] >= 0).all(), "cam1 stands on the ground"
    quaternions = np.array([v["cam_quat"] for v in drawn])
    assert np.allclose(np.linalg.norm(quaternions, axis=-1), 1)
    assert 0 < np.abs(quaternions - own["cam_quat"]).max() < 2 * CAM_ANGLE[how]
    degrees = np.array([v["cam_fovy"] - own["cam_fovy"] for v in drawn])
    assert (
        (degrees >= CAM_FOV[how][0]).all() and (degrees < CAM_FOV[how][1]).all() and (degrees % 1 == 0).all()
    )
    colours = [v["light_diffuse"] for _, v in shown("relocate", f"light_color_{how}", range(6))]
    shift = np.array(colours) - own["light_diffuse"]
    assert 0.5 * LIGHT_COLOR[how] < np.abs(shift).max() <= LIGHT_COLOR[how] * (1 + 1e-6)


def test_a_light_moves_at_the_scenes_own_speed():
    env = envs.make_env("adroit_door", "moving_light_hard", **FIXED)
    try:
        env.reset()
        before = np.array(env.model.light_pos)
        for _ in range(2):
            env.step(np.zeros(28, np.float32))
        assert np.allclose(env.model.light_pos - before, 2 * 0.12)
    finally:
        env.close()


def test_an_axis_draws_the_same_in_a_combination():
    alone = shown("door", "cam_pos_hard", (1,))[0][1]
    together = shown("door", "color_hard+cam_pos_hard+light_color_easy", (1,))[0][1]
    np.testing.assert_array_equal(alone["cam_pos"], together["cam_pos"])


def test_groups_hold_what_makes_sense():
    door, relocate = (expand_levels(["axes"], domain) for domain in ("door", "relocate"))
    assert set(door) == {*AXIS_LEVELS, *HAND_LEVELS, "cam_id_0", "cam_id_1", "cam_id_2"}
    assert set(door) - set(relocate) == {"table_texture_easy", "table_texture_hard"}
    dressed = expand_levels(["video_hard+axes"], "door")
    assert "video_hard+cam_angle_easy" in dressed
    assert not any(axis in name for name in dressed for axis in ("objects_color", "table", "moving_light"))
    assert "color_easy+moving_light_hard" in expand_levels(["color_easy+axes"], "door")
    assert not set(expand_levels(["axes"], "walker")) & set(HAND_LEVELS)


@pytest.mark.parametrize(
    ("domain", "level", "words"),
    [
        ("door", "video_easy+objects_color_easy", "objects_color is part of video_"),
        ("pen", "color_hard+table_texture_hard", "table_texture is part of color_"),
        ("hammer", "video_hard+moving_light_easy", "move the light already"),
        ("relocate", "table_texture_easy", "its table is not drawn"),
        ("walker", "cam_angle_easy", "cam_angle exists on the Adroit hand only"),
        ("walker", "video_hard+light_intensity_hard", "light_intensity exists on the Adroit hand only"),
    ],
)
def test_what_makes_no_sense_is_refused(domain, level, words):
    with pytest.raises(ConfigError, match=words):
        build_scene(level, domain, source="procedural")


def test_results_say_what_was_drawn_from():
    level = "cam_fov_hard+light_color_easy+objects_color_easy+moving_light_easy"
    facts = describe_level(level, domain="door", source="procedural")
    assert facts["cam_fov"] == {"degrees_from_below": [-10, 10]} and facts["light_color"] == {
        "added_within": 0.1
    }
    assert facts["objects_color"]["colors"] == 100 and facts["moving_light"] == {"speed": 0.04, "bound": 1.2}
    table = describe_level("table_texture_hard", domain="pen", source="procedural")
    assert table["table_texture"] == {"pictures": 10, "name": "procedural-hard-v1"}
