"""DrQ (Kostrikov et al. 2020, "Image Augmentation Is All You Need"): SAC on several shifts of each image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from algos.agent import Batch
from algos.distributions import SquashedNormal
from algos.drqv2 import DrQV2Agent, Metrics, squared_error
from algos.networks import StochasticActor, Temperature
from algos.options import check_count, check_number
from common.errors import ConfigError


class DrQAgent(DrQV2Agent):
    """Soft actor-critic whose targets are means over K shifts and whose critic fits M shifts (algorithm 1).

    Encoder and critic are DrQ-v2's; the actor has no bottleneck, as in RL-ViGen's code. To be used with
    one-step returns. The noise schedule of DrQ-v2 has no effect.

    Args:
        init_temperature: weight of the entropy at the start; its target is minus the length of an action.
        log_std_bounds: limits of the logarithm of the policy's standard deviation.
        target_views: K.
        critic_views: M; the losses are summed.
        keep_original: leave the first view of each, which is also the actor's, unshifted, as RL-ViGen's code
            does; the paper shifts all.
        options: see ``DrQV2Agent``.

    Metrics beside DrQ-v2's: ``actor_entropy``, minus the mean log density of the policy's actions; ``alpha``
    and ``alpha_loss`` of the temperature. ``actor_loss`` includes the entropy.
    """

    def __init__(
        self,
        *args: Any,
        init_temperature: float = 0.1,
        log_std_bounds: Sequence[float] = (-10.0, 2.0),
        target_views: int = 2,
        critic_views: int = 2,
        keep_original: bool = False,
        **options: Any,
    ) -> None:
        check_number("init_temperature", init_temperature, 0, ends="(]")
        check_count("target_views", target_views)
        check_count("critic_views", critic_views)
        self.init_temperature = init_temperature
        self.log_std_bounds = _bounds(log_std_bounds)
        self.target_views, self.critic_views, self.keep_original = target_views, critic_views, keep_original
        super().__init__(*args, **options)

    def build_actor(self, repr_dim: int) -> nn.Module:
        """Return SAC's actor."""
        return StochasticActor(repr_dim, self.action_dim, self.hidden_dim, self.log_std_bounds)

    def build_networks(self) -> None:
        """Make encoder, actor, critics and the temperature."""
        super().build_networks()
        self.temperature = Temperature(self.init_temperature)

    def build_optimizers(self) -> None:
        """Make DrQ-v2's optimisers and the temperature's."""
        super().build_optimizers()
        self.temperature_opt = self.adam(self.temperature)

    def networks(self) -> dict[str, nn.Module]:
        """Return all networks by name."""
        return {**super().networks(), "temperature": self.temperature}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return all optimisers by name."""
        return {**super().optimizers(), "temperature": self.temperature_opt}

    def policy(self, features: Tensor, step: int) -> SquashedNormal:  # type: ignore[override]
        """Return the action distribution at (N, repr_dim) features; it does not depend on ``step``."""
        return SquashedNormal(*self.actor(features))

    def augment(self, obs: Tensor) -> Tensor:
        """Return the first view of uint8 observations, float32 (N, C, H, W)."""
        return obs.float() if self.keep_original else self.shift(obs)

    @torch.no_grad()
    def target(self, batch: Batch, step: int) -> Tensor:
        """Return the mean target (N, 1) over K views of the next observation, each with its own action."""
        views = [self.augment(batch.next_obs)]
        views += [self.shift(batch.next_obs) for _ in range(self.target_views - 1)]
        seen = [self.features(view, batch.next_state) for view in views]
        targets = [self.target_value(batch.reward, batch.discount, features, step) for features in seen]
        return torch.stack(targets).mean(0)

    @torch.no_grad()
    def target_value(self, reward: Tensor, discount: Tensor, next_features: Tensor, step: int) -> Tensor:
        """Return SAC's target (N, 1): the lesser value plus the entropy's share."""
        policy = self.policy(next_features, step)
        action, log_prob = policy.sample_with_log_prob(self.generators["update"])
        value = torch.min(*self.critic_target(next_features, action)) - self.temperature() * log_prob
        return reward + discount * value

    def critic_loss(
        self, batch: Batch, obs: Tensor, values: tuple[Tensor, Tensor], target_q: Tensor
    ) -> tuple[Tensor, Metrics]:
        """Return the loss summed over M views, all with the same target; see ``DrQV2Agent``."""
        loss, metrics = super().critic_loss(batch, obs, values, target_q)
        for _ in range(self.critic_views - 1):
            view = self.critic(self.features(self.shift(batch.obs), batch.state), batch.action)
            loss = loss + squared_error(view, target_q)
        return loss, metrics

    def update_actor(self, features: Tensor, step: int, taken: Tensor | None = None) -> Metrics:
        """Move the actor towards value and entropy, and the temperature towards the wanted entropy."""
        action, log_prob = self.policy(features, step).sample_with_log_prob(self.generators["update"])
        alpha = self.temperature()
        loss = (alpha.detach() * log_prob - torch.min(*self.critic(features, action))).mean()
        self.minimise(loss, self.actor_opt)
        wanted = -float(self.action_dim)
        alpha_loss = (alpha * (-log_prob.detach() - wanted)).mean()
        self.minimise(alpha_loss, self.temperature_opt)
        mean = log_prob.detach().mean()
        actor = {"actor_loss": loss.detach(), "actor_logprob": mean, "actor_entropy": -mean}
        return {**actor, "alpha": alpha.detach(), "alpha_loss": alpha_loss.detach()}


def _bounds(values: Any) -> tuple[float, float]:
    """Return ``log_std_bounds`` as numbers; raise ``ConfigError`` unless the first is below the second."""
    try:
        low, high = (float(value) for value in values)
    except (TypeError, ValueError):
        low = high = math.nan
    if not -math.inf < low < high < math.inf:
        raise ConfigError(f"log_std_bounds={values} is not possible.", "Use [smallest, largest].")
    return low, high
