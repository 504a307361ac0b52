"""ResNet6 with 32 channels, VRL3's encoder: pretrained on small images, moved by reinforcement learning."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from algos.numerics import ImageNetwork, centred

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's colours in [0, 1]
WIDTHS = (32, 64, 128, 256)


def _convolution(inputs: int, outputs: int, stride: int) -> list[tuple[str, nn.Module]]:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return [("conv", convolution), ("bn", nn.BatchNorm2d(outputs)), ("relu", nn.ReLU(inplace=True))]


def resnet6(channels: int = 3) -> nn.Sequential:
    """Return the network from normalised colours to features, with drawn weights.

    Five convolutions of 3 x 3, each with BatchNorm and ReLU: a stem with stride 2, then one for each of four
    stages, which halve the size from the second on, as in every ResNet; then the mean over all places.
    float32 (N, channels, H, W) to (N, 256). Source: VRL3 (Wang et al. 2022), stage 1.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["stem"] = nn.Sequential(OrderedDict(_convolution(channels, WIDTHS[0], 2)))
    inputs = WIDTHS[0]
    for number, width in enumerate(WIDTHS):
        stride = 1 if number == 0 else 2
        layers[f"layer{number + 1}"] = nn.Sequential(OrderedDict(_convolution(inputs, width, stride)))
        inputs = width
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flat"] = nn.Flatten()
    return nn.Sequential(layers)


def over_frames(state: Mapping[str, Tensor], frames: int) -> dict[str, Tensor]:
    """Return the weights for a stack of frames: the first convolution repeated, and divided by their number.

    A stack of one picture has the same features as the picture. Source: VRL3's code.

    Args:
        state: of ``resnet6``.
        frames: k.
    """
    wider = {"stem.conv.weight": state["stem.conv.weight"].repeat(1, frames, 1, 1) / frames}
    return {**state, **wider}


class ResNet6Encoder(ImageNetwork):
    """``resnet6`` over stacked frames.

    Args:
        obs_shape: (3 * k, H, W) of the stacked observation.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, obs_shape: Sequence[int]) -> None:
        super().__init__()
        self.frames = obs_shape[0] // 3
        self.convnet = resnet6(obs_shape[0])
        self.repr_dim = WIDTHS[-1]
        # What ``centred`` leaves is in [-0.5, 0.5]. Constants, hence no part of the state.
        self.register_buffer("mean", torch.tensor(MEAN * self.frames).view(-1, 1, 1) - 0.5, persistent=False)
        self.register_buffer("std", torch.tensor(STD * self.frames).view(-1, 1, 1), persistent=False)
        self.load_single(resnet6().state_dict())

    def load_single(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights of a ``resnet6``, which sees one picture."""
        self.convnet.load_state_dict(over_frames(state, self.frames))

    def forward(self, obs: Tensor) -> Tensor:
        """Return float32 (N, 256) features of (N, 3 * k, H, W) observations in [0, 255], any dtype."""
        return self.convnet((centred(obs, self.channels_last) - self.mean) / self.std)
