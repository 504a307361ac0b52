"""Rewards and goals of the Adroit tasks against formulas written down anew, both sides of each threshold."""

import math

import numpy as np
import pytest

from envs.adroit_model import compile_model
from envs.adroit_tasks import (
    ADROIT_TASKS,
    door_outcome,
    hammer_outcome,
    pen_outcome,
    relocate_outcome,
)
from envs.renderer import load_mujoco

HINGES = (0, 0.1, 0.19999, 0.2, 0.20001, 0.5, 0.8, 0.99999, 1.0, 1.00001, 1.2, 1.34999, 1.35, 1.35001, 1.38)
HINGES += (1.39999, 1.4, 1.40001, 1.5, 1.57)
NAILS = (0, 0.001, 0.005, 0.0099, 0.009999, 0.01, 0.010001, 0.0101, 0.015, 0.0199, 0.019999, 0.02, 0.020001)
NAILS += (0.0201, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1)
BALLS = (
    0,
    0.01,
    0.03,
    0.04,
    0.0499,
    0.04999,
    0.05,
    0.05001,
    0.0501,
    0.07,
    0.09,
    0.0999,
    0.09999,
    0.1,
    0.10001,
)
BALLS += (0.1001, 0.15, 0.2, 0.4, 0.7)
PENS = [(d, c) for d in (0.0, 0.07499, 0.075, 0.3) for c in (-1.0, 0.9, 0.94999, 0.95, 0.95001, 1.0)]


def steps_above(value, bonuses):
    """Sum the bonuses whose threshold ``value`` exceeds."""
    total = 0.0
    for threshold, bonus in bonuses.items():
        if value > threshold:
            total += bonus
    return total


@pytest.mark.parametrize("hinge", HINGES)
def test_door(hinge):
    raw = steps_above(hinge, {0.2: 2, 1.0: 8, 1.35: 10}) - (hinge - 1.57) * (hinge - 1.57) / 10
    outcome = door_outcome(hinge)
    assert outcome.reward == pytest.approx(raw * 0.05, abs=1e-12)
    assert outcome.goal == (hinge > 1.4) and not outcome.failed


@pytest.mark.parametrize("distance", NAILS)
def test_hammer(distance):
    raw = steps_above(-distance, {-0.020: 25, -0.010: 75}) - distance * 10
    outcome = hammer_outcome(distance)
    assert outcome.reward == pytest.approx(raw * 0.01, abs=1e-12)
    assert outcome.goal == (distance < 0.010) and not outcome.failed


@pytest.mark.parametrize(("distance", "cosine"), PENS)
def test_pen(distance, cosine):
    held = not (distance >= 0.075 or cosine <= 0.95)
    for height, dropped in ((0.2, False), (0.075, False), (0.07499, True)):
        outcome = pen_outcome(distance, cosine, height)
        assert outcome.reward == (1.0 if held else 0.0)
        assert outcome.goal == (cosine > 0.95), "the place does not matter to the goal"
        assert outcome.failed == dropped


@pytest.mark.parametrize("distance", BALLS)
def test_relocate(distance):
    raw = steps_above(-distance, {-0.1: 10, -0.05: 20})
    outcome = relocate_outcome(distance)
    assert outcome.reward == pytest.approx(raw / 30, abs=1e-12)
    assert outcome.goal == (distance < 0.1) and not outcome.failed


# What the numbers are measured from: simulated states whose geometry is worked out here by hand.


@pytest.fixture(scope="module")
def scenes():
    """Return (model, data) by domain, compiled when first asked for."""
    library, made = load_mujoco(), {}

    def get(domain):
        if domain not in made:
            model = compile_model(domain)
            made[domain] = model, library.MjData(model)
        library.mj_resetData(*made[domain])
        return made[domain]

    return get


def judged(domain, model, data):
    load_mujoco().mj_forward(model, data)
    return ADROIT_TASKS[domain].judge(data)


@pytest.mark.parametrize("hinge", HINGES)
def test_the_door_is_judged_by_its_hinge(hinge, scenes):
    model, data = scenes("door")
    data.qpos[28] = hinge
    data.qpos[29] = 1.7  # the latch is nothing to the reward
    assert judged("door", model, data) == door_outcome(hinge)


@pytest.mark.parametrize("depth", np.linspace(-0.01, 0.09, 20))
def test_the_nail_is_judged_by_its_head(depth, scenes):
    """The head's mark starts 101 mm above the board's middle, the goal 10 mm; the nail slides down."""
    model, data = scenes("hammer")
    data.qpos[26] = depth
    distance = abs(0.101 - depth - 0.010)
    outcome = judged("hammer", model, data)
    bonus = (25 if distance < 0.02 else 0) + (75 if distance < 0.01 else 0)
    assert outcome.reward == pytest.approx((bonus - 10 * distance) / 100, abs=1e-9)
    assert outcome.goal == (depth > 0.081)


@pytest.mark.parametrize("angle", np.linspace(0, math.pi, 20))
@pytest.mark.parametrize("lift", [0.0, 0.08])
def test_the_pen_is_judged_by_direction_and_place(angle, lift, scenes):
    """The pen lies along x (its frame is turned by 1.57 about y), the target stands along z."""
    model, data = scenes("pen")
    data.joint("OBJTz").qpos[0] = lift  # sideways: the pen's z axis is the world's x
    data.joint("OBJRy").qpos[0] = angle
    direction = np.array([math.sin(1.57 + angle), 0, math.cos(1.57 + angle)])
    outcome = judged("pen", model, data)
    cosine = direction[2]
    assert outcome.goal == (cosine > 0.95)
    assert outcome.reward == (1.0 if cosine > 0.95 and lift < 0.075 else 0.0)
    assert not outcome.failed


def test_a_dropped_pen_fails(scenes):
    model, data = scenes("pen")
    for fallen, failed in ((0.17, False), (0.18, True)):
        load_mujoco().mj_resetData(model, data)
        data.joint("OBJTx").qpos[0] = fallen  # downwards: the pen's x axis points there
        assert judged("pen", model, data).failed == failed


@pytest.mark.parametrize("offset", BALLS)
def test_the_ball_is_judged_by_its_middle(offset, scenes):
    model, data = scenes("relocate")
    model.body("Object").pos[:] = (0.1, 0.2, 0.035)
    model.site("target").pos[:] = (0.1, 0.2, 0.335)
    data.joint("OBJTz").qpos[0] = 0.3
    data.joint("OBJTx").qpos[0] = offset + (1e-7 if offset in (0.05, 0.1) else 0)  # off the rounding's edge
    outcome = judged("relocate", model, data)
    assert outcome.reward == pytest.approx((1 / 3 if offset < 0.1 else 0) + (2 / 3 if offset < 0.05 else 0))
    assert outcome.goal == (offset < 0.1)
