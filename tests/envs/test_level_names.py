"""Names of levels: single, combined, grouped, refused; and what each domain supports."""

import json

import pytest

import envs
from common.errors import ConfigError
from envs.level_names import (
    AXES,
    AXIS_LEVELS,
    DISTRACTING_LEVELS,
    GROUPS,
    LEVELS,
    OBJECT_LEVELS,
    Level,
    camera_count,
    check_domain,
    expand_levels,
    get_level,
    supported_groups,
)
from envs.levels import build_scene, describe_level
from envs.scene import ComposedScene
from envs.tasks import find_task, task_names

EVERY = (*LEVELS, *AXIS_LEVELS, *DISTRACTING_LEVELS, *OBJECT_LEVELS, "cam_id_0", "cam_id_1")


def test_every_level_names_exactly_what_it_perturbs():
    assert len(set(EVERY)) == 5 + 10 + 8 + 3 + 2
    for name in EVERY:
        level = get_level(name)
        assert level.name == name
        perturbed = {
            key for key, value in vars(level).items() if value is not None and value is not False
        } - {"name"}
        assert bool(perturbed) == (name != "train")
        for axis in AXES:
            assert (axis in perturbed) == name.startswith(axis)
    assert get_level("cam_id_3").cam_id == 3 and get_level("distracting_cs_0.15").distracting == "0.15"
    assert get_level("video_hard").video_floor and not get_level("video_easy").video_floor


def test_a_combination_has_one_name_whatever_the_order():
    wanted = "video_hard+moving_light_easy+cam_pos_hard"
    for name in (
        wanted,
        "cam_pos_hard+video_hard+moving_light_easy",
        "Moving-Light-Easy + train + cam_pos_hard+VIDEO-HARD + video_hard",
    ):
        level = get_level(name)
        assert level.name == wanted
        assert (level.video, level.moving_light, level.cam_pos) == ("hard", "easy", "hard")
        assert level.light_position is None and level.distracting is None
    assert get_level("train+original") is get_level("train")
    assert get_level("train+cam_pos_easy") is get_level("cam_pos_easy")
    everything = "+".join(
        (
            "second_object",
            "object_size_easy",
            "cam_id_1",
            *(f"{axis}_hard" for axis in AXES[:-1]),
            "color_easy",
        )
    )
    parts = get_level(everything).name.split("+")
    assert parts[0] == "color_easy" and tuple(p.rsplit("_", 1)[0] for p in parts[1:7]) == AXES
    assert parts[7:] == ["object_size_easy", "second_object"]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("video_hard+color_easy", "two backgrounds"),
        ("video_hard+video_easy", "two backgrounds"),
        ("distracting_cs_0.1+video_hard", "two backgrounds"),
        ("distracting_cs_0.1+distracting_cs_0.2", "two backgrounds"),
        ("cam_pos_easy+cam_pos_hard", "cam_pos twice"),
        ("cam_id_0+cam_id_1", "cam_id twice"),
        ("distracting_cs_0.1+cam_pos_hard", "distracting_cs changes"),
        ("objects_color_easy+distracting_cs_0.5", "distracting_cs changes"),
    ],
)
def test_impossible_combinations_say_why_and_what_is_possible(name, why):
    with pytest.raises(ConfigError, match="cannot be worn together") as caught:
        get_level(name)
    assert why in caught.value.message and name in caught.value.message
    assert "at most one of color_*, video_*" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("moving_lihgt_easy", "moving_light_easy"),
        ("distracting_cs_0.35", "distracting_cs_0."),
        ("cam_pos", "cam_pos_"),
        ("video_hard+cam_ps_hard", "cam_pos_hard"),
        ("second_objct", "second_object"),
    ],
)
def test_unknown_levels_name_the_nearest_and_all(name, nearest):
    with pytest.raises(ConfigError, match="Unknown level") as caught:
        get_level(name)
    assert f"Did you mean {nearest}" in caught.value.hint
    assert "light_position_easy|hard" in caught.value.hint and "cam_id_N" in caught.value.hint
    assert name in caught.value.message
    for other in ("", "+", "video_hard+"):
        with pytest.raises(ConfigError):
            get_level(other)


def test_a_domain_refuses_what_it_does_not_support_and_names_the_rest():
    with pytest.raises(ConfigError, match=r"'hopper' does not support.*reacher, walker") as caught:
        build_scene("distracting_cs_0.1", "hopper", source="procedural")
    assert "cam_pos_hard" in caught.value.hint and "distracting" not in caught.value.hint
    with pytest.raises(ConfigError, match="cameras 0 to 1") as caught:
        envs.make_env("walker_walk", "cam_id_7+video_hard", source="procedural")
    assert "cam_id_1" in caught.value.hint and "cam_id_2" not in caught.value.hint
    for level in ("objects_color_easy", "object_size_hard"):
        with pytest.raises(ConfigError, match="dog"):
            check_domain(get_level(level), "dog")
        assert level not in expand_levels(supported_groups("dog"), "dog")
    for level in expand_levels(supported_groups("walker"), "walker"):
        check_domain(get_level(level), "walker")


def test_groups_expand_to_what_the_domain_supports():
    assert expand_levels(["all"], "walker") == LEVELS
    axes = expand_levels(["axes"], "quadruped")
    assert axes == (*AXIS_LEVELS, "cam_id_0", "cam_id_1", "cam_id_2", "cam_id_3")
    assert expand_levels(["distracting"], "cup") == DISTRACTING_LEVELS
    assert expand_levels(["objects", "second-object"], "finger") == OBJECT_LEVELS
    assert expand_levels(["cam_pos_hard", "original", "cam-pos-hard", "clean"]) == ("cam_pos_hard", "train")
    assert expand_levels(["axes+video_easy"])[:2] == (
        "video_easy+objects_color_easy",
        "video_easy+objects_color_hard",
    )
    assert supported_groups("hopper") == ("all", "axes", "objects") and supported_groups("cup") == GROUPS
    with pytest.raises(ConfigError, match="hopper"):
        expand_levels(["train", "distracting"], "hopper")
    with pytest.raises(ConfigError, match="nonsense"):
        expand_levels(["all", "nonsense"], "walker")


@pytest.mark.slow
def test_the_table_of_cameras_is_the_simulators():
    from envs.dmc import DMCEnv

    fewest = {}
    for name in task_names("dmc"):
        task = find_task(name)
        env = DMCEnv(task)
        fewest[task.domain] = min(env.model.ncam, fewest.get(task.domain, 99))
        wears = env.model.geom_matid[env.foreground_geoms()]
        agents = [env.model.mat(m).name for m in set(wears.tolist()) if m >= 0]
        assert ("self" in agents) == (task.domain != "dog"), name
    assert {domain: camera_count(domain) for domain in fewest} == fewest


def test_cameras_of_the_common_domains():
    for name in ("walker_walk", "quadruped_run", "cup_catch"):
        env = envs.make_env(name)
        assert env.model.ncam == camera_count(find_task(name).domain)


def test_results_record_every_constant():
    name = "video_easy+objects_color_hard+light_position_easy+light_color_hard+moving_light_hard"
    name += "+cam_pos_easy+cam_id_1"
    facts = describe_level(name + "+object_size_hard+second_object", source="procedural", protocol="samg")
    assert facts["level"] == name + "+object_size_hard+second_object"
    assert facts["source"] == "procedural" and facts["protocol"] == "samg" and facts["key"] == "black"
    assert facts["clips"] == 10 and facts["objects_color"]["colors"] == 100
    assert facts["light_position"] == {"metres_added": [3.0, 4.0]}
    assert facts["light_color"]["added_within"] == 10.0
    assert facts["moving_light"] == {"speed": 0.05, "bound": 10.0}
    assert facts["cam_pos"] == {"metres_within": 0.08} and facts["cam_id"] == 1
    assert facts["object_size"]["scales"] == [0.6, 1.3] and "walker" in facts["second_object"]["rivals"]
    assert json.loads(json.dumps(facts)) == facts
    assert describe_level("cam_pos_hard") == {"level": "cam_pos_hard", "cam_pos": {"metres_within": 0.15}}
    distracting = describe_level("distracting_cs_0.15", source="procedural")
    assert distracting["distracting_cs"]["intensity"] == 0.15 and distracting["clips"] == 6
    assert distracting["published"] is False and len(distracting["clip_names"]) == 6
    assert describe_level("distracting_cs_0.5", source="procedural")["clips"] == 30


def test_several_parts_become_one_scene():
    scene = build_scene("video_hard+moving_light_easy+cam_pos_hard", "walker", source="procedural")
    assert isinstance(scene, ComposedScene) and len(scene.parts) == 3
    assert not isinstance(build_scene("moving_light_easy+light_color_hard", "walker"), ComposedScene)
    assert isinstance(get_level("train"), Level)
