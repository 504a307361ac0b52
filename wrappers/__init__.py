"""Wrappers that know no simulator: masked observations and stacked frames."""

from wrappers.frame_stack import FrameStack
from wrappers.masking import BatchMasker, MaskObservation, MaskSingle, MaskVector

__all__ = ["BatchMasker", "FrameStack", "MaskObservation", "MaskSingle", "MaskVector"]
