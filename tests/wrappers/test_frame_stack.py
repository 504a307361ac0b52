"""Frame stacks against a plain list."""

import numpy as np
import pytest

from wrappers import FrameStack


def frames(step, number=3, shape=(5, 4, 3)):
    return np.random.default_rng(step).integers(0, 256, (number, *shape), np.uint8)


def test_stacks_equal_a_hand_written_list():
    stack, history = FrameStack(3, 3, (5, 4, 3)), [[], [], []]
    resets = {0: [True] * 3, 4: [False, True, False], 5: [True, False, True]}
    for step in range(9):
        new = frames(step)
        if step in resets:
            result = stack.reset(new, np.array(resets[step]))
            for row in np.flatnonzero(resets[step]):
                history[row] = [new[row]] * 3
        else:
            result = stack.push(new)
            for row in range(3):
                history[row] = [*history[row][1:], new[row]]
        expected = [np.concatenate([f.transpose(2, 0, 1) for f in h]) for h in history]
        assert result.dtype == np.uint8 and result.shape == (3, 9, 5, 4)
        assert np.array_equal(result, expected)


def test_results_and_snapshots_are_copies():
    stack = FrameStack(2, 1, (5, 4, 3))
    first = stack.reset(frames(0, 1))
    kept, before = stack.frames, first.copy()
    second = stack.push(frames(1, 1))
    assert np.array_equal(first, before) and not np.array_equal(first, second)
    other = FrameStack(2, 1, (5, 4, 3))
    other.frames = kept
    assert np.array_equal(other.push(frames(1, 1)), second)


@pytest.mark.parametrize(
    "call",
    [
        lambda stack: stack.push(np.zeros((2, 5, 4, 3), np.uint8)),
        lambda stack: stack.push(np.zeros((3, 5, 4, 3), np.float32)),
        lambda stack: stack.push(np.zeros((3, 3, 5, 4), np.uint8)),
        lambda stack: stack.reset(np.zeros((3, 5, 4, 3), np.uint8), np.ones(2, bool)),
        lambda stack: setattr(stack, "frames", np.zeros((3, 2, 3, 5, 4), np.uint8)),
        lambda stack: FrameStack(0, 1),
    ],
)
def test_wrong_shapes_are_refused(call):
    with pytest.raises(ValueError, match="expected"):
        call(FrameStack(3, 3, (5, 4, 3)))
