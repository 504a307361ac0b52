"""Networks that the agents share: convolutional encoders, a policy and two Q functions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from algos.numerics import ImageNetwork, centred
from common.errors import ConfigError


def initialise(module: nn.Module) -> None:
    """Initialise one layer as DrQ-v2 does: orthogonal weights, zero biases; use with ``Module.apply``."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        gain = math.sqrt(2) if isinstance(module, nn.Conv2d) else 1.0
        nn.init.orthogonal_(module.weight, gain)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class Perceptron(nn.Sequential):
    """Two hidden layers and an output in float32, whatever the others are computed in.

    Values differ by far less than they measure: in bfloat16 a value of 100 could only move by 0.5.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__(
            nn.Linear(inputs, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, outputs),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Return float32 (N, outputs) for (N, inputs)."""
        *hidden, last = self
        for layer in hidden:
            inputs = layer(inputs)
        with torch.autocast(inputs.device.type, enabled=False):
            return last(inputs.float())


def trunk(repr_dim: int, feature_dim: int) -> nn.Sequential:
    """Return the bottleneck between the encoder and a head."""
    return nn.Sequential(nn.Linear(repr_dim, feature_dim), nn.LayerNorm(feature_dim), nn.Tanh())


@torch.no_grad()
def output_dim(network: nn.Module, obs_shape: Sequence[int]) -> int:
    """Return the length of the vector ``network`` makes of one observation, by a dry run on zeros."""
    return int(network(torch.zeros(1, *obs_shape)).shape[-1])


class Encoder(ImageNetwork):
    """3x3 convolutions of 32 channels, the first with stride 2, a ReLU after each.

    Of (9, 84, 84), DrQ-v2's four give 32 * 35 * 35 = 39,200 features and SVEA's eleven, of which the last has
    no ReLU, 32 * 21 * 21 = 14,112. Sources: DrQ-v2's code; SVEA (Hansen et al. 2021), appendix.

    Args:
        obs_shape: (C, H, W) of the stacked observation.
        layers: number of convolutions.
        last_relu: whether the last one has a ReLU.

    Raises:
        ConfigError: nothing would be left of so small a frame.
    """

    def __init__(self, obs_shape: Sequence[int], layers: int = 4, last_relu: bool = True) -> None:
        super().__init__()
        least = 4 * layers - 1
        if min(obs_shape[1:]) < least:
            raise ConfigError(
                f"Frames of {obs_shape[1]} x {obs_shape[2]} are too small for {layers} convolutions.",
                f"Use image_size={least} or more (the published size is 84).",
            )
        parts: list[nn.Module] = [nn.Conv2d(obs_shape[0], 32, 3, stride=2), nn.ReLU(inplace=True)]
        for _ in range(layers - 1):
            parts += [nn.Conv2d(32, 32, 3), nn.ReLU(inplace=True)]
        self.convnet = nn.Sequential(*parts[:-1])
        self.activation = parts[-1] if last_relu else nn.Identity()
        self.convnet.apply(initialise)
        self.repr_dim = output_dim(self, obs_shape)

    def forward(self, obs: Tensor) -> Tensor:
        """Return float32 (N, repr_dim) features of (N, C, H, W) observations in [0, 255], any dtype."""
        # Flat first, as the gradient will be: a ReLU between two layouts takes 15 times as long.
        return self.activation(self.convnet(centred(obs, self.channels_last)).flatten(1))


class ProjectedEncoder(nn.Module):
    """DrQ-v2's convolutions and a linear layer, as SGQN and CURL have them in RL-ViGen's code.

    Args:
        obs_shape: (C, H, W) of the stacked observation.
        repr_dim: length of the feature vector.
    """

    def __init__(self, obs_shape: Sequence[int], repr_dim: int = 512) -> None:
        super().__init__()
        self.convolutions = Encoder(obs_shape)
        self.projector = nn.Linear(self.convolutions.repr_dim, repr_dim)
        self.projector.apply(initialise)
        self.repr_dim = repr_dim

    def forward(self, obs: Tensor) -> Tensor:
        """Return float32 (N, repr_dim) features of (N, C, H, W) observations in [0, 255], any dtype."""
        return self.projector(self.convolutions(obs))


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
        self.policy = Perceptron(feature_dim, hidden_dim, action_dim)
        self.apply(initialise)

    def forward(self, features: Tensor) -> Tensor:
        """Return float32 (N, A) means in [-1, 1] for (N, repr_dim) features."""
        return torch.tanh(self.before_tanh(features))

    def before_tanh(self, features: Tensor) -> Tensor:
        """Return float32 (N, A), of which the means are the hyperbolic tangent."""
        return self.policy(self.trunk(features))


class StochasticActor(nn.Module):
    """Mean and standard deviation of SAC's policy, straight from the encoder's features, as DrQ has it.

    Args:
        repr_dim: length of the features.
        action_dim: length of an action.
        hidden_dim: width of the two hidden layers.
        log_std_bounds: smallest and largest logarithm of the standard deviation.
    """

    def __init__(
        self, repr_dim: int, action_dim: int, hidden_dim: int, log_std_bounds: tuple[float, float]
    ) -> None:
        super().__init__()
        self.log_std_bounds = log_std_bounds
        self.policy = Perceptron(repr_dim, hidden_dim, 2 * action_dim)
        self.apply(initialise)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return means before squashing and standard deviations, float32 (N, A) each."""
        mean, log_std = self.policy(features).chunk(2, dim=-1)
        low, high = self.log_std_bounds
        return mean, (low + 0.5 * (high - low) * (torch.tanh(log_std) + 1)).exp()


class Temperature(nn.Module):
    """The learned weight of the entropy, kept as its logarithm."""

    def __init__(self, initial: float) -> None:
        super().__init__()
        self.log_alpha = nn.Parameter(torch.tensor(math.log(initial)))

    def forward(self) -> Tensor:
        """Return alpha, a scalar."""
        return self.log_alpha.exp()


class Critic(nn.Module):
    """Two Q functions on one bottleneck; arguments as for ``Actor``."""

    def __init__(self, repr_dim: int, action_dim: int, feature_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.trunk = trunk(repr_dim, feature_dim)
        self.q1 = Perceptron(feature_dim + action_dim, hidden_dim, 1)
        self.q2 = Perceptron(feature_dim + action_dim, hidden_dim, 1)
        self.apply(initialise)

    def forward(self, features: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Return both values, float32 (N, 1) each, of (N, A) actions at (N, repr_dim) features."""
        inputs = torch.cat([self.trunk(features), action], dim=-1)
        return self.q1(inputs), self.q2(inputs)


def beside(features: Tensor, state: Tensor | None) -> Tensor:
    """Return float32 (N, R + S): features (N, R) of images with proprioception (N, S) beside them.

    Without a state (None, or S = 0) the features are returned as they are. Source: VRL3's code, where actor
    and critic begin with the two side by side.
    """
    return features if state is None or not state.shape[1] else torch.cat([features, state], dim=1)


@torch.no_grad()
def soft_update(network: nn.Module, target: nn.Module, tau: float) -> None:
    """Move ``target``'s parameters a fraction ``tau`` of the way to those of ``network``."""
    average = get_ema_multi_avg_fn(1.0 - tau)
    average(list(target.parameters()), list(network.parameters()), None)
