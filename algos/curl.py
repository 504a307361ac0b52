"""CURL (Laskin et al. 2020, "Contrastive Unsupervised Representations for Reinforcement Learning")."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from algos.agent import Batch
from algos.drqv2 import DrQV2Agent, Metrics
from algos.networks import ProjectedEncoder, soft_update
from algos.options import check_number


class BilinearSimilarity(nn.Module):
    """q^T W k of every pair of a query and a key; W starts uniform in [0, 1).

    Args:
        repr_dim: length of queries and keys.
    """

    def __init__(self, repr_dim: int) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.rand(repr_dim, repr_dim))

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Return float32 (N, N): entry (i, j) compares query i with key j, both (N, repr_dim)."""
        with torch.autocast(
            queries.device.type, enabled=False
        ):  # the products are large, their differences not
            return queries.float() @ self.W @ keys.float().T


class CURLAgent(DrQV2Agent):
    """DrQ-v2 whose encoder also learns to tell two shifts of one observation from those of others.

    InfoNCE over the batch: the key of the same observation is the positive, all other keys are negatives.
    The learner below is DrQ-v2's instead of the paper's SAC, with 512 features as in RL-ViGen's code.

    Args:
        aux_lr: learning rate of the contrastive loss.
        aux_beta: decay of the first moment of its optimiser, which moves W and the encoder.
        momentum_encoder: keys come from an average of the encoder over updates, as in the paper; without,
            from the encoder itself without gradient, as in RL-ViGen's code.
        encoder_tau: fraction by which that average follows the encoder at each update.
        shared_optimizer: move the encoder down both losses by one optimiser, as RL-ViGen's code does; the
            contrastive loss, whose gradients are far larger at first, then rules the size of all its steps.
            CURL's own code gives each loss an optimiser of its own.
        options: see ``DrQV2Agent``.

    Metrics beside DrQ-v2's: ``curl_loss``; ``curl_accuracy``, the share of queries nearest to their own key.
    """

    def __init__(
        self,
        *args: Any,
        aux_lr: float = 1e-4,
        aux_beta: float = 0.99,
        momentum_encoder: bool = True,
        encoder_tau: float = 0.05,
        shared_optimizer: bool = False,
        **options: Any,
    ) -> None:
        check_number("aux_lr", aux_lr, 0, ends="(]")
        check_number("aux_beta", aux_beta, 0, 1, "[)")
        check_number("encoder_tau", encoder_tau, 0, 1, "(]")
        self.aux_lr, self.aux_beta = aux_lr, aux_beta
        self.momentum_encoder, self.encoder_tau = momentum_encoder, encoder_tau
        self.shared_optimizer = shared_optimizer
        super().__init__(*args, **options)

    def build_encoder(self) -> nn.Module:
        """Return the encoder with 512 features."""
        return ProjectedEncoder(self.obs_shape)

    def build_networks(self) -> None:
        """Make DrQ-v2's networks, W and the encoder of the keys."""
        super().build_networks()
        self.similarity = BilinearSimilarity(int(self.encoder.repr_dim))  # type: ignore[arg-type]
        self.key_encoder = self.encoder
        if self.momentum_encoder:
            self.key_encoder = copy.deepcopy(self.encoder).requires_grad_(False)

    def build_optimizers(self) -> None:
        """Make DrQ-v2's optimisers and that of the contrastive loss."""
        super().build_optimizers()
        own = [self.similarity] if self.shared_optimizer else [self.encoder, self.similarity]
        self.curl_opt = self.adam(*own, lr=self.aux_lr, beta=self.aux_beta)

    def networks(self) -> dict[str, nn.Module]:
        """Return all networks by name."""
        slow = {"key_encoder": self.key_encoder} if self.momentum_encoder else {}
        return {**super().networks(), "similarity": self.similarity, **slow}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return all optimisers by name."""
        return {**super().optimizers(), "curl": self.curl_opt}

    def update_auxiliary(self, batch: Batch, obs: Tensor) -> Metrics:
        """Take a step of encoder and W down InfoNCE, and let the keys' encoder follow."""
        queries = self.encoder(self.augment(batch.obs))
        with torch.no_grad():
            keys = self.key_encoder(self.augment(batch.obs))
        logits = self.similarity(queries, keys)
        own = torch.arange(len(logits), device=self.device)
        loss = F.cross_entropy(logits, own)
        self.minimise(loss, self.curl_opt, *([self.encoder_opt] if self.shared_optimizer else []))
        if self.momentum_encoder:
            soft_update(self.encoder, self.key_encoder, self.encoder_tau)
        accuracy = (logits.detach().argmax(1) == own).float().mean()
        return {"curl_loss": loss.detach(), "curl_accuracy": accuracy}
