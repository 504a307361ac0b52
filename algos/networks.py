"""Networks of DrQ-v2: a small convolutional encoder, a policy and two Q functions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


def initialise(module: nn.Module) -> None:
    """Initialise one layer as DrQ-v2 does: orthogonal weights, zero biases; use with ``Module.apply``."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        gain = math.sqrt(2) if isinstance(module, nn.Conv2d) else 1.0
        nn.init.orthogonal_(module.weight, gain)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Return a perceptron with two hidden layers."""
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, outputs),
    )


def trunk(repr_dim: int, feature_dim: int) -> nn.Sequential:
    """Return the bottleneck between the encoder and a head."""
    return nn.Sequential(nn.Linear(repr_dim, feature_dim), nn.LayerNorm(feature_dim), nn.Tanh())


@torch.no_grad()
def output_dim(network: nn.Module, obs_shape: Sequence[int]) -> int:
    """Return the length of the vector ``network`` makes of one observation, by a dry run on zeros."""
    return int(network(torch.zeros(1, *obs_shape)).shape[-1])


class Encoder(nn.Module):
    """Four 3x3 convolutions, the first with stride 2.

    Source: DrQ-v2's code; (9, 84, 84) gives 32 * 35 * 35 = 39,200 features.

    Args:
        obs_shape: (C, H, W) of the stacked observation.
    """

    def __init__(self, obs_shape: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(obs_shape[0], 32, 3, stride=2), nn.ReLU(inplace=True)]
        for _ in range(3):
            layers += [nn.Conv2d(32, 32, 3), nn.ReLU(inplace=True)]
        self.convnet = nn.Sequential(*layers)
        self.apply(initialise)
        self.repr_dim = output_dim(self, obs_shape)

    def forward(self, obs: Tensor) -> Tensor:
        """Return float32 (N, repr_dim) features of (N, C, H, W) observations in [0, 255], any dtype."""
        return self.convnet(obs.float() / 255.0 - 0.5).flatten(1)


class Actor(nn.Module):
    """The policy's mean.

    Args:
        repr_dim: length of the encoder's output.
        action_dim: length of an action.
        feature_dim: width of the bottleneck.
        hidden_dim: width of the hidden layers.
    """

    def __init__(self, repr_dim: int, action_dim: int, feature_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.trunk = trunk(repr_dim, feature_dim)
        self.policy = mlp(feature_dim, hidden_dim, action_dim)
        self.apply(initialise)

    def forward(self, features: Tensor) -> Tensor:
        """Return float32 (N, A) means in [-1, 1] for (N, repr_dim) features."""
        return torch.tanh(self.policy(self.trunk(features)))


class Critic(nn.Module):
    """Two Q functions on one bottleneck; arguments as for ``Actor``."""

    def __init__(self, repr_dim: int, action_dim: int, feature_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.trunk = trunk(repr_dim, feature_dim)
        self.q1 = mlp(feature_dim + action_dim, hidden_dim, 1)
        self.q2 = mlp(feature_dim + action_dim, hidden_dim, 1)
        self.apply(initialise)

    def forward(self, features: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Return both values, float32 (N, 1) each, of (N, A) actions at (N, repr_dim) features."""
        inputs = torch.cat([self.trunk(features), action], dim=-1)
        return self.q1(inputs), self.q2(inputs)


@torch.no_grad()
def soft_update(network: nn.Module, target: nn.Module, tau: float) -> None:
    """Move ``target``'s parameters a fraction ``tau`` of the way to those of ``network``."""
    average = get_ema_multi_avg_fn(1.0 - tau)
    average(list(target.parameters()), list(network.parameters()), None)
