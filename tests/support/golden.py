"""The golden files and the networks they were computed with (weights drawn from their published names)."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np

from efficientvit import EfficientViTSam, build_efficientvit_sam
from samg.paper import PaperNetworks
from samg.weights import drawn_state, random_paper_networks

GOLDEN = Path(__file__).resolve().parent.parent / "golden"


@functools.cache
def arrays(name: str) -> dict[str, np.ndarray]:
    """Return the arrays of tests/golden/<name>.npz."""
    with np.load(GOLDEN / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


@functools.cache
def shapes(name: str) -> dict[str, dict[str, list[int]]]:
    """Return tests/golden/<name>.json."""
    return json.loads((GOLDEN / f"{name}.json").read_text())


def efficientvit_sam(name: str) -> EfficientViTSam:
    """Return an EfficientViT-SAM whose published state dict was filled as the golden files say."""
    model = build_efficientvit_sam(name)
    model.load_state_dict(drawn_state(shapes("efficientvit_sam_state_dict")[name]), strict=True)
    return model


@functools.lru_cache(maxsize=1)
def paper_networks() -> PaperNetworks:
    """Return L1 and ViT-B/14 as in samg_pipeline.npz; do not change them."""
    return random_paper_networks(seed=0)
