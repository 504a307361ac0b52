"""SGQN (Bertoin et al. 2022, "Look where you look! Saliency-guided Q-networks")."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from algos.agent import Batch
from algos.drqv2 import Metrics, squared_error
from algos.networks import ProjectedEncoder
from algos.options import check_number
from algos.overlays import OverlayAgent
from algos.saliency import AttributionDecoder, guided_saliency, saliency_mask


class SGQNAgent(OverlayAgent):
    """DrQ-v2 whose values should depend on the most salient pixels only, and whose features tell which.

    The critic's loss gains ``consistency_weight`` times the squared distance between the values of an
    observation and of the same one with all other pixels set to one random grey (gradients go through both).
    An auxiliary loss lets a decoder predict the salient pixels from an overlaid observation, which also
    trains the encoder. The learner below is DrQ-v2's instead of the paper's SAC.

    Args:
        sgqn_quantile: share of the pixels that are not salient.
        consistency_weight: RL-ViGen's code has 0.9, the authors' 0.5.
        aux_lr: learning rate of the auxiliary loss.
        aux_beta: decay of the first moment of its optimiser.
        options: see ``OverlayAgent`` and ``DrQV2Agent``.

    Metrics beside DrQ-v2's: ``consistency_loss``, before weighting; ``aux_loss``, binary cross-entropy of the
    decoder; ``aux_recall``, the share of the salient pixels that it finds.
    """

    def __init__(
        self,
        *args: Any,
        sgqn_quantile: float = 0.93,
        consistency_weight: float = 0.9,
        aux_lr: float = 1e-4,
        aux_beta: float = 0.99,
        **options: Any,
    ) -> None:
        check_number("sgqn_quantile", sgqn_quantile, 0, 1, "()")
        check_number("consistency_weight", consistency_weight, 0)
        check_number("aux_lr", aux_lr, 0, ends="(]")
        check_number("aux_beta", aux_beta, 0, 1, "[)")
        self.quantile, self.consistency_weight = sgqn_quantile, consistency_weight
        self.aux_lr, self.aux_beta = aux_lr, aux_beta
        super().__init__(*args, **options)

    def build_encoder(self) -> nn.Module:
        """Return the encoder with 512 features."""
        return ProjectedEncoder(self.obs_shape)

    def build_networks(self) -> None:
        """Make DrQ-v2's networks and the decoder."""
        super().build_networks()
        inputs = int(self.encoder.repr_dim) + self.action_dim  # type: ignore[arg-type]
        self.decoder = AttributionDecoder(self.obs_shape, inputs)

    def build_optimizers(self) -> None:
        """Make DrQ-v2's optimisers and the auxiliary one, which moves the encoder too."""
        super().build_optimizers()
        self.aux_opt = self.adam(self.encoder, self.decoder, lr=self.aux_lr, beta=self.aux_beta)

    def networks(self) -> dict[str, nn.Module]:
        """Return all networks by name."""
        return {**super().networks(), "decoder": self.decoder}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return all optimisers by name."""
        return {**super().optimizers(), "aux": self.aux_opt}

    def augment(self, obs: Tensor) -> Tensor:
        """Return what is learned from, float32 (N, C, H, W): values have gradients with respect to it."""
        return super().augment(obs).float()

    def salient(self, obs: Tensor, action: Tensor, state: Tensor | None = None) -> Tensor:
        """Return bool (N, C, H, W): the pixels on which the value of ``action`` depends most."""
        with self.numerics.eager():  # guided backpropagation changes the backward pass of the layers
            saliency = guided_saliency(self.encoder, self.critic, obs, action, state)
        return saliency_mask(saliency, self.quantile)

    def critic_loss(
        self, batch: Batch, obs: Tensor, values: tuple[Tensor, Tensor], target_q: Tensor
    ) -> tuple[Tensor, Metrics]:
        """Return DrQ-v2's loss plus the weighted consistency; see ``DrQV2Agent``."""
        loss, metrics = super().critic_loss(batch, obs, values, target_q)
        share = torch.rand((), generator=self.generators["update"], device=self.device)
        grey = torch.lerp(obs.min(), obs.max(), share)
        masked = torch.where(self.salient(obs, batch.action, batch.state), obs, grey)
        consistency = squared_error(values, self.critic(self.features(masked, batch.state), batch.action))
        metrics |= {"consistency_loss": consistency.detach()}
        return loss + self.consistency_weight * consistency, metrics

    def update_auxiliary(self, batch: Batch, obs: Tensor) -> Metrics:
        """Take a step of encoder and decoder towards predicting the salient pixels of the new critic."""
        mask = self.salient(obs, batch.action, batch.state)
        logits = self.decoder(self.encoder(self.overlay(obs)), batch.action)
        loss = F.binary_cross_entropy_with_logits(logits, mask.float())
        self.minimise(loss, self.aux_opt)
        recall = ((logits.detach() > 0) & mask).sum() / mask.sum()
        return {"aux_loss": loss.detach(), "aux_recall": recall}
