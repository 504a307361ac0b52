"""Which device to compute on, decided once and said aloud."""

from __future__ import annotations

import torch

from common.allocator import keep_freed_memory
from common.errors import ConfigError, ResourceError

DEVICE_ERRORS = (torch.OutOfMemoryError, getattr(torch, "AcceleratorError", torch.OutOfMemoryError))
"""What PyTorch raises when a device, and not what was asked of it, is at fault."""


def resolve_device(name: str, num_threads: int | None = None) -> torch.device:
    """Return the device for ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; ``auto`` takes a GPU if there is one.

    The process is prepared to compute: it reuses freed memory from then on (``common.allocator``).

    Args:
        name: of the device.
        num_threads: torch's threads on the CPU; None leaves torch's own choice.

    Raises:
        ConfigError: ``name`` is not such a device.
        ResourceError: the machine does not have it.
    """
    keep_freed_memory()
    if num_threads:
        torch.set_num_threads(num_threads)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device={name} is not a device.", "Use auto, cpu, cuda or cuda:N.") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device={name} is not supported.", "Use auto, cpu, cuda or cuda:N.")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise ResourceError(
                f"device={name} does not exist: this machine has {count} CUDA device(s).",
                "Use device=auto or cpu.",
            )
    return device
