"""Several cameras through the whole loop: replay, agents, resumed runs, evaluation and its pictures."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from algos.pieg import PiegEncoder
from common.errors import ConfigError
from evaluation.evaluate import evaluate
from evaluation.pictures import Scene, level_picture, scene_frame, strip_picture
from evaluation.scenes import agent_policy, masked_scene, play, random_policy, scene_record
from evaluation.videos import VideoRecorder
from samg import ViewReferences, build_masker
from samg.baselines import GroundTruthMasker
from samg.reference import Reference
from tests.support.agents import make_agent as make_one
from tests.support.agents import make_batch
from tests.support.fake_env import FakeVectorEnv, PixelFakeEnv
from tests.support.small_runs import fingerprint, make_run, rows, stop_at
from training.config import compose_config, validate
from training.factory import make_agent
from training.judging import observing_camera
from training.replay_buffer import ReplayBuffer

VIEWS = 2
ENV = {"length": 16, "views": VIEWS, "foreground": True}
pytestmark = pytest.mark.usefixtures("one_thread")


def test_replay_gives_the_stacks_that_the_agent_saw(tmp_path: Path) -> None:
    buffer = ReplayBuffer(tmp_path, (VIEWS, 2, 2, 3), 1, capacity=20, nstep=1, frame_stack=2)
    frames = np.random.default_rng(0).integers(0, 255, (6, VIEWS, 2, 2, 3), dtype=np.uint8)
    buffer.begin_episode(0, 0, frames[0])
    for time in range(1, 6):
        buffer.add(0, np.array([time - 1], np.float32), 0.0, 1.0, frames[time], last=time == 5)
    batch = buffer.sample(32, 0)
    for row in range(32):
        time = int(batch.action[row, 0])
        pair = frames[[max(time - 1, 0), time]]
        assert np.array_equal(batch.obs[row].numpy(), pair.transpose(0, 1, 4, 2, 3).reshape(12, 2, 2))
    restored = ReplayBuffer(tmp_path, (VIEWS, 2, 2, 3), 1, capacity=20, nstep=1, frame_stack=2)
    restored.load_state_dict(buffer.state_dict())
    assert torch.equal(restored.sample(32, 0).next_obs, batch.next_obs)
    single = ReplayBuffer(tmp_path, (2, 2, 3), 1, capacity=20, max_lost=1.0)
    single.load_state_dict(buffer.state_dict())
    assert single.damaged_files == 1, "frames of another number of cameras"


class EveryThird(GroundTruthMasker):
    every = 3


@pytest.mark.parametrize(
    ("masker", "options"),
    [
        (EveryThird(), {"num_envs": 2}),
        pytest.param(
            GroundTruthMasker(),
            {"kind": "PIEGAgent", "agent": {"encoder_weights": "random", "overlay_images": 16}},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["reuse", "pieg"],
)
def test_a_resumed_run_equals_one_that_was_not_interrupted(
    tmp_path: Path, masker: Any, options: dict[str, Any]
) -> None:
    options = {"env": ENV, "masker": masker, "num_train_frames": 120, "num_seed_frames": 32, **options}
    whole = make_run(tmp_path / "whole", **options)
    whole.train()
    assert whole.updates > 5 and whole.obs.shape[1] == 3 * VIEWS * 2
    stopped = make_run(tmp_path / "parts", **options)
    stop_at(stopped, 42)
    with pytest.raises(SystemExit):
        stopped.train()
    resumed = make_run(tmp_path / "parts", resume="must", **options)
    resumed.train()
    assert fingerprint(resumed.agent) == fingerprint(whole.agent)
    assert rows(resumed) == rows(whole)
    assert all(0 < float(row["mask_area"]) < 0.5 and float(row["empty_masks"]) == 0 for row in rows(whole))


@pytest.mark.parametrize("name", ["drqv2", "svea", "sgqn", "pieg", "curl", "vrl3", "drq", "srm"])
def test_every_agent_takes_the_views_as_channels(name: str) -> None:
    shape = (3 * VIEWS * 2, 44, 44)
    agent = make_one(name, shape=shape, views=VIEWS)
    batch = make_batch(3, shape=shape)
    assert np.isfinite(agent.act(batch.obs.numpy(), 10_000, eval_mode=True)).all()
    assert all(value.isfinite() for value in agent.update(batch, 100).values())


def test_pieg_compares_pictures_of_the_same_camera() -> None:
    one, several = PiegEncoder((9, 44, 44)), PiegEncoder((18, 44, 44), views=VIEWS)
    several.resnet.load_state_dict(one.resnet.state_dict())
    obs = torch.randint(0, 255, (2, 3, VIEWS, 3, 44, 44), dtype=torch.uint8)
    both = several.features(obs.flatten(1, 3)).unflatten(1, (4, VIEWS, -1))
    for view in range(VIEWS):
        alone = one.features(obs[:, :, view].flatten(1, 2)).unflatten(1, (4, -1))
        assert torch.allclose(both[:, :, view], alone, atol=1e-5)
    with pytest.raises(ConfigError, match="only one"):
        PiegEncoder((6, 44, 44), views=VIEWS)


def test_the_factory_tells_the_agent_how_many_views_there_are() -> None:
    cfg = OmegaConf.merge(compose_config(["agent=drqv2"]), {"frame_stack": 2})
    agents = [make_agent(cfg, FakeVectorEnv(views=v), torch.device("cpu")) for v in (0, VIEWS)]
    assert [(a.views, a.obs_shape[0]) for a in agents] == [(1, 6), (VIEWS, 6 * VIEWS)]


def test_an_evaluation_measures_all_views_and_draws_them(tmp_path: Path) -> None:
    agent = make_one("drqv2", shape=(3 * VIEWS * 2, 24, 24), views=VIEWS)
    seen, recorder = [], VideoRecorder()
    agent.act = lambda obs, *_, **__: np.zeros((len(obs), 1), np.float32)  # type: ignore[method-assign]
    for envs in (1, 2):
        results = evaluate(
            agent, FakeVectorEnv(envs, **ENV), episodes=2, seed=0, agent_step=0, masker=GroundTruthMasker(),
            padded_batch=4, frame_stack=2, on_frame=seen.append,
        )  # fmt: skip
        assert all(result.mask_iou == 1.0 and result.empty_share == 0.0 for result in results)
    view = seen[0]
    assert view.raw.shape == (VIEWS, 24, 24, 3) and view.foreground.shape == (VIEWS, 24, 24)
    for one in seen[:3]:
        recorder.add(one.raw, one.masked)
    assert recorder.save(tmp_path / "video.mp4")


def test_scenes_of_a_masker_with_a_reference_per_camera(tmp_path: Path) -> None:
    env = PixelFakeEnv(views=VIEWS, foreground=True, size=48)
    obs, info = env.reset(seed=3)
    pairs = zip(obs["pixels"], info["foreground"], strict=True)
    references = [Reference.from_arrays(picture, mask, [(24, 24)]) for picture, mask in pairs]
    masker = build_masker("tiny", persam=False).fit(ViewReferences(tuple(references)))
    scenes = list(play(env, masker, random_policy(env.action_space, 0), 2, seed=3))
    assert scenes[0].masked.shape == (VIEWS, 48, 48, 3) and scenes[0].views == VIEWS
    record = scene_record(scenes[0])
    assert len(record["box"]) == VIEWS and max(point["x"] for point in record["points"]) > 48
    strip_picture(tmp_path / "strip.png", scenes)
    level_picture(tmp_path / "levels.png", scenes)
    wide, single = scene_frame(scenes[0]), scene_frame(masked_scene("x", masker.maskers[0], *obs_of(env)))
    assert wide.shape[1] > 1.8 * single.shape[1] and abs(wide.shape[0] - single.shape[0]) < 60
    policy = agent_policy(make_one("drqv2", shape=(12, 48, 48), views=VIEWS), 2, 0)
    assert policy(scenes[0].masked).ndim == 1
    assert isinstance(scenes[0], Scene)


def obs_of(env: PixelFakeEnv) -> tuple[np.ndarray, np.ndarray]:
    obs, info = env.reset(seed=3)
    return obs["pixels"][0], info["foreground"][0]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["camera=[cam1,cam7]"], "has no camera 'cam7'"),
        (["camera=[cam1,cam1]"], "names a camera twice"),
        (["camera=[]"], "camera=\\[\\] is not possible"),
        (["camera=[top]"], "has no camera 'top'"),
    ],
)
def test_cameras_that_cannot_be_are_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        validate(compose_config(["task=relocate", "masker=groundtruth", *overrides]))


def test_a_level_that_names_a_camera_takes_the_place_of_the_runs() -> None:
    run: Any = SimpleNamespace(camera="cam3")
    assert observing_camera(run, "video_hard+cam_id_1") is None  # make_env refuses both
    assert observing_camera(run, "video_hard") == "cam3"
