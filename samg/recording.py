"""From frames to masks as one CUDA graph per batch size: a single launch instead of some hundreds."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

_WARMUP = 3  # runs before a recording, in which libraries choose kernels and constants reach the device


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
        self._function, self._device = function, device
        self._recordings: dict[torch.Size, _Recording] = {}
        self._stream = torch.cuda.Stream(device)

    def __call__(self, frames: Tensor) -> tuple[Tensor, ...]:
        """Return what the function returns for ``frames``, which lie on the device."""
        recording = self._recordings.get(frames.shape)
        if recording is None:
            recording = self._recordings[frames.shape] = self._record(frames)
        recording.frames.copy_(frames, non_blocking=True)
        recording.graph.replay()
        return tuple(value.clone() for value in recording.results)

    def _record(self, frames: Tensor) -> _Recording:
        static = frames.clone()
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            for _ in range(_WARMUP):
                self._function(static)
        current.wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):  # nothing is executed here
            results = self._function(static)
        return _Recording(graph, static, results)
