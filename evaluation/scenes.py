"""Masked frames of a live environment, for pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from common.masking import ObservationMasker, apply_mask
from common.seeding import counter_rng
from evaluation.mask_quality import frame_quality
from evaluation.pictures import Scene, explain_frame


def random_scenes(env: Any, masker: ObservationMasker, count: int, every: int, seed: int) -> list[Scene]:
    """Mask frames of one episode of uniform random actions.

    Args:
        env: gives ``info["foreground"]``.
        masker: masks the frames.
        count: how many frames at most; fewer when the episode ends before.
        every: agent steps between two of them.
        seed: of physics and actions.
    """
    generator, scenes = counter_rng(seed, "visualize"), []
    obs, info = env.reset(seed=seed)
    for step in range(1 + (count - 1) * every):
        if step % every == 0:
            scenes.append(masked_scene(f"step {step}", masker, obs["pixels"], info["foreground"]))
        action = generator.uniform(env.action_space.low, env.action_space.high)
        obs, _, terminated, truncated, info = env.step(action.astype(np.float32))
        if terminated or truncated:
            break
    return scenes


def masked_scene(title: str, masker: ObservationMasker, frame: np.ndarray, foreground: np.ndarray) -> Scene:
    """Return everything about one frame, uint8 (H, W, 3), with its foreground, bool (H, W)."""
    batch = torch.from_numpy(frame.copy())[None]
    soft = masker.mask(batch, foreground=torch.from_numpy(foreground)[None])
    masked = apply_mask(batch, soft)[0].numpy()
    mask = soft[0].numpy() >= 0.5
    note = f"IoU {frame_quality(mask, foreground)[0]:.2f}"
    return Scene(title, frame, mask, masked, explain_frame(masker, frame), note)
