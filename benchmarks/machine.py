"""What this machine is and can do; every table here says it, and rates are compared with what it can do."""

from __future__ import annotations

import platform
import resource
import statistics
from pathlib import Path
from typing import Any

import torch

from benchmarks.ledger import clock
from common.cores import count_cores

_SIDE = {"cpu": 1024, "cuda": 8192}  # of the multiplied matrices: far beyond what overheads matter for
_NAMED = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")  # instruction sets that decide about speed


def facts(device: torch.device) -> dict[str, Any]:
    """Return what figures depend on: processor, instruction sets, cores, device, threads, versions."""
    return {
        "cpu": _cpu_field("model name") or platform.machine(),
        "instructions": [name for name in _NAMED if name in _cpu_field("flags").split()],
        "cores": count_cores(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "clock": "wall" if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _cpu_field(name: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # no Linux
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "")


def matmul_rate(device: torch.device, dtype: torch.dtype, repeats: int = 7) -> float:
    """Return the rate of multiplying large square matrices, in GFLOP per second of the ledgers' clock.

    The median of ``repeats``, the first not counted: what the machine achieves at its easiest task, and so
    the yardstick for what networks achieve.
    """
    side = _SIDE[device.type]
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    read, spent = clock(device), []
    for _ in range(repeats + 1):
        start = read()
        left @ right
        spent.append(read() - start)
    return 2 * side**3 / statistics.median(spent[1:]) / 1e9


def rates(device: torch.device) -> dict[str, float]:
    """Return ``matmul_rate`` of float32 and bfloat16."""
    return {str(dtype).split(".")[1]: matmul_rate(device, dtype) for dtype in (torch.float32, torch.bfloat16)}


def reset_peak_memory(device: torch.device) -> None:
    """Let ``peak_memory`` begin anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak resident size
    except OSError:
        pass  # the peak is then that of the whole process so far


def peak_memory(device: torch.device) -> int:
    """Return bytes: the GPU's allocations at their highest, or the resident size of the process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        status = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in status if line.startswith("VmHWM")).split()[1])
    except (OSError, StopIteration):
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
