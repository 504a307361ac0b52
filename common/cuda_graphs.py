"""Recording work on a CUDA device beside threads that go on using it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

WARMUP = 3  # runs before a recording, in which libraries choose kernels and constants reach the device


@contextlib.contextmanager
def warming_up(stream: torch.cuda.Stream) -> Iterator[None]:
    """Let what follows run on ``stream``, after all work so far and before all later work of the device.

    Recordings ask for this of the runs before them.
    """
    current = torch.cuda.current_stream(stream.device)
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        yield
    current.wait_stream(stream)


@contextlib.contextmanager
def recording(graph: torch.cuda.CUDAGraph, stream: torch.cuda.Stream, pool: Any = None) -> Iterator[None]:
    """Record what follows into ``graph`` instead of running it.

    Other threads may ask the device for memory meanwhile, as the replay's prefetch does: only this thread's
    calls are held against the recording. The current device is that of ``stream``, so that no other GPU
    is woken.

    Args:
        graph: empty.
        stream: that of the runs before (``warming_up``).
        pool: of memory (``torch.cuda.graph_pool_handle``), for graphs that never run at the same time and
            whose results are copied before another runs; None: the graph keeps memory of its own.
    """
    with (
        torch.cuda.device(stream.device),
        torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"),
    ):
        yield
