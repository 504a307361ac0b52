"""VRL3 (Wang et al. 2022, "VRL3: A Data-Driven Framework for Visual Deep Reinforcement Learning").

Three stages: an encoder that has seen images of anything, ``update_offline`` on demonstrations, and DrQ-v2
online with targets and actions kept from running away.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from algos.agent import Batch
from algos.distributions import TruncatedNormal
from algos.drqv2 import DrQV2Agent, Metrics
from algos.imagenet import RANDOM, find_weights
from algos.networks import Actor
from algos.options import check_count, check_number
from algos.resnet6 import ResNet6Encoder, resnet6
from algos.weight_files import check_state, read_state
from common.errors import ConfigError
from common.files import sha256_file

BC_PERIOD = 40_000  # decisions after which the weight of imitation decays once
_CURE = "Name a safetensors file of a ResNet6, or draw the weights: agent.encoder_weights=random."


def safe_target(target: Tensor, threshold: float, exponent: float) -> Tensor:
    """Return targets of which none runs away (VRL3, section 3.3).

    Args:
        target: float32 (N, 1).
        threshold: T; values above T + 1 become T + (value - T) ** exponent.
        exponent: 1 changes nothing, 0 cuts off at T + 1.
    """
    above = (target - threshold).clamp(min=1.0)  # a negative base would be no number, also where not chosen
    return torch.where(target > threshold + 1, threshold + above**exponent, target)


def conservative_loss(taken: Tensor, proposed: Tensor, temperature: float) -> Tensor:
    """Return how much more the values promise than those of the actions taken (CQL, Kumar et al. 2020).

    The mean over the batch of t * log(sum(exp(Q / t))) - Q(taken); the sum includes the action taken.

    Args:
        taken: float32 (N, 1), values of the batch's actions.
        proposed: float32 (N, K), values of other actions.
        temperature: t.
    """
    every = torch.cat([proposed, taken], dim=1)
    return (temperature * torch.logsumexp(every / temperature, dim=1) - taken.squeeze(1)).mean()


def pretanh_loss(raw: Tensor, threshold: float) -> Tensor:
    """Return the mean squared amount by which |raw|, (N, A), exceeds ``threshold``: tanh is flat there."""
    return F.relu(raw.abs() - threshold).square().mean()


class VRL3Agent(DrQV2Agent):
    """DrQ-v2 with a pretrained ResNet6, an offline stage, safe targets and a penalty on saturated actions.

    Args:
        encoder_weights: ``random`` or a file of ``algos.resnet6``; loaded by ``prepare``.
        encoder_lr_scale: the encoder's learning rate as a multiple of ``lr``.
        offline_updates: updates on the demonstrations before the first decision.
        offline_stddev: noise of the policy in these.
        offline_update_encoder: whether they move the encoder.
        offline_bc_weight: weight of imitation in them.
        cql_weight: weight of the conservative loss, which is theirs only.
        cql_temp: its temperature.
        cql_random_actions: how many random actions per observation it looks at, beside the policy's two.
        bc_weight: weight of imitation online, at first.
        bc_decay: what it is multiplied with after every 40,000 decisions.
        safe_q_threshold: see ``safe_target``.
        safe_q_exponent: see ``safe_target``.
        pretanh_threshold: see ``pretanh_loss``.
        pretanh_penalty: its weight.
        options: see ``DrQV2Agent``.

    Metrics beside DrQ-v2's, before weighting: ``conservative_loss`` of both critics, 0 online; ``bc_loss``,
    the mean squared distance from the batch's actions; ``pretanh_loss``. ``critic_loss`` and ``actor_loss``
    include them, weighted.
    """

    actor: Actor
    encoder: ResNet6Encoder

    def __init__(
        self,
        *args: Any,
        encoder_weights: str = RANDOM,
        encoder_lr_scale: float = 1.0,
        offline_updates: int = 30_000,
        offline_stddev: float = 0.1,
        offline_update_encoder: bool = True,
        offline_bc_weight: float = 0.0,
        cql_weight: float = 1.0,
        cql_temp: float = 1.0,
        cql_random_actions: int = 10,
        bc_weight: float = 0.0,
        bc_decay: float = 0.95,
        safe_q_threshold: float = 200.0,
        safe_q_exponent: float = 0.5,
        pretanh_threshold: float = 5.0,
        pretanh_penalty: float = 0.001,
        num_expl_steps: int = 0,
        stddev_schedule: str | float = 0.01,
        **options: Any,
    ) -> None:
        weights = {"cql_weight": cql_weight, "offline_bc_weight": offline_bc_weight, "bc_weight": bc_weight}
        sizes = {"offline_updates": offline_updates, "encoder_lr_scale": encoder_lr_scale}
        sizes |= {"offline_stddev": offline_stddev, "safe_q_threshold": safe_q_threshold}
        sizes |= {"pretanh_threshold": pretanh_threshold, "pretanh_penalty": pretanh_penalty}
        for name, value in {**weights, **sizes}.items():
            check_number(name, value, 0)
        check_number("cql_temp", cql_temp, 0, ends="(]")
        check_number("bc_decay", bc_decay, 0, 1)
        check_number("safe_q_exponent", safe_q_exponent, 0, 1)
        check_count("cql_random_actions", cql_random_actions)
        if encoder_weights == "imagenet":
            raise ConfigError("No published weights of ResNet6 are known by name.", _CURE)
        self.encoder_weights, self.encoder_lr_scale = encoder_weights, encoder_lr_scale
        self.offline_updates, self.offline_stddev = offline_updates, offline_stddev
        self.offline_update_encoder, self.offline_bc_weight = offline_update_encoder, offline_bc_weight
        self.cql_weight, self.cql_temp = cql_weight, cql_temp
        self.cql_random_actions = cql_random_actions
        self.bc_weight, self.bc_decay = bc_weight, bc_decay
        self.safe_q_threshold, self.safe_q_exponent = safe_q_threshold, safe_q_exponent
        self.pretanh_threshold, self.pretanh_penalty = pretanh_threshold, pretanh_penalty
        self.offline = False  # the stage of the update being made
        self._has_weights = encoder_weights == RANDOM
        options |= {"num_expl_steps": num_expl_steps, "stddev_schedule": stddev_schedule}
        super().__init__(*args, **options)
        self._bc = torch.zeros((), device=self.device)  # a tensor, because a recorded update reads it anew
        self._next_features = torch.empty(0)  # of the update being made

    def build_encoder(self) -> nn.Module:
        """Return the ResNet6 over stacked frames."""
        return ResNet6Encoder(self.obs_shape)

    def build_optimizers(self) -> None:
        """Make the optimisers; the encoder's learning rate is scaled."""
        super().build_optimizers()
        self.encoder_opt = self.adam(self.encoder, lr=self.lr * self.encoder_lr_scale)

    def prepare(self) -> dict[str, Any]:
        """Load the encoder's weights, unless they are drawn, and name them; see ``DrQV2Agent.prepare``.

        Raises:
            InputError: the file is missing, damaged or of another network.
        """
        path = find_weights(self.encoder_weights)
        if path is None:
            return {**super().prepare(), "encoder_weights": RANDOM, "encoder_seed": self.seed}
        if not self._has_weights:
            state = read_state(path, "ResNet6 weights", _CURE)
            with torch.device("meta"):
                expected = resnet6().state_dict()
            check_state(state, expected, path, "VRL3's ResNet6", _CURE)
            self.encoder.load_single(state)
            self._has_weights = True
        return {**super().prepare(), "encoder_weights": path.name, "encoder_sha256": sha256_file(path)}

    def load_networks(self, networks: dict[str, Any]) -> None:
        """Restore the networks, the encoder included; see ``DrQV2Agent.load_networks``."""
        super().load_networks(networks)
        self._has_weights = True

    # Stages ----------------------------------------------------------------------------------------------

    def update_offline(self, batch: Batch) -> Metrics:
        """Learn from one batch of demonstrations: DrQ-v2's update with the conservative loss."""
        return self._update_in(True, batch, 0)

    def update(self, batch: Batch, step: int) -> Metrics:
        """Learn from one batch online; ``step`` counts decisions made."""
        return self._update_in(False, batch, step)

    def _update_in(self, offline: bool, batch: Batch, step: int) -> Metrics:
        if offline != self.offline and self._recorded is not None:
            self._recorded.forget()  # the other stage computes something else
        self.offline = offline
        decayed = self.bc_weight * self.bc_decay ** (step // BC_PERIOD)
        self._bc.fill_(self.offline_bc_weight if offline else decayed)
        return super().update(batch, step)

    def stddev(self, step: int) -> float:
        """Return the policy's standard deviation; offline updates have one of their own."""
        return self.offline_stddev if self.offline and self.actor.training else super().stddev(step)

    # Learning --------------------------------------------------------------------------------------------

    @torch.no_grad()
    def target(self, batch: Batch, step: int) -> Tensor:
        """Return safe targets (N, 1); keeps the next features for the conservative loss of this update."""
        self._next_features = self.features(self.augment(batch.next_obs), batch.next_state)
        target = self.target_value(batch.reward, batch.discount, self._next_features, step)
        return safe_target(target, self.safe_q_threshold, self.safe_q_exponent)

    def update_critic(self, batch: Batch, obs: Tensor, features: Tensor, target_q: Tensor) -> Metrics:
        """Take a step of critic and, unless it is kept still, encoder; arguments as of ``DrQV2Agent``'s."""
        q1, q2 = self.critic(features, batch.action)
        loss, _ = self.critic_loss(batch, obs, (q1, q2), target_q)
        conservative = self.conservative(features, (q1, q2)) if self.offline else torch.zeros_like(loss)
        loss = loss + self.cql_weight * conservative
        still = self.offline and not self.offline_update_encoder
        self.minimise(loss, *([] if still else [self.encoder_opt]), self.critic_opt)
        values = {"critic_q1": q1.detach().mean(), "critic_q2": q2.detach().mean()}
        return {"critic_loss": loss.detach(), **values, "conservative_loss": conservative.detach()}

    def conservative(self, features: Tensor, values: tuple[Tensor, Tensor]) -> Tensor:
        """Return the conservative loss of both critics, before weighting.

        Args:
            features: as of the method ``features``.
            values: both values (N, 1) of the batch's actions there.
        """
        actions = self.proposals(features)
        count = actions.shape[1]
        proposed = self.critic(features.repeat_interleave(count, dim=0), actions.flatten(0, 1))
        pairs = zip(values, proposed, strict=True)
        losses = [conservative_loss(own, more.view(-1, count), self.cql_temp) for own, more in pairs]
        return losses[0] + losses[1]

    @torch.no_grad()
    def proposals(self, features: Tensor) -> Tensor:
        """Return float32 (N, K + 2, A): K uniform actions, the policy's here and at the next observation."""
        generator, number = self.generators["update"], len(features)
        shape = (number, self.cql_random_actions, self.action_dim)
        uniform = torch.rand(shape, generator=generator, device=self.device) * 2 - 1
        own = [
            self.policy(seen, 0).sample(self.stddev_clip, generator).unsqueeze(1)
            for seen in (features, self._next_features)
        ]
        return torch.cat([uniform, *own], dim=1)

    def update_actor(self, features: Tensor, step: int, taken: Tensor | None = None) -> Metrics:
        """Move the actor towards value, imitation and unsaturated actions; see ``DrQV2Agent``."""
        raw = self.actor.before_tanh(features)
        policy = TruncatedNormal(torch.tanh(raw), self.noise(step))
        action = policy.sample(self.stddev_clip, self.generators["update"])
        imitation = torch.zeros_like(self._bc) if taken is None else F.mse_loss(policy.mean, taken)
        saturation = pretanh_loss(raw, self.pretanh_threshold)
        value = torch.min(*self.critic(features, action)).mean()
        loss = self._bc * imitation + self.pretanh_penalty * saturation - value
        self.minimise(loss, self.actor_opt)
        log_prob = policy.log_prob(action).sum(-1).mean()
        metrics = {"actor_loss": loss, "actor_logprob": log_prob, "bc_loss": imitation}
        return {name: part.detach() for name, part in {**metrics, "pretanh_loss": saturation}.items()}
