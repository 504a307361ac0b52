"""Which pixels a value depends on: guided backpropagation, masks of the most salient, their prediction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from algos.networks import beside


@contextmanager
def guided_relu(*networks: nn.Module) -> Iterator[None]:
    """Let only positive gradients pass the ReLUs of ``networks`` in forward passes made inside.

    Source: guided backpropagation (Springenberg et al. 2015).
    """

    def keep_positive(module: nn.Module, inputs: Any, output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(lambda gradient: gradient.clamp(min=0))

    found = [layer for network in networks for layer in network.modules() if isinstance(layer, nn.ReLU)]
    handles = [layer.register_forward_hook(keep_positive) for layer in found]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def guided_saliency(
    encoder: nn.Module, critic: nn.Module, obs: Tensor, action: Tensor, state: Tensor | None = None
) -> Tensor:
    """Return the guided gradient of the first Q value with respect to the pixels.

    No parameter's gradient is touched.

    Args:
        encoder: observations to features.
        critic: features and actions to two values.
        obs: float32 (N, C, H, W).
        action: float32 (N, A).
        state: float32 (N, S), what the critic reads beside the features; None where there is none.

    Returns:
        float32 (N, C, H, W).
    """
    pixels = obs.detach().requires_grad_()
    with torch.enable_grad(), guided_relu(encoder, critic):
        value, _ = critic(beside(encoder(pixels), state), action)
        return torch.autograd.grad(value.sum(), pixels)[0]


def saliency_mask(saliency: Tensor, quantile: float) -> Tensor:
    """Return the most salient pixels of each frame.

    Args:
        saliency: float32 (N, 3 * k, H, W), of k stacked frames.
        quantile: share of the pixels below the threshold; a pixel counts by its largest channel.

    Returns:
        bool (N, 3 * k, H, W), the same for the three channels of a frame.
    """
    strength = saliency.unflatten(1, (-1, 3)).abs().amax(2)
    # Frame by frame, because torch.quantile refuses more than 16 million values.
    limits = [torch.quantile(frame.flatten(1), quantile, dim=1) for frame in strength.unbind(1)]
    mask = strength >= torch.stack(limits, 1)[..., None, None]
    return mask.repeat_interleave(3, dim=1)


class AttributionDecoder(nn.Module):
    """Predicts from features and action which pixels are salient.

    Source: SGQN's code; PyTorch's own initialisation. Of (9, 84, 84): a linear layer to 32 x 21 x 21, then
    convolutions to 128, 64 and 9 channels, doubling the size by repetition after the first two.

    Args:
        obs_shape: (C, H, W) of the stacked observation.
        inputs: length of the features and the action together.
    """

    def __init__(self, obs_shape: Sequence[int], inputs: int) -> None:
        super().__init__()
        channels, *size = obs_shape
        self.sizes = [[-(-length // part) for length in size] for part in (4, 2, 1)]
        self.proj = nn.Linear(inputs, 32 * self.sizes[0][0] * self.sizes[0][1])
        self.conv1 = nn.Conv2d(32, 128, 3, padding=1)
        self.conv2 = nn.Conv2d(128, 64, 3, padding=1)
        self.conv3 = nn.Conv2d(64, channels, 3, padding=1)

    def forward(self, features: Tensor, action: Tensor) -> Tensor:
        """Return logits float32 (N, C, H, W) for features (N, inputs - A) and actions (N, A)."""
        x = self.proj(torch.cat([features, action], dim=1)).unflatten(1, (32, *self.sizes[0]))
        x = F.interpolate(self.conv1(torch.relu(x)), size=self.sizes[1])
        x = F.interpolate(self.conv2(torch.relu(x)), size=self.sizes[2])
        return self.conv3(torch.relu(x))
