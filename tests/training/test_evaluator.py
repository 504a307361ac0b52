"""The numbers of an evaluation during training."""

import pytest

from evaluation.evaluate import EpisodeResult
from training.evaluator import _numbers


def result(success):
    return EpisodeResult(
        episode=0,
        seed=0,
        episode_return=1.0,
        length=10,
        terminated=False,
        success=success,
        mask_iou=None,
        mask_recall=None,
        mask_precision=None,
        empty_share=0.0,
    )


@pytest.mark.parametrize(
    ("flags", "rate"), [((True, False, False, False), 0.25), ((True,), 1.0), ((None, None), None)]
)
def test_success_is_told_where_the_task_has_a_flag(flags, rate):
    assert _numbers([result(flag) for flag in flags]).get("success_rate") == rate
