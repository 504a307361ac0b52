"""EfficientViT-SAM: image encoders, SAM's prompt encoder and mask decoder, batched and free of host waits."""

from efficientvit.backbone import VARIANTS
from efficientvit.decoder import SamOutput
from efficientvit.sam import EfficientViTSam, build_efficientvit_sam, upsample_logits

__all__ = ["VARIANTS", "EfficientViTSam", "SamOutput", "build_efficientvit_sam", "upsample_logits"]
