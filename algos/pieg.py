"""PIE-G (Yuan et al. 2022, "Pre-Trained Image Encoder for Generalizable Visual RL"): a frozen eye."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from algos.agent import Batch, Rows
from algos.drqv2 import Metrics
from algos.imagenet import IMAGENET, RANDOM, batch_statistics, find_weights, frozen_resnet, load_weights
from algos.numerics import ImageNetwork, centred
from algos.svea import SVEAAgent
from common.errors import ConfigError, unknown_choice
from common.files import sha256_file

BN_MODES = ("running", "batch")


class PiegEncoder(ImageNetwork):
    """Frozen ResNet-18 features of every frame and of their changes, then one trained layer.

    Source: PIE-G's code. Three frames of 84 x 84 give 2 * (128 * 11 * 11) features of the last two frames and
    as many of their differences from the frame before: 61,952.

    Args:
        obs_shape: (3 * V * T, H, W) of the stacked observation, T >= 2.
        repr_dim: width of the trained layer.
        views: V cameras; each picture is compared with the one that its own camera took before.
    """

    def __init__(self, obs_shape: Sequence[int], repr_dim: int = 1024, views: int = 1) -> None:
        super().__init__()
        self.views = views
        if obs_shape[0] < 6 * views:
            raise ConfigError(
                "PIE-G compares frames, but there is only one.", "Set frame_stack to 2 or more."
            )
        self.resnet = frozen_resnet().eval()
        self.feature_count = self.features(torch.zeros(1, *obs_shape)).shape[1]
        self.project = nn.Linear(self.feature_count, repr_dim)
        self.norm = nn.LayerNorm(repr_dim)
        self.repr_dim = repr_dim

    @torch.no_grad()
    def features(self, obs: Tensor) -> Tensor:
        """Return float32 (N, F): of (N, 3 * V * T, H, W) in [0, 255], frames 2 to T and their changes."""
        # Not ImageNet's normalisation: PIE-G feeds the network what DrQ-v2's encoder sees.
        frames = centred(obs.unflatten(1, (-1, 3)).flatten(0, 1), self.channels_last)
        maps = self.resnet(frames).unflatten(0, (len(obs), -1))
        newer = maps[:, self.views :]
        return torch.cat([newer, newer - maps[:, : -self.views]], dim=1).flatten(1)

    def forward(self, obs: Tensor) -> Tensor:
        """Return float32 (N, repr_dim) features of (N, 3 * V * T, H, W) in [0, 255], any dtype."""
        return self.norm(self.project(self.features(obs)))


class PIEGAgent(SVEAAgent):
    """DrQ-v2 that sees through ``PiegEncoder`` and, like SVEA, fits plain and overlaid images half and half.

    The ResNet's BatchNorm layers normalise updates by the batch, which moves their running statistics;
    ``act`` uses those and moves nothing.

    Args:
        encoder_weights: ``imagenet``, ``random`` or a file; loaded by ``prepare``. Networks restored from a
            snapshot hold them already, so that an evaluation needs no file.
        bn_eval: what ``act`` normalises by when it evaluates: ``running`` statistics, or ``batch``, those of
            the frames of each single observation (what the published evaluation script does).
        arguments: of ``SVEAAgent``.
    """

    encoder: PiegEncoder

    def __init__(
        self,
        *arguments: Any,
        encoder_weights: str = IMAGENET,
        bn_eval: str = "running",
        **keywords: Any,
    ) -> None:
        if bn_eval not in BN_MODES:
            raise unknown_choice("agent.bn_eval", bn_eval, BN_MODES)
        self.encoder_weights, self.bn_eval = encoder_weights, bn_eval
        self._has_weights = encoder_weights == RANDOM
        super().__init__(*arguments, **keywords)

    def build_encoder(self) -> nn.Module:
        """Return the encoder with drawn weights."""
        return PiegEncoder(self.obs_shape, views=self.views)

    def prepare(self) -> dict[str, Any]:
        """Load the ResNet's weights, unless they are drawn or restored, and what SVEA needs; name both.

        Raises:
            InputError: a file or image is missing or damaged.
        """
        record = {**super().prepare(), "bn_eval": self.bn_eval}
        path = find_weights(self.encoder_weights)
        if path is None:
            return {**record, "encoder_weights": RANDOM, "encoder_seed": self.seed}
        if not self._has_weights:
            load_weights(self.encoder.resnet, path)
            self._has_weights = True
        return {**record, "encoder_weights": path.name, "encoder_sha256": sha256_file(path)}

    def load_networks(self, networks: dict[str, Any]) -> None:
        """Restore the networks, the frozen one included; see ``DrQV2Agent.load_networks``."""
        super().load_networks(networks)
        self._has_weights = True

    def act(self, obs: Rows, step: int, eval_mode: bool, state: Rows | None = None) -> np.ndarray:
        """Return float32 (N, A) actions in [-1, 1]; see ``algos.agent.Agent.act``."""
        self._require_weights()
        if not eval_mode or self.bn_eval == "running":
            return super().act(obs, step, eval_mode, state)
        actions = []
        with batch_statistics(self.encoder.resnet):
            for row, single in enumerate(obs):  # one by one: what else is in the batch must not matter
                own = None if state is None else state[row : row + 1]
                actions.append(super().act(single[None], step, eval_mode, own))
        return np.concatenate(actions)

    def update(self, batch: Batch, step: int) -> Metrics:
        """Learn from one batch; see ``DrQV2Agent.update``."""
        self._require_weights()
        return super().update(batch, step)

    def _require_weights(self) -> None:
        """Load the weights of an agent that is used without ``prepare``; never act through drawn ones."""
        if not self._has_weights:
            self.prepare()
