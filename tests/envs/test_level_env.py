"""Levels worn by whole environments: what they change, and that episodes do not depend on one another."""

import numpy as np
import pytest

import envs
from tests.support.playing import play


@pytest.fixture
def make():
    opened = []

    def build(level, **options):
        options = {"source": "procedural", "fast_render": True, "foreground": True, "seed": 4} | options
        opened.append(envs.make_env("walker_walk", level=level, **options))
        return opened[-1]

    yield build
    for env in opened:
        env.close()


@pytest.mark.parametrize("level", ["color_hard", "video_easy", "video_hard"])
def test_a_level_changes_the_picture_and_not_the_physics(level, make):
    plain, plain_masks = play(make("train"), 2)
    # With a painted key the floor would mirror the paint; this key leaves the scene as it is.
    env = make(level, key="segmentation")
    first = play(env, 1)[0]
    frames, masks = play(env, 2)
    np.testing.assert_array_equal(masks, plain_masks)
    top = np.s_[:, :20]  # above the walker: sky
    assert (frames[top] != plain[top]).any(axis=-1).mean() > 0.9
    assert (frames[top] != first[top]).any(axis=-1).mean() > 0.5, "two episodes look alike"
    floor = np.s_[:, 66:78]
    spared = ~masks[floor] & (frames[floor] == plain[floor]).all(axis=-1)
    if level == "video_easy":
        assert spared.sum() == (~masks[floor]).sum()
    else:
        assert spared.sum() < 0.1 * (~masks[floor]).sum()
    np.testing.assert_array_equal(play(make(level, key="segmentation"), 2)[0], frames)


def test_a_video_moves_with_the_agents_steps(make):
    frames, masks = play(make("video_hard", key="segmentation"), 0)
    sky = ~masks.any(axis=0)
    changes = (np.diff(frames.astype(int), axis=0) != 0).any(axis=-1)[:, sky]
    assert (changes.mean(axis=1) > 0.5).all()
