"""An update as one CUDA graph: a single launch instead of some hundreds."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from algos.agent import Batch
from common.cuda_graphs import WARMUP, recording, warming_up

UPDATES_BEFORE_REPLAY = WARMUP + 1  # Adam makes its moments in the first; in the last it is recorded


class RecordedUpdate:
    """Runs the first updates as they are, records the next one and replays it from then on.

    A replay reads and writes the same memory as the recording: batches are copied into the recorded one and
    everything else that changes between updates must be a tensor. The random generators go on as without.

    Args:
        learn: the update; must not wait for the device, and may not branch on values of tensors.
        generator: what it draws from, on the device.
        device: a CUDA device.
    """

    def __init__(
        self, learn: Callable[[Batch], dict[str, Tensor]], generator: torch.Generator, device: torch.device
    ) -> None:
        self._learn, self._generator = learn, generator
        self._stream = torch.cuda.Stream(device)
        self.forget()

    def forget(self) -> None:
        """Drop the recording; to be called when optimisers or networks get other memory."""
        self._graph: torch.cuda.CUDAGraph | None = None
        self._batch: Batch | None = None
        self._metrics: dict[str, Tensor] = {}
        self._done = 0

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Update from ``batch`` (on the device) and return the metrics."""
        if self._batch is not None and any(
            old.shape != new.shape for old, new in zip(self._batch, batch, strict=True)
        ):
            self.forget()
        if self._done < WARMUP:
            return self._warm_up(batch)
        if self._graph is None:
            self._record(batch)
        assert self._batch is not None and self._graph is not None
        for static, fresh in zip(self._batch, batch, strict=True):
            static.copy_(fresh, non_blocking=True)
        self._graph.replay()
        return {name: value.clone() for name, value in self._metrics.items()}

    def _warm_up(self, batch: Batch) -> dict[str, Tensor]:
        """Update on a stream of its own, as recording asks for."""
        self._batch = Batch(*(torch.empty_like(value) for value in batch))
        with warming_up(self._stream):
            metrics = self._learn(batch)
        self._done += 1
        return metrics

    def _record(self, batch: Batch) -> None:
        assert self._batch is not None
        for static, fresh in zip(self._batch, batch, strict=True):
            static.copy_(fresh)
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._generator)
        with recording(graph, self._stream):
            self._metrics = {name: value.detach() for name, value in self._learn(self._batch).items()}
        self._graph = graph
