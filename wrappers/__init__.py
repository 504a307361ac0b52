"""Wrappers that know no simulator: masked observations and stacked frames."""

from wrappers.batch_masker import BatchMasker, MaskMemory
from wrappers.frame_stack import FrameStack
from wrappers.masking import MaskObservation, MaskSingle, MaskVector

__all__ = ["BatchMasker", "FrameStack", "MaskMemory", "MaskObservation", "MaskSingle", "MaskVector"]
