"""How much memory a computation takes at its worst moment, measured by doing it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary


class _LiveBytes(TorchDispatchMode):
    """While it is entered, counts the bytes of tensors that were made since and are still alive.

    Attributes:
        live: bytes at this moment.
        peak: the most there were.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known = WeakIdKeyDictionary()  # storages -> what frees their bytes; those of before: None

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        for storage in _storages((args, kwargs)):
            self._known.setdefault(storage, None)  # it came from outside
        made = func(*args, **(kwargs or {}))
        for storage in _storages(made):
            if storage not in self._known:
                self._known[storage] = _Share(self, storage.nbytes())
        return made


class _Share:
    """The bytes of one storage, which a dictionary drops when the storage dies."""

    def __init__(self, counter: _LiveBytes, size: int) -> None:
        self._counter, self._size = counter, size
        counter.live += size
        counter.peak = max(counter.peak, counter.live)

    def __del__(self) -> None:
        self._counter.live -= self._size


def _storages(values: Any) -> list[torch.UntypedStorage]:
    return [value.untyped_storage() for value in tree_leaves(values) if isinstance(value, Tensor)]


def peak_bytes(work: Callable[[], object], device: torch.device) -> int:
    """Return how many bytes ``work`` takes at its worst moment, beside what was there before.

    On a GPU these are the allocator's own figures. On a CPU the tensors are counted; what a library's kernels
    take for themselves while they run is not seen, nor is what compiled code keeps to itself.

    Args:
        work: done once.
        device: where it computes.
    """
    if device.type != "cuda":
        with _LiveBytes() as counter:
            work()
        return counter.peak
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before
