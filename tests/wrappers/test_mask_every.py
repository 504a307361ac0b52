"""Masks used again in between: counted from an episode's first frame, kept in its state, copied back once."""

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from common.masking import MaskerInfo
from tests.wrappers.test_mask_observation import SIZE, Counter
from wrappers import BatchMasker, MaskMemory, MaskObservation
from wrappers.batch_masker import to_host


class OneColumn:
    """Keeps the column that the frame's brightness names: a mask tells which frame it was made from."""

    info, every = MaskerInfo("fake", "fake", "0"), 3

    def __init__(self):
        self.calls = []

    def mask(self, frames, foreground=None):
        self.calls.append(len(frames))
        return torch.arange(SIZE) == (frames[:, :, :1, 0] % SIZE)


class Stateful(Counter):
    """Never ends, and has the ``state`` that snapshots keep."""

    def step(self, action):
        observation, reward, terminated, _, info = super().step(action)
        return observation, reward, terminated, False, info

    @property
    def state(self):
        return {"episode": self.episode, "steps": self.steps}

    @state.setter
    def state(self, value):
        self.episode, self.steps = value["episode"], value["steps"]


def vector(number=2):
    return MaskObservation(
        SyncVectorEnv([Stateful] * number, autoreset_mode=AutoresetMode.DISABLED), OneColumn()
    )


def columns(info):
    """The column that each mask keeps."""
    return info["mask"].any(axis=1).argmax(1).tolist()


STILL = np.zeros((2, 1), np.float32)


def test_every_third_frame_of_an_episode_is_masked_and_an_episode_begins_anew():
    env = vector()
    seen = [columns(env.reset()[1])]
    seen += [columns(env.step(STILL)[-1]) for _ in range(4)]
    assert seen == [[1, 1], [1, 1], [1, 1], [4, 4], [4, 4]]
    assert env._masking._masker.calls == [2, 2]
    env.set_attr("episode", [1, 1])
    _, info = env.reset(options={"reset_mask": np.array([False, True])})
    assert columns(info) == [4, 11 % SIZE] and env._masking._masker.calls == [2, 2, 1]
    frames, *_, info = env.step(STILL)
    assert columns(info) == [4, 11 % SIZE]
    shown = frames["pixels"][..., 0].max(axis=(1, 2)).tolist()
    assert shown == [16, 12], "the newest frames under the last masks"


def test_a_saved_state_goes_on_with_the_same_masks():
    env, other = vector(), vector()
    env.reset()
    env.step(STILL)
    other.set_attr("state", env.get_attr("state"))
    other.mask_memory = env.mask_memory
    for _ in range(4):
        (frames, *_, info), (same, *_, same_info) = env.step(STILL), other.step(STILL)
        assert np.array_equal(frames["pixels"], same["pixels"])
        assert np.array_equal(info["mask"], same_info["mask"])


def test_without_reuse_there_is_nothing_to_remember():
    env = vector()
    env._masking.every = 1
    env.reset()
    assert env.mask_memory == [] and env.get_attr("state") == ({"episode": 0, "steps": 0},) * 2


def test_single_environment_begins_anew_too():
    env = MaskObservation(Counter(), OneColumn())
    for episode in (0, 1):
        env.episode = episode
        masks = [env.reset()[1]["mask"], env.step(STILL[0])[-1]["mask"]]
        assert [int(mask.any(axis=0).argmax()) for mask in masks] == [(10 * episode + 1) % SIZE] * 2


def test_a_loop_must_say_whose_frames_they_are():
    with pytest.raises(ValueError, match="expected 3, one per frame, got 0"):
        BatchMasker(OneColumn())(np.zeros((3, SIZE, SIZE, 3), np.uint8), None)
    masked, found = BatchMasker(OneColumn())(np.zeros((0, SIZE, SIZE, 3), np.uint8), None, [])
    assert len(masked) == len(found["mask"]) == 0


def test_memories_survive_a_round_trip():
    memory = MaskMemory()
    assert [memory.due(2) for _ in range(3)] == [True, False, True]
    memory.keep({"mask": np.eye(3, dtype=bool)}, 1)
    again = MaskMemory.restored(memory.state_dict())
    assert not again.due(2) and again.last["mask"].tolist() == [False, True, False]


def test_everything_comes_back_in_one_piece(monkeypatch):
    cpu, copied = torch.Tensor.cpu, []
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: copied.append(tensor.nbytes) or cpu(tensor))
    generator = torch.Generator().manual_seed(0)
    values = {
        "mask": torch.rand(3, 5, 7, generator=generator) > 0.5,
        "points": torch.rand(3, 2, 2, generator=generator)[:, :, :1],
        "soft": torch.rand(3, 5, generator=generator, dtype=torch.float64),
        "count": torch.arange(3),
        "nothing": torch.zeros(3, 0, 2),
    }
    found = to_host(values)
    assert copied == [sum(value.nbytes for value in values.values())]
    for name, value in values.items():
        assert np.array_equal(found[name], value.numpy()) and found[name].dtype == value.numpy().dtype
