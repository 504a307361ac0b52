"""The only room that touches weight files: find, download, check, load and record them."""

from samg.weights.drawn import drawn_state
from samg.weights.hub import PathLike
from samg.weights.loading import (
    RELEASED,
    download_weights,
    find_paper_weights,
    load_paper_networks,
    random_paper_networks,
    verify_paper,
)
from samg.weights.record import WeightFile, WeightsRecord
from samg.weights.state import load_strictly, read_state

__all__ = [
    "RELEASED",
    "PathLike",
    "WeightFile",
    "WeightsRecord",
    "download_weights",
    "drawn_state",
    "find_paper_weights",
    "load_paper_networks",
    "load_strictly",
    "random_paper_networks",
    "read_state",
    "verify_paper",
]
