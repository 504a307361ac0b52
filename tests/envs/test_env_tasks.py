"""The task table against the suite itself, and its errors."""

import pytest

import envs
from common.errors import ConfigError
from envs.tasks import DOMAIN_ALIASES, find_task, task_names


def test_table_is_the_whole_suite_and_the_aliases():
    from dm_control import suite

    expected = {f"{domain}_{task}" for domain, task in suite.ALL_TASKS}
    expected |= {
        f"{alias}_{task}" for alias, d in DOMAIN_ALIASES.items() for task in suite.TASKS_BY_DOMAIN[d]
    }
    assert set(task_names("dmc")) == expected
    for name in task_names("dmc"):
        task = find_task(name)
        assert task.task in suite.TASKS_BY_DOMAIN[task.domain], name


def test_names_of_the_literature():
    cup = find_task("cup_catch")
    assert (cup.domain, cup.task, cup.camera) == ("ball_in_cup", "catch", 0)
    assert find_task("point_mass_easy").domain == "point_mass"
    assert find_task("quadruped_walk").camera == 2
    assert len(envs.SAMG8) == 8 and set(envs.SAMG8) <= set(task_names())


def test_unknown_task_names_the_nearest():
    with pytest.raises(ConfigError, match="Unknown task 'walker_wlk'") as caught:
        envs.make_env("walker_wlk")
    assert "Did you mean walker_walk?" in caught.value.hint


@pytest.mark.parametrize("setting", [{"image_size": 0}, {"image_size": 84.0}, {"action_repeat": 0}])
def test_impossible_numbers_are_refused(setting):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        envs.make_env("walker_walk", **setting)
