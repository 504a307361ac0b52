"""EfficientViT-SAM: image encoders, SAM's prompt encoder and mask decoder, batched and free of host waits."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from efficientvit.output import SamOutput

if TYPE_CHECKING:
    from efficientvit.backbone import VARIANTS
    from efficientvit.sam import EfficientViTSam, build_efficientvit_sam, upsample_logits

__all__ = ["VARIANTS", "EfficientViTSam", "SamOutput", "build_efficientvit_sam", "upsample_logits"]

# timm and segment-anything take seconds to import; only those who build the networks pay.
_LAZY = {
    "VARIANTS": "efficientvit.backbone",
    "EfficientViTSam": "efficientvit.sam",
    "build_efficientvit_sam": "efficientvit.sam",
    "upsample_logits": "efficientvit.sam",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'efficientvit' has no attribute '{name}'")
    return getattr(importlib.import_module(_LAZY[name]), name)
