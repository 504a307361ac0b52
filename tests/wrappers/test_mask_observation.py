"""Masked observations, single and vectorised, with fake environments and fake maskers."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from common.masking import MaskerInfo
from wrappers import BatchMasker, MaskObservation

SIZE = 6


class Counter(gymnasium.Env):
    """Shows 10 * episode + step + 1 in every pixel; its foreground is the left half."""

    observation_space = gymnasium.spaces.Dict(
        {"pixels": gymnasium.spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8)}
    )
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, foreground=False):
        self.episode, self.steps, self.foreground = 0, 0, foreground

    def _result(self):
        info = {"foreground": np.arange(SIZE)[None].repeat(SIZE, 0) < SIZE // 2} if self.foreground else {}
        return {"pixels": np.full((SIZE, SIZE, 3), 10 * self.episode + self.steps + 1, np.uint8)}, info

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return self._result()

    def step(self, action):
        self.steps += 1
        observation, info = self._result()
        return observation, 1.0, False, self.steps >= 3, info


class UpperHalf:
    """Keeps the upper half of a frame, or the foreground where it is given; counts calls and frames."""

    def __init__(self, soft=False, use_foreground=False):
        self.soft, self.use_foreground, self.calls = soft, use_foreground, []
        self.info = MaskerInfo("fake", "fake", "0")

    def mask(self, frames, foreground=None):
        self.calls.append(len(frames))
        if self.use_foreground:
            return foreground
        mask = torch.zeros(frames.shape[:3], dtype=torch.bool)
        mask[:, : SIZE // 2] = True
        return mask.float() * 0.5 if self.soft else mask


def vector(number, **options):
    return SyncVectorEnv([lambda: Counter(**options)] * number, autoreset_mode=AutoresetMode.DISABLED)


def value(frames):
    """The upper half's value, checking that the lower half is black."""
    assert (frames[..., SIZE // 2 :, :, :] == 0).all()
    return frames[..., 0, 0, 0].tolist()


def test_single_environment():
    masker = UpperHalf()
    env = MaskObservation(Counter(), masker, keep_raw=True)
    env.episode = 2
    observation, info = env.reset()
    assert env.observation_space.contains(observation) and value(observation["pixels"]) == 21
    assert env.unwrapped.episode == env.episode == 2, "assigning the episode reaches the environment"
    assert info["mask"].shape == (SIZE, SIZE) and info["mask"].dtype == bool and info["mask"].sum() == 18
    assert (info["raw_pixels"] == 21).all()
    observation, reward, _, _, info = env.step(np.zeros(1, np.float32))
    assert env.observation_space.contains(observation) and value(observation["pixels"]) == 22
    assert reward == 1.0 and info["mask"].sum() == 18 and masker.calls == [1, 1]


def test_foreground_reaches_the_masker():
    for env in (Counter(foreground=True), vector(2, foreground=True)):
        observation, info = MaskObservation(env, UpperHalf(use_foreground=True)).reset()
        assert (observation["pixels"][..., : SIZE // 2, :] == 1).all()
        assert (observation["pixels"][..., SIZE // 2 :, :] == 0).all()
        assert np.array_equal(info["mask"], info["foreground"])


def test_soft_masks_are_rounded():
    env = MaskObservation(Counter(), UpperHalf(soft=True))
    env.episode = 2
    observation, info = env.reset()
    assert observation["pixels"].dtype == np.uint8 and value(observation["pixels"]) == 10  # round(10.5)
    assert info["mask"].dtype == bool and info["mask"].sum() == 18


def test_vector_masks_all_frames_in_one_call():
    masker = UpperHalf()
    env = MaskObservation(vector(3), masker, keep_raw=True)
    observation, info = env.reset()
    assert env.observation_space.contains(observation)
    assert info["mask"].shape == (3, SIZE, SIZE) and (info["raw_pixels"] == 1).all()
    observation, *_, info = env.step(np.zeros((3, 1), np.float32))
    assert env.observation_space.contains(observation) and value(observation["pixels"]) == [2, 2, 2]
    assert info["_mask"].all() and masker.calls == [3, 3]


def test_only_environments_that_were_reset_are_masked_again():
    masker = UpperHalf()
    env = MaskObservation(vector(3), masker)
    env.reset()
    earlier, *_ = env.step(np.zeros((3, 1), np.float32))
    env.set_attr("episode", [5, 6, 7])
    options = {"reset_mask": np.array([False, True, False])}
    observation, info = env.reset(options=options)
    assert masker.calls == [3, 3, 1]
    assert value(observation["pixels"]) == [2, 61, 2] and info["_mask"].tolist() == [False, True, False]
    assert value(earlier["pixels"]) == [2, 2, 2], "what was returned before does not change"
    assert env.get_attr("episode") == (5, 6, 7)
    assert info["mask_empty"].tolist() == [False] * 3


class FindsNothingInDarkFrames(UpperHalf):
    """Returns the whole frame where it finds nothing, and says so."""

    last_empty = None

    def mask(self, frames, foreground=None):
        mask = super().mask(frames)
        self.last_empty = frames.flatten(1).amax(1) < 50
        mask[self.last_empty] = True
        return mask


def test_the_masker_says_where_it_found_nothing():
    env = MaskObservation(vector(3), FindsNothingInDarkFrames(), batch_size=2)
    env.set_attr("episode", [0, 5, 0])
    _, info = env.reset()
    assert info["mask_empty"].tolist() == [True, False, True] and info["mask_empty"].shape == (3,)
    assert info["mask"].any(axis=(1, 2)).all(), "none of the masks itself is empty"
    env.set_attr("episode", [5, 0, 5])
    _, info = env.reset(options={"reset_mask": np.array([False, True, True])})
    assert info["mask_empty"].tolist() == [True, True, False]
    assert info["_mask_empty"].tolist() == [False, True, True]


def test_an_empty_mask_counts_where_the_masker_says_nothing():
    class Nothing(UpperHalf):
        def mask(self, frames, foreground=None):
            return super().mask(frames) & (frames[..., 0] > 50)

    single = MaskObservation(Counter(), Nothing())
    assert single.reset()[1]["mask_empty"]
    single.episode = 5
    assert not single.reset()[1]["mask_empty"]


@pytest.mark.parametrize("number", [1, 3, 5])
def test_fixed_batches_are_padded(number):
    masker, plain = UpperHalf(), UpperHalf()
    padded = MaskObservation(vector(number, foreground=True), masker, batch_size=4)
    expected = MaskObservation(vector(number, foreground=True), plain)
    frames, info = padded.reset()
    same, same_info = expected.reset()
    assert np.array_equal(frames["pixels"], same["pixels"]) and np.array_equal(
        info["mask"], same_info["mask"]
    )
    assert masker.calls == [4] * -(-number // 4) and plain.calls == [number]


def test_stepping_in_two_halves_masks_too():
    class Halves(SyncVectorEnv):
        def step_async(self, actions):
            self.pending = actions

        def step_wait(self):
            return self.step(self.pending)

    env = MaskObservation(Halves([Counter] * 2, autoreset_mode=AutoresetMode.DISABLED), UpperHalf())
    env.reset()
    env.step_async(np.zeros((2, 1), np.float32))
    assert value(env.step_wait()[0]["pixels"]) == [2, 2]


def test_points_come_with_the_masks_where_asked_for_and_known():
    class Pointing(UpperHalf):
        def mask(self, frames, foreground=None):
            first = frames[:, 0, 0, :2].float()
            self.last_points = torch.stack((first, first + 1), 1)
            return super().mask(frames)

    frames = np.arange(3 * SIZE * SIZE * 3).reshape(3, SIZE, SIZE, 3).astype(np.uint8)
    _, found = BatchMasker(Pointing(), batch_size=2, keep_points=True)(frames, None)
    first = frames[:, 0, 0, :2].astype(np.float32)
    np.testing.assert_array_equal(found["mask_points"], np.stack((first, first + 1), 1))
    for masker, keep in ((Pointing(), False), (UpperHalf(), True)):
        assert set(BatchMasker(masker, keep_points=keep)(frames, None)[1]) == {"mask", "mask_empty"}
