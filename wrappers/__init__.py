"""Wrappers that know no simulator: masked observations and stacked frames."""

from wrappers.frame_stack import FrameStack
from wrappers.masking import MaskObservation, MaskSingle, MaskVector

__all__ = ["FrameStack", "MaskObservation", "MaskSingle", "MaskVector"]
