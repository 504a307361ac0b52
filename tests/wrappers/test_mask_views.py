"""Several cameras: one batch for the masker, one observation for the agent, the same numbers all the way."""

import numpy as np
import pytest
import torch

from common.masking import MaskerInfo
from common.views import channels_first, side_by_side, stacked_shape, view_count
from samg.baselines import GroundTruthMasker
from tests.support.fake_env import FakeVectorEnv, PixelFakeEnv
from wrappers import BatchMasker, FrameStack, MaskMemory, MaskObservation

VIEWS, SIZE = 3, 24


class Rows:
    """Keeps as many rows of a frame as its place in the batch says; counts its calls."""

    info = MaskerInfo("fake", "rows", "0")

    def __init__(self, every=1):
        self.every, self.calls = every, []

    def mask(self, frames, foreground=None):
        self.calls.append(tuple(frames.shape))
        self.last_empty = torch.arange(len(frames)) == 0
        self.last_points = torch.arange(len(frames)).float()[:, None, None].expand(-1, 1, 2)
        rows = torch.arange(frames.shape[1])
        return (rows[None] < torch.arange(len(frames))[:, None])[..., None].expand(frames.shape[:3])


def pictures(number):
    return np.random.default_rng(0).integers(1, 255, (number, VIEWS, 8, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize("batch_size", [None, 4])
def test_all_views_of_all_environments_are_one_batch(batch_size):
    masker, frames = Rows(), pictures(2)
    masked, found = BatchMasker(masker, batch_size=batch_size, keep_points=True)(frames, None)
    assert masker.calls == [((batch_size or 2) * VIEWS, 8, 8, 3)]
    for env in range(2):
        for view in range(VIEWS):
            kept = env * VIEWS + view
            assert np.array_equal(masked[env, view, :kept], frames[env, view, :kept])
            assert not masked[env, view, kept:].any()
            assert (
                found["mask"][env, view].any(1).sum() == kept
                and found["mask_points"][env, view, 0, 0] == kept
            )
    assert found["mask_empty"].tolist() == [[True, False, False], [False, False, False]]


def test_masks_of_all_views_are_used_again_together():
    masker, memories = Rows(every=2), [MaskMemory(), MaskMemory()]
    masking = BatchMasker(masker)
    first, again, third = (masking(pictures(2), None, memories)[1]["mask"] for _ in range(3))
    assert np.array_equal(first, again) and np.array_equal(first, third) and len(masker.calls) == 2
    assert MaskMemory.restored(memories[0].state_dict()).last["mask"].shape == (VIEWS, 8, 8)


def test_exact_masks_of_a_vector_and_of_a_single_environment():
    several = MaskObservation(FakeVectorEnv(2, views=VIEWS, foreground=True), GroundTruthMasker())
    observation, info = several.reset(seed=[1, 2])
    assert several.observation_space.contains(observation)
    assert observation["pixels"].shape == (2, VIEWS, SIZE, SIZE, 3) and info["mask"].shape == (
        2,
        VIEWS,
        SIZE,
        SIZE,
    )
    assert np.array_equal(info["mask"], info["foreground"]) and info["mask_empty"].shape == (2, VIEWS)
    single = MaskObservation(PixelFakeEnv(views=VIEWS, foreground=True), GroundTruthMasker())
    alone, _ = single.reset(seed=1)
    assert single.observation_space.contains(alone)
    assert np.array_equal(alone["pixels"], observation["pixels"][0])
    assert not np.array_equal(alone["pixels"][0], alone["pixels"][1])


def test_moments_are_stacked_after_cameras_and_colours():
    frames = np.arange(2 * VIEWS * 3, dtype=np.uint8).reshape(2, VIEWS, 1, 1, 3)
    stack = FrameStack(2, 1, (VIEWS, 1, 1, 3))
    stack.reset(frames[:1])
    assert stack.push(frames[1:]).ravel().tolist() == list(range(18))
    with pytest.raises(ValueError, match=r"expected uint8 \(1, 3, 1, 1, 3\)"):
        stack.push(frames[1:, 0])


def test_shapes_of_one_and_of_several_cameras():
    assert view_count((4, 5, 3)) == 1 and view_count((2, 4, 5, 3)) == 2
    assert stacked_shape((4, 5, 3)) == (3, 4, 5) and stacked_shape((2, 4, 5, 3)) == (6, 4, 5)
    with pytest.raises(ValueError, match="expected the shape"):
        view_count((4, 5))
    frames = pictures(2)
    joined = channels_first(frames, several=True)
    assert joined.shape == (2, 9, 8, 8) and np.array_equal(joined[1, 5], frames[1, 1, ..., 2])
    assert np.array_equal(channels_first(frames[:, 0], several=False)[1, 2], frames[1, 0, ..., 2])
    row = side_by_side(frames[0])
    assert row.shape == (8, 24, 3) and np.array_equal(row[:, 8:16], frames[0, 1])


def test_a_frame_on_which_a_masker_fails_is_kept_with_all_its_views(tmp_path):
    class Broken(Rows):
        def mask(self, frames, foreground=None):
            if (frames == 255).any():
                raise RuntimeError("no")
            return super().mask(frames)

    frames = pictures(2)
    frames[1, 2] = 255
    with pytest.raises(Exception, match="failed on frame 3 of this process"):
        BatchMasker(Broken(), keep_failed=tmp_path)(frames, None)
    from PIL import Image

    with Image.open(tmp_path / "masker_failed_on_frame_3.png") as picture:
        assert np.array_equal(np.asarray(picture), side_by_side(frames[1]))
