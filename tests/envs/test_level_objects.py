"""The agent drawn at another size, and a second agent beside it: pictures, labels, physics."""

import copy

import numpy as np
import pytest

import envs
from envs.object_size import OBJECT_SIZE, ObjectSizeScene
from envs.pixel_env import foreground_geoms
from envs.renderer import Renderer, load_mujoco
from envs.second_object import RIVALS, UNLABELLED, SecondObjectScene


@pytest.fixture
def make():
    opened = []

    def build(task, level="train", **options):
        opened.append(envs.make_env(task, level, **({"foreground": True, "fast_render": True} | options)))
        return opened[-1]

    yield build
    for env in opened:
        env.close()


def play(env, episode, steps=2):
    """Reset to an episode, step a little, and return the last frame and mask."""
    env.episode = episode
    observation, info = env.reset()
    for _ in range(steps):
        observation, _, _, _, info = env.step(np.full(env.action_space.shape, 0.4, np.float32))
    return observation["pixels"], info["foreground"]


@pytest.mark.parametrize("task", ["walker_walk", "finger_spin", "reacher_easy"])
def test_another_size_equals_a_model_whose_geoms_are_scaled(task, make):
    env = make(task, "object_size_hard", seed=1)
    frame, mask = play(env, 0)
    mujoco = load_mujoco()
    model, data = copy.deepcopy(env.model), copy.deepcopy(env.data)
    scale, domain = env._scene._scale, env._scene.domain
    agent = env.foreground_geoms()
    root = int(np.flatnonzero(model.body_weldid != 0)[0])
    centre = {"walker": data.subtree_com[root] * [1, 1, 0]}.get(domain, data.xpos[root])
    sites = model.body_weldid[model.site_bodyid] != 0
    model.geom_size[agent] *= scale
    model.geom_rbound[agent] *= scale
    model.site_size[sites] *= scale
    data.geom_xpos[agent] = centre + scale * (data.geom_xpos[agent] - centre)
    data.site_xpos[sites] = centre + scale * (data.site_xpos[sites] - centre)
    renderer = Renderer(model)
    np.testing.assert_array_equal(frame, renderer.render(data))
    labels = renderer.render_segmentation(data)
    renderer.close()
    is_geom = labels[..., 1] == int(mujoco.mjtObj.mjOBJ_GEOM)
    np.testing.assert_array_equal(mask, is_geom & agent[np.where(is_geom, labels[..., 0], 0)])


def test_the_size_is_drawn_per_episode_and_leaves_the_physics(make):
    plain, env = make("cartpole_swingup", seed=3), make("cartpole_swingup", "object_size_hard", seed=3)
    ratios = []
    for episode in range(6):
        own, resized = play(plain, episode, 1)[1], play(env, episode, 1)[1]
        np.testing.assert_array_equal(plain.data.qpos, env.data.qpos)
        assert env._scene._scale in OBJECT_SIZE["hard"]
        ratios.append(resized.sum() / own.sum())
        assert (ratios[-1] > 1.2) == (env._scene._scale > 1) and abs(ratios[-1] - env._scene._scale**2) < 0.4
    assert min(ratios) < 0.6 and max(ratios) > 1.3
    np.testing.assert_array_equal(
        play(env, 1, 1)[0], play(make("cartpole_swingup", "object_size_hard", seed=3), 1, 1)[0]
    )


def test_nothing_can_be_drawn_at_another_size_before_a_frame_has_begun(make):
    env = make("walker_walk")
    env.reset()
    scene = ObjectSizeScene("walker", 0, "easy")
    scene.begin_episode(env.model, env.renderer, 0)
    with pytest.raises(ValueError, match="begin_frame"):
        env.renderer.render(env.data)


@pytest.mark.parametrize("task", ["walker_walk", "cup_catch", "reacher_easy"])
def test_a_second_agent_is_seen_and_is_not_foreground(task, make):
    plain, env = make(task, seed=1), make(task, "second_object", seed=1)
    sides, names = set(), set()
    for episode in range(5):
        frame, mask = play(plain, episode, 1)
        shown, visible = play(env, episode, 1)
        labels = env.renderer.render_segmentation(env.data)
        rival = (labels == UNLABELLED).all(axis=-1)
        np.testing.assert_array_equal(visible, mask & ~rival)
        assert 40 < rival.sum() < 1500, "it is not there, or everywhere"
        assert (shown[rival] != frame[rival]).any(axis=-1).mean() > 0.9
        near = sum(np.roll(rival, (dy, dx), (0, 1)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)) > 0
        elsewhere = (np.abs(shown.astype(int) - frame) > 8).any(axis=-1) & ~near
        assert elsewhere.mean() < 0.12, "more than its shadow and its mirror image changed"
        sides.add(np.nonzero(rival)[1].mean() > 42)
        names.add(type(env._scene._rival).__name__ + str(len(env._scene._rival.parts)))
        np.testing.assert_array_equal(plain.data.qpos, env.data.qpos)
    assert sides == {True, False} and len(names) > 1


def test_the_rival_is_of_another_domain_stands_on_the_floor_and_moves(make):
    for domain in (*RIVALS, "finger"):
        assert domain not in SecondObjectScene(domain, 0).rivals
        assert len(SecondObjectScene(domain, 0).rivals) == len(RIVALS) - (domain in RIVALS)
    env = make("hopper_stand", "second_object+video_hard", seed=0, source="procedural", key="segmentation")
    first = play(env, 0, 0)[0].copy()
    rival = (env.renderer.render_segmentation(env.data) == UNLABELLED).all(axis=-1)
    np.testing.assert_array_equal(env.observe()[0]["pixels"], first)
    scene, before = env.renderer.scene, foreground_geoms(env.model).sum()
    drawn = [g for g in scene.geoms[: scene.ngeom] if g.objtype == UNLABELLED]
    assert len(drawn) == len(env._scene.parts[-1]._rival.parts) and before > 0
    lowest = min(g.pos[2] - g.size[0] - g.size[2] for g in drawn)
    assert -0.2 < lowest <= 1e-3
    env.step(np.zeros(env.action_space.shape, np.float32))
    for _ in range(8):
        env.step(np.zeros(env.action_space.shape, np.float32))
    later = (env.renderer.render_segmentation(env.data) == UNLABELLED).all(axis=-1)
    assert (later != rival).sum() > 5
