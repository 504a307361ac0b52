"""Episodes, their returns and masks: as played by hand, and independent of the number of environments."""

import dataclasses

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from common.errors import NonFiniteError
from common.seeding import counter_rng, derive_seed
from common.stopping import Stopped
from evaluation import evaluate, random_policy_returns
from evaluation.lanes import SerialLanes, as_lanes
from evaluation.localisation import PointError, point_distances
from evaluation.mask_quality import MaskQuality, frame_quality
from tests.support.fake_evaluation import SIZE, CountingEnv, LinearAgent, TopMasker, vector_env


@pytest.fixture
def agent():
    return LinearAgent()


def play_by_hand(agent, masker_rows, episode, seed, padded):
    """One episode, written down step by step."""
    env = CountingEnv(length=lambda e: 4 + e)
    env.episode = episode
    obs, _ = env.reset(seed=derive_seed(seed, "evaluation", episode))
    frames, total, length = [], 0.0, 0
    while True:
        frame = obs["pixels"].copy()
        frame[masker_rows:] = 0
        frames.append(frame.transpose(2, 0, 1))
        stack = [frames[max(0, i)] for i in range(len(frames) - 3, len(frames))]
        batch = np.zeros((padded, 9, SIZE, SIZE), np.uint8)
        batch[0] = np.concatenate(stack)
        obs, reward, terminated, truncated, _ = env.step(agent.act(batch, 0, True)[0])
        total, length = total + reward, length + 1
        if terminated or truncated:
            return total, length, terminated


@pytest.mark.parametrize("num_envs", [1, 2, 3, 10])
def test_episodes_are_those_played_by_hand(agent, num_envs):
    # Episodes of other lengths: some environments end before others, and the last wave is not full.
    results = evaluate(
        agent,
        vector_env(num_envs, length=lambda e: 4 + e),
        episodes=5,
        seed=3,
        agent_step=0,
        masker=TopMasker(4),
        padded_batch=8,
    )
    assert [r.episode for r in results] == [0, 1, 2, 3, 4]
    for result in results:
        total, length, terminated = play_by_hand(agent, 4, result.episode, 3, 8)
        assert (result.episode_return, result.length, result.terminated) == (total, length, terminated)
    assert set(agent.batches) == {8}


def test_first_episode_continues_the_same_sequence(agent):
    options = {"seed": 0, "agent_step": 0, "masker": TopMasker()}
    whole = evaluate(agent, vector_env(2), episodes=5, **options)
    tail = evaluate(agent, vector_env(3), episodes=3, first_episode=2, **options)
    assert whole[2:] == tail


def test_seeds_differ(agent):
    first, second = (
        evaluate(agent, vector_env(1), episodes=1, seed=s, agent_step=0, masker=TopMasker())[0]
        for s in (0, 1)
    )
    assert first.episode_return != second.episode_return


def test_mask_measures(agent):
    # The foreground is the upper 6 of 12 rows; the mask keeps 3 of them.
    (result,) = evaluate(agent, vector_env(1), episodes=1, seed=0, agent_step=0, masker=TopMasker(3))
    assert (result.mask_iou, result.mask_recall, result.mask_precision) == (0.5, 0.5, 1.0)
    assert result.empty_share == 0.0 and result.success is None
    (empty,) = evaluate(agent, vector_env(1), episodes=1, seed=0, agent_step=0, masker=TopMasker(0))
    assert (empty.mask_iou, empty.empty_share) == (0.0, 1.0)


@pytest.mark.parametrize("num_envs", [1, 3])
def test_empty_masks_count_before_anything_takes_their_place(agent, num_envs):
    class Fallback(TopMasker):
        """Finds nothing where the first pixel is dark, padding included, and returns another mask then."""

        def mask(self, frames, foreground=None):
            self.last_empty = frames[:, 0, 0, 0] < 128
            return super().mask(frames)

    views = []
    results = evaluate(
        agent,
        vector_env(num_envs),
        episodes=2,
        seed=0,
        agent_step=0,
        masker=Fallback(),
        on_frame=views.append,
    )
    for result in results:
        dark = [view.raw[0, 0, 0] < 128 for view in views if view.episode == result.episode]
        assert result.empty_share == np.mean(dark) and 0 < result.empty_share < 1


def test_results_name_the_seed_of_the_physics(agent):
    results = evaluate(agent, vector_env(2), episodes=3, seed=4, agent_step=0, masker=TopMasker())
    assert [r.seed for r in results] == [derive_seed(4, "evaluation", episode) for episode in range(3)]


def test_masker_sees_one_batch_size(agent):
    masker = TopMasker()
    evaluate(agent, vector_env(3), episodes=4, seed=0, agent_step=0, masker=masker, padded_batch=8)
    assert set(masker.batches) == {8}


@pytest.mark.parametrize(("success_at", "expected"), [(0, None), (2, True), (99, False)])
def test_success_is_any_step(agent, success_at, expected):
    env = vector_env(2, success_at=success_at or None)
    results = evaluate(agent, env, episodes=2, seed=0, agent_step=0, masker=TopMasker())
    assert [r.success for r in results] == [expected, expected]


def test_every_frame_of_counted_episodes_is_shown(agent):
    seen = []
    evaluate(
        agent,
        vector_env(2, length=lambda e: 3 + e),
        episodes=3,
        seed=0,
        agent_step=0,
        masker=TopMasker(5),
        on_frame=seen.append,
    )
    for episode in range(3):
        views = [view for view in seen if view.episode == episode]
        assert [view.step for view in views] == list(range(4 + episode))
        generator = np.random.default_rng([derive_seed(0, "evaluation", episode), 2])
        frame = generator.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        np.testing.assert_array_equal(views[2].raw, frame)
        np.testing.assert_array_equal(views[2].masked[:5], frame[:5])
        assert not views[2].masked[5:].any() and views[2].foreground.sum() == 6 * SIZE
    assert {view.episode for view in seen} == {0, 1, 2}


def test_a_reward_that_is_not_finite_is_an_error(agent):
    with pytest.raises(NonFiniteError, match="reward in evaluation episode 0"):
        evaluate(agent, vector_env(1, bad_reward=True), episodes=1, seed=0, agent_step=0, masker=TopMasker())


def test_an_action_that_is_not_finite_is_an_error(agent):
    agent.weight[:] = float("nan")
    with pytest.raises(NonFiniteError, match="action in evaluation episode 0"):
        evaluate(agent, vector_env(1), episodes=1, seed=0, agent_step=0, masker=TopMasker())


@pytest.mark.parametrize("num_envs", [1, 3])
def test_random_policy(num_envs):
    returns = random_policy_returns(vector_env(num_envs), episodes=4, seed=5)
    expected = []
    for episode in range(4):
        env, generator = CountingEnv(), counter_rng(5, "random-policy", episode)
        env.episode = episode
        env.reset(seed=derive_seed(5, "evaluation", episode))
        rewards = [env.step(generator.uniform(-1, 1, 2).astype(np.float32))[1] for _ in range(7)]
        expected.append(sum(rewards))
    np.testing.assert_allclose(returns, expected)


def test_frame_quality_against_sets():
    generator = np.random.default_rng(0)
    for _ in range(50):
        mask, truth = generator.random((2, 4, 4)) < generator.random((2, 1, 1))
        a, b = set(np.flatnonzero(mask)), set(np.flatnonzero(truth))
        if not a and not b:
            expected = (1.0, 1.0, 1.0)
        else:
            both = len(a & b)
            expected = (both / len(a | b), both / len(b) if b else 0.0, both / len(a) if a else 0.0)
        assert frame_quality(mask, truth) == expected


def test_quality_without_foreground_is_unknown():
    quality = MaskQuality()
    quality.add(np.ones((2, 2), bool), None)
    assert quality.mean("iou") is None and quality.empty_share == 0.0
    quality.add(np.ones((2, 2), bool), None, empty=True)
    assert quality.empty_share == 0.5


class AnyOrder(SerialLanes):
    """Environments that answer in a random order, and count how often each was asked."""

    def __init__(self, venv, seed):
        super().__init__(venv)
        self.asked, self._generator = [0] * venv.num_envs, np.random.default_rng(seed)

    def collect(self, count):
        assert 1 <= count <= len(self._requests)
        self._generator.shuffle(self._requests)
        answers = super().collect(count)
        for answer in answers:
            self.asked[answer[0]] += 1
        return answers


@pytest.mark.parametrize("padded_batch", [1, 2, 8])
@pytest.mark.parametrize("num_envs", [1, 4, 5])
def test_the_order_of_answers_changes_nothing(agent, num_envs, padded_batch):
    # Five environments, batches of two: some episodes are far ahead of others. Both baselines, too.
    def length(episode):
        return 3 + 5 * episode % 7

    options = {"episodes": 7, "seed": 2}
    fixed = {**options, "agent_step": 0, "masker": TopMasker(4), "padded_batch": padded_batch}
    expected = evaluate(agent, vector_env(1, length=length), **fixed)
    for order in range(3):
        lanes, seen = AnyOrder(vector_env(num_envs, length=length), order), []
        results = evaluate(agent, lanes, **fixed, on_frame=seen.append)
        assert results == expected
        # An environment begins its next episode at once, and none plays without being counted.
        assert sum(lanes.asked) == sum(result.length + 1 for result in results) == len(seen)
        for episode in range(7):
            steps = [view.step for view in seen if view.episode == episode]
            assert steps == list(range(results[episode].length + 1))
        random = random_policy_returns(AnyOrder(vector_env(num_envs, length=length), order), **options)
        assert random == random_policy_returns(vector_env(1, length=length), **options)


def test_finished_episodes_are_not_played_again(agent):
    options = {"episodes": 5, "seed": 0, "agent_step": 0, "masker": TopMasker()}
    whole = evaluate(agent, vector_env(2), **options)
    played = []
    kept = [whole[3], whole[0], dataclasses.replace(whole[1], episode=99)]
    again = evaluate(agent, vector_env(2), **options, finished=kept, on_episode=played.append)
    assert again == whole and sorted(result.episode for result in played) == [1, 2, 4]

    returns, ended = random_policy_returns(vector_env(2), episodes=4, seed=1), []
    finished = {0: returns[0], 2: returns[2], 7: 1.0}
    rest = random_policy_returns(
        vector_env(2), episodes=4, seed=1, finished=finished, on_episode=lambda *one: ended.append(one)
    )
    assert rest == returns and sorted(ended) == [(1, returns[1]), (3, returns[3])]


def test_a_request_to_stop_is_heard_between_steps(agent):
    ended = []
    with pytest.raises(Stopped):
        evaluate(
            agent,
            vector_env(2),
            episodes=9,
            seed=0,
            agent_step=0,
            masker=TopMasker(),
            on_episode=ended.append,
            should_stop=lambda: len(ended) >= 3,
        )
    assert 3 <= len(ended) <= 4
    with pytest.raises(Stopped):
        random_policy_returns(vector_env(1), episodes=1, seed=0, should_stop=lambda: True)


def test_without_a_masker_frames_are_as_they_are_and_masks_unknown(agent):
    (plain,) = evaluate(agent, vector_env(1), episodes=1, seed=0, agent_step=0)
    (kept,) = evaluate(agent, vector_env(1), episodes=1, seed=0, agent_step=0, masker=TopMasker(SIZE))
    assert plain.episode_return == kept.episode_return and plain.mask_iou is None


def test_what_is_no_vector_environment_is_refused():
    with pytest.raises(ValueError, match="SyncVectorEnv, got CountingEnv"):
        as_lanes(CountingEnv())


def test_point_errors_are_means_over_the_points_that_can_be_seen(agent):
    class Pointing(TopMasker):
        """Puts two points at places that follow from the frame."""

        def mask(self, frames, foreground=None):
            corner = frames[:, 0, 0, :2].float()
            self.last_points = torch.stack((corner, corner.flip(1)), 1)
            return super().mask(frames)

    class Anchored(CountingEnv):
        """Its first anchor lies 3 right of and 4 below the frame's corner values; the second is hidden at
        every other step."""

        def _observe(self):
            obs, info = super()._observe()
            x, y = obs["pixels"][0, 0, :2].astype(float)
            second = (y + 1, x) if self._step % 2 else (np.nan, np.nan)
            info["anchors"] = np.array([(x + 3, y + 4), second], np.float32)
            return obs, info

    venv = SyncVectorEnv([Anchored] * 2, autoreset_mode=AutoresetMode.DISABLED)
    options = {"episodes": 3, "seed": 0, "agent_step": 0}
    for result in evaluate(agent, venv, **options, masker=Pointing()):
        assert result.length == 7  # eight frames, four of them with the second point
        assert result.point_error == pytest.approx((8 * 5 + 4 * 1) / 12)
    assert {r.point_error for r in evaluate(agent, venv, **options, masker=TopMasker())} == {None}
    assert {r.point_error for r in evaluate(agent, vector_env(2), **options, masker=Pointing())} == {None}


def test_point_distances():
    generator = np.random.default_rng(0)
    points, anchors = generator.uniform(0, 84, (2, 5, 2))
    anchors[1] = np.nan
    found = point_distances(points, anchors)
    for number in range(5):
        expected = np.nan if number == 1 else np.hypot(*(points[number] - anchors[number]))
        np.testing.assert_allclose(found[number], expected)
    with pytest.raises(ValueError, match="P, 2"):
        point_distances(points, anchors[:3])
    nothing = PointError()
    nothing.add(points, np.full((5, 2), np.nan))
    assert nothing.mean is None
