"""Evaluation: episodes, statistics, result files, pictures and videos."""

from evaluation.evaluate import EpisodeResult, StepView, evaluate, random_policy_returns
from evaluation.results import EvaluationResult, load_result, save_result

__all__ = [
    "EpisodeResult",
    "EvaluationResult",
    "StepView",
    "evaluate",
    "load_result",
    "random_policy_returns",
    "save_result",
]
