"""DrQ-v2 (Yarats et al. 2021, "Mastering Visual Continuous Control"): DDPG on augmented pixels.

Other algorithms of this project are subclasses that override the step in which they differ: what is built
(``build_encoder``, ``build_actor``, ``build_networks``, ``build_optimizers``), how an observation is
augmented (``augment``), what is minimised (``target``, ``critic_loss``, ``update_actor``) or what is learned
beside it (``update_auxiliary``).
"""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from algos.agent import Batch, Rows
from algos.augmentations import crop_shift, random_shift
from algos.distributions import TruncatedNormal
from algos.networks import Actor, Critic, Encoder, beside, soft_update
from algos.numerics import AgentNumerics
from algos.recorded_update import RecordedUpdate
from algos.schedules import parse_schedule
from common.errors import SnapshotError
from common.seeding import derive_seed

Metrics = dict[str, Tensor]
_OWN = ("fused", "capturable")  # of an optimiser: how it computes, which another machine may do otherwise
log = logging.getLogger(__name__)


class DrQV2Agent:
    """Clipped double Q-learning with n-step targets, random shifts and a decaying exploration noise.

    All randomness comes from the agent's own generators, which are part of its state.

    Args:
        obs_shape: (C, H, W) of the stacked observation; the views of V cameras are channels like any others,
            C = 3 * k * V, and are augmented alike.
        action_shape: (A,).
        device: where networks live.
        lr: learning rate of the three Adam optimisers.
        feature_dim: width of the bottlenecks.
        hidden_dim: width of the hidden layers.
        critic_target_tau: fraction by which the target follows the critic at each update.
        num_expl_steps: decisions at the start that are uniformly random.
        update_every_steps: decisions per update; read by the training loop.
        stddev_schedule: exploration noise by decisions made (see ``algos.schedules``).
        stddev_clip: limit of the noise inside the updates.
        seed: seeds initialisation and generators.
        numerics: how updates are computed, fields of ``algos.numerics.AgentNumerics`` by name.
        state_dim: S of the proprioception that actor and critic read beside the image's features; 0: none.
        views: V, for encoders that compare moments.

    Metrics of ``update``: ``batch_reward`` and ``critic_target_q``, means over the batch of the n-step reward
    and of the target; ``critic_loss``, what critic and encoder minimised; ``critic_q1`` and ``critic_q2``,
    mean values of the actions taken; ``actor_loss``, minus the mean value of the policy's actions;
    ``actor_logprob``, their mean log density.

    Attributes:
        offline_updates: how often ``update_offline`` is to be called where there are demonstrations.
    """

    offline_updates = 0

    def __init__(
        self,
        obs_shape: Sequence[int],
        action_shape: Sequence[int],
        device: str | torch.device = "cpu",
        lr: float = 1e-4,
        feature_dim: int = 50,
        hidden_dim: int = 1024,
        critic_target_tau: float = 0.01,
        num_expl_steps: int = 2000,
        update_every_steps: int = 2,
        stddev_schedule: str | float = "linear(1.0,0.1,100000)",
        stddev_clip: float = 0.3,
        seed: int = 0,
        numerics: AgentNumerics | Mapping[str, Any] | None = None,
        state_dim: int = 0,
        views: int = 1,
    ) -> None:
        self.numerics = AgentNumerics.of(numerics).on(torch.device(device))
        self.obs_shape = tuple(obs_shape)
        self.action_dim, self.state_dim, self.views = int(action_shape[0]), state_dim, views
        self.device = torch.device(device)
        self.lr = lr
        self.feature_dim = feature_dim
        self.hidden_dim = hidden_dim
        self.critic_target_tau = critic_target_tau
        self.num_expl_steps = num_expl_steps
        self.update_every_steps = update_every_steps
        self.stddev_schedule = parse_schedule(stddev_schedule)
        self.stddev_clip = stddev_clip
        self.seed = seed
        self.generators = {name: torch.Generator(self.device) for name in ("act", "update")}
        for name, generator in self.generators.items():
            generator.manual_seed(derive_seed(seed, f"agent/{name}"))
        # Layers draw from the global generator when they are made: on the CPU, in a fork, from our seed.
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed, which would also seed the GPUs' generators, and for good.
            torch.default_generator.manual_seed(derive_seed(seed, "agent/init"))
            self.build_networks()
        for network in self.networks().values():
            network.to(self.device)
        self.numerics.apply(self.networks().values())
        self.build_optimizers()
        self._noise: Tensor | None = None  # the schedule's present value, while an update is recorded
        self._recorded: RecordedUpdate | None = None
        if self.numerics.cuda_graph:
            self._noise = torch.zeros((), device=self.device)
            learn = functools.partial(self._learn, step=0)  # only the noise depends on the step
            self._recorded = RecordedUpdate(learn, self.generators["update"], self.device)
        self.train(False)

    # What subclasses extend ------------------------------------------------------------------------------

    def build_networks(self) -> None:
        """Make the networks, on the CPU."""
        self.encoder = self.build_encoder()
        repr_dim = int(self.encoder.repr_dim) + self.state_dim  # type: ignore[arg-type]
        self.actor = self.build_actor(repr_dim)
        self.critic = Critic(repr_dim, self.action_dim, self.feature_dim, self.hidden_dim)
        self.critic_target = copy.deepcopy(self.critic).requires_grad_(False)

    def build_encoder(self) -> nn.Module:
        """Return the network that makes (N, ``repr_dim``) features of observations in [0, 255]."""
        return Encoder(self.obs_shape)

    def build_actor(self, repr_dim: int) -> nn.Module:
        """Return the network that ``policy`` reads; ``repr_dim`` counts the state too."""
        return Actor(repr_dim, self.action_dim, self.feature_dim, self.hidden_dim)

    def build_optimizers(self) -> None:
        """Make the optimisers; the encoder learns from the critic only."""
        self.encoder_opt = self.adam(self.encoder)
        self.actor_opt = self.adam(self.actor)
        self.critic_opt = self.adam(self.critic)

    def networks(self) -> dict[str, nn.Module]:
        """Return all networks by name."""
        return {
            "encoder": self.encoder,
            "actor": self.actor,
            "critic": self.critic,
            "critic_target": self.critic_target,
        }

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return all optimisers by name."""
        return {"encoder": self.encoder_opt, "actor": self.actor_opt, "critic": self.critic_opt}

    def shift(self, obs: Tensor) -> Tensor:
        """Return randomly shifted copies (N, C, H, W) of uint8 observations, uint8 or float32."""
        move = crop_shift if self.numerics.shift == "crop" else random_shift
        return move(obs, generator=self.generators["update"])

    def augment(self, obs: Tensor) -> Tensor:
        """Return what actor and critic learn from: uint8 or float32 (N, C, H, W) of uint8 observations."""
        return self.shift(obs)

    def update_offline(self, batch: Batch) -> Metrics:
        """Learn from one batch of demonstrations, before the first decision; here as from any other."""
        return self.update(batch, 0)

    def prepare(self) -> dict[str, Any]:
        """Load what learning needs and acting does not, and return what the run's record should say of it.

        To be called once before training starts, so that missing data are reported before any work; an
        evaluation need not call it. Calling it again changes nothing.
        """
        return {}

    def features(self, obs: Tensor, state: Tensor | None) -> Tensor:
        """Return what actor and critic read, float32 (N, repr_dim + S).

        Args:
            obs: (N, C, H, W) in [0, 255], any dtype.
            state: float32 (N, S), or anything where ``state_dim`` is 0.
        """
        return beside(self.encoder(obs), state if self.state_dim else None)

    # Acting ----------------------------------------------------------------------------------------------

    def policy(self, features: Tensor, step: int) -> TruncatedNormal:
        """Return the action distribution at ``features`` (as of that method) after ``step`` decisions."""
        return TruncatedNormal(self.actor(features), self.noise(step))

    def noise(self, step: int) -> float | Tensor:
        """Return what ``stddev`` says, as a tensor while an update is recorded: a replay reads it anew."""
        return self._noise if self._noise is not None and self.actor.training else self.stddev(step)

    def stddev(self, step: int) -> float:
        """Return the standard deviation of the policy after ``step`` decisions."""
        return self.stddev_schedule(step)

    @torch.inference_mode()
    def act(self, obs: Rows, step: int, eval_mode: bool, state: Rows | None = None) -> np.ndarray:
        """Return float32 (N, A) actions in [-1, 1]; see ``algos.agent.Agent.act``."""
        generator = self.generators["act"]
        if step < self.num_expl_steps and not eval_mode:
            uniform = torch.rand(len(obs), self.action_dim, generator=generator, device=self.device)
            return (2.0 * uniform - 1.0).cpu().numpy()
        with self.numerics.eager():  # numbers of observations vary: compiling for each would take minutes
            beside_it = torch.as_tensor(state, device=self.device) if self.state_dim else None
            policy = self.policy(self.features(torch.as_tensor(obs, device=self.device), beside_it), step)
        action = policy.mean if eval_mode else policy.sample(generator=generator)
        return action.cpu().numpy()

    # Learning --------------------------------------------------------------------------------------------

    def update(self, batch: Batch, step: int) -> Metrics:
        """Learn from one batch on the agent's device; ``step`` counts decisions made."""
        self.train(True)
        if self._recorded is None or self._noise is None:
            metrics = self._learn(batch, step)
        else:
            self._noise.fill_(self.stddev(step))
            metrics = self._recorded(batch)
        self.train(False)
        return metrics

    def _learn(self, batch: Batch, step: int) -> Metrics:
        """Take all steps of an update, in the chosen precision."""
        with self.numerics.autocast(self.device):
            return self._learn_from(batch, step)

    def _learn_from(self, batch: Batch, step: int) -> Metrics:
        obs = self.augment(batch.obs)
        features = self.features(obs, batch.state)
        target_q = self.target(batch, step)
        metrics = {"batch_reward": batch.reward.mean(), "critic_target_q": target_q.mean()}
        metrics |= self.update_critic(batch, obs, features, target_q)
        metrics |= self.update_actor(features.detach(), step, batch.action)
        metrics |= self.update_auxiliary(batch, obs)
        soft_update(self.critic, self.critic_target, self.critic_target_tau)
        return metrics

    @torch.no_grad()
    def target(self, batch: Batch, step: int) -> Tensor:
        """Return what the critic should say of the batch, (N, 1)."""
        next_features = self.features(self.augment(batch.next_obs), batch.next_state)
        return self.target_value(batch.reward, batch.discount, next_features, step)

    @torch.no_grad()
    def target_value(self, reward: Tensor, discount: Tensor, next_features: Tensor, step: int) -> Tensor:
        """Return the clipped double Q target (N, 1): n-step reward plus the discounted lesser value."""
        next_action = self.policy(next_features, step).sample(self.stddev_clip, self.generators["update"])
        return reward + discount * torch.min(*self.critic_target(next_features, next_action))

    def update_critic(self, batch: Batch, obs: Tensor, features: Tensor, target_q: Tensor) -> Metrics:
        """Take a step of critic and encoder down ``critic_loss``; arguments as there."""
        q1, q2 = self.critic(features, batch.action)
        loss, metrics = self.critic_loss(batch, obs, (q1, q2), target_q)
        self.minimise(loss, self.encoder_opt, self.critic_opt)
        values = {"critic_q1": q1.detach().mean(), "critic_q2": q2.detach().mean()}
        return {"critic_loss": loss.detach(), **values, **metrics}

    def critic_loss(
        self, batch: Batch, obs: Tensor, values: tuple[Tensor, Tensor], target_q: Tensor
    ) -> tuple[Tensor, Metrics]:
        """Return what critic and encoder minimise, and metrics of its parts.

        Args:
            batch: the batch as it was sampled.
            obs: float32 (N, C, H, W), its observations as ``augment`` returned them.
            values: both values (N, 1) of the batch's actions there.
            target_q: (N, 1), without gradient.
        """
        return squared_error(values, target_q), {}

    def update_actor(self, features: Tensor, step: int, taken: Tensor | None = None) -> Metrics:
        """Move the actor towards actions of greater value.

        Args:
            features: as of the method ``features``, without gradient.
            step: decisions made.
            taken: float32 (N, A), the batch's actions, for agents that imitate them.
        """
        policy = self.policy(features, step)
        action = policy.sample(self.stddev_clip, self.generators["update"])
        loss = -torch.min(*self.critic(features, action)).mean()
        self.minimise(loss, self.actor_opt)
        log_prob = policy.log_prob(action).sum(-1).mean()
        return {"actor_loss": loss.detach(), "actor_logprob": log_prob.detach()}

    def update_auxiliary(self, batch: Batch, obs: Tensor) -> Metrics:
        """Learn what is neither critic nor actor (here nothing); ``obs`` as in ``critic_loss``."""
        return {}

    def minimise(self, loss: Tensor, *optimizers: torch.optim.Optimizer) -> None:
        """Take one step of each optimiser down the gradient of ``loss``; other gradients are not computed."""
        moved = [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward(inputs=moved)
        for optimizer in optimizers:
            optimizer.step()

    def adam(self, *networks: nn.Module, lr: float | None = None, beta: float = 0.9) -> torch.optim.Adam:
        """Return an optimiser over the trainable parameters of ``networks``.

        Args:
            networks: what it moves.
            lr: learning rate; None: the agent's.
            beta: decay of the first moment.
        """
        parameters = [p for network in networks for p in network.parameters() if p.requires_grad]
        return torch.optim.Adam(
            parameters,
            lr or self.lr,
            betas=(beta, 0.999),
            fused=self.device.type in ("cpu", "cuda"),  # one pass over the parameters instead of ten
            capturable=self.numerics.cuda_graph,
        )

    def train(self, training: bool) -> None:
        """Set the mode of all networks; they are in training mode inside ``update`` only."""
        for network in self.networks().values():
            network.train(training)

    # State -----------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return ``networks``, ``optimizers`` and ``generators``, each by name."""
        return {
            "networks": {name: network.state_dict() for name, network in self.networks().items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers().items()},
            "generators": {name: generator.get_state() for name, generator in self.generators.items()},
        }

    def load_networks(self, networks: dict[str, Any]) -> None:
        """Restore the networks only.

        Raises:
            SnapshotError: names or shapes differ: they are those of another agent.
        """
        for name, network in self.networks().items():
            _check_same_agent(type(self).__name__, name, network.state_dict(), networks.get(name))
        if unknown := networks.keys() - self.networks().keys():
            raise _another_agent(type(self).__name__, f"it has no network '{min(unknown)}'")
        for name, network in self.networks().items():
            network.load_state_dict(networks[name])

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore networks, optimisers and generators."""
        self.load_networks(state["networks"])
        for name, optimizer in self.optimizers().items():
            own = [{key: group[key] for key in _OWN} for group in optimizer.param_groups]
            # PyTorch would share the moments with ``state``.
            optimizer.load_state_dict(copy.deepcopy(state["optimizers"][name]))
            for group, kept in zip(optimizer.param_groups, own, strict=True):
                group.update(kept)
        if self._recorded is not None:
            self._recorded.forget()
        for name, generator in self.generators.items():
            saved = state["generators"][name]
            if saved.shape == generator.get_state().shape:
                generator.set_state(saved)
            else:  # generators of different device types have different states
                log.warning("The run moved to another kind of device; its '%s' noise starts anew.", name)


def squared_error(values: tuple[Tensor, Tensor], target: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    """Return the summed mean squared distances of two values (N, 1) to one target (N, 1) or to one each."""
    targets = target if isinstance(target, tuple) else (target, target)
    return F.mse_loss(values[0], targets[0]) + F.mse_loss(values[1], targets[1])


def _another_agent(agent: str, difference: str) -> SnapshotError:
    return SnapshotError(
        f"The saved networks are not those of {agent}: {difference}.",
        "Use the agent, task and sizes of the run they come from, or another run directory.",
    )


def _check_same_agent(agent: str, name: str, own: dict[str, Any], saved: dict[str, Any] | None) -> None:
    if saved is None:
        raise _another_agent(agent, f"'{name}' is missing")
    if own.keys() != saved.keys():
        raise _another_agent(agent, f"'{name}' has {min(own.keys() ^ saved.keys())} in one of them only")
    for key, value in own.items():
        if value.shape != saved[key].shape:
            shapes = f"{tuple(saved[key].shape)} instead of {tuple(value.shape)}"
            raise _another_agent(agent, f"'{name}.{key}' is {shapes}")
