"""From frames to masks as one CUDA graph per batch size: a single launch instead of some hundreds.

All recordings share their memory, which is that of the largest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from common.cuda_graphs import WARMUP, recording, warming_up


class _Recording(NamedTuple):
    """What a replay reads and writes."""

    graph: torch.cuda.CUDAGraph
    frames: Tensor
    results: tuple[Tensor, ...]


class RecordedFunction:
    """Records a function of frames once per batch size and replays it from then on.

    Args:
        function: from uint8 (N, H, W, 3) to tensors; must neither wait for the device nor branch on values of
            tensors, and everything else that it reads must stay where it is in memory.
        device: a CUDA device.
    """

    def __init__(self, function: Callable[[Tensor], tuple[Tensor, ...]], device: torch.device) -> None:
        self._function = function
        self._recordings: dict[torch.Size, _Recording] = {}
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, frames: Tensor) -> tuple[Tensor, ...]:
        """Return what the function returns for ``frames``, which lie on the device."""
        made = self._recordings.get(frames.shape)
        if made is None:
            made = self._recordings[frames.shape] = self._record(frames)
        made.frames.copy_(frames, non_blocking=True)
        made.graph.replay()
        return tuple(value.clone() for value in made.results)

    def _record(self, frames: Tensor) -> _Recording:
        static = frames.clone()
        with warming_up(self._stream):
            for _ in range(WARMUP):
                self._function(static)
        graph = torch.cuda.CUDAGraph()
        with recording(graph, self._stream, self._pool):
            results = self._function(static)
        return _Recording(graph, static, results)
