"""VRL3's first stage: its encoder learns to tell classes of pictures apart (``pretrain_encoder.py``)."""
