"""SVEA (Hansen et al. 2021, "Stabilizing Deep Q-Learning with ConvNets and ViTs under Data Augmentation")."""

from __future__ import annotations

from torch import Tensor, nn

from algos.agent import Batch
from algos.drqv2 import Metrics, squared_error
from algos.networks import Encoder
from algos.overlays import OverlayAgent


class SVEAAgent(OverlayAgent):
    """DrQ-v2 whose critic fits shifted and overlaid observations half and half.

    The target is of shifted observations only, and so is the actor's loss (the paper's alpha = beta = 1/2).
    As in RL-ViGen's code, the learner below is DrQ-v2's DDPG instead of the paper's SAC, and the encoder is
    that of the paper's benchmark: eleven convolutions, 14,112 features of 84 x 84.

    Arguments: see ``OverlayAgent`` and ``DrQV2Agent``.

    Metrics beside DrQ-v2's: ``critic_loss_clean`` and ``critic_loss_overlay``, whose mean is ``critic_loss``.
    """

    def build_encoder(self) -> nn.Module:
        """Return the encoder with eleven convolutions."""
        return Encoder(self.obs_shape, layers=11, last_relu=False)

    def disturb(self, obs: Tensor) -> Tensor:
        """Return the strong augmentation, float32 (N, C, H, W), of shifted observations."""
        return self.overlay(obs)

    def critic_loss(
        self, batch: Batch, obs: Tensor, values: tuple[Tensor, Tensor], target_q: Tensor
    ) -> tuple[Tensor, Metrics]:
        """Return the mean of the losses with and without the strong augmentation; see ``DrQV2Agent``."""
        clean, metrics = super().critic_loss(batch, obs, values, target_q)
        disturbed = self.critic(self.features(self.disturb(obs), batch.state), batch.action)
        overlay = squared_error(disturbed, target_q)
        metrics |= {"critic_loss_clean": clean.detach(), "critic_loss_overlay": overlay.detach()}
        return 0.5 * (clean + overlay), metrics
