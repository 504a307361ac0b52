"""From a checkpoint to the file that ships: half-precision weights and the record of how they were made."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from common.files import sha256_file, write_bytes, write_json
from common.versions import made_with
from samg.tiny import ARCHITECTURE, TinyNetworks


def storable(networks: TinyNetworks) -> dict[str, torch.Tensor]:
    """Return the state dict with float16 weights; batch-norm statistics and map calibration stay float32."""
    exact = ("running_mean", "running_var", "map_scale", "map_offset", "frequencies")
    return {
        key: (value if key.endswith(exact) or not value.is_floating_point() else value.half())
        .detach()
        .cpu()
        .contiguous()
        for key, value in networks.state_dict().items()
    }


def export_weights(networks: TinyNetworks, path: Path, made_by: dict[str, Any]) -> dict[str, Any]:
    """Write ``path`` (safetensors) and its record beside it (JSON).

    Args:
        networks: trained, not fused; with ``presence`` calibrated.
        path: ends in ``.safetensors``.
        made_by: command, seed, steps and the like.

    Returns:
        The record, with the file's SHA-256 and the library versions.
    """
    metadata = {"architecture": ARCHITECTURE, "format": "pt", "presence": json.dumps(networks.presence)}
    write_bytes(path, _sorted_metadata(save(storable(networks), metadata=metadata)))
    packages = ("torch", "numpy", "mujoco", "dm_control", "opencv-python-headless", "safetensors")
    record = {
        "architecture": ARCHITECTURE,
        "sha256": sha256_file(path),
        "bytes": path.stat().st_size,
        "presence": networks.presence,
        "parameters": sum(parameter.numel() for parameter in networks.parameters()),
        "made": datetime.now(UTC).date().isoformat(),
        **made_with(packages),
        **made_by,
    }
    write_json(path.with_suffix(".json"), record)
    return record


def _sorted_metadata(data: bytes) -> bytes:
    """Put a safetensors file's metadata into alphabetical order.

    The library's own order changes from process to process, and with it the hash of the same weights.
    """
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format aligns what follows
    return len(text).to_bytes(8, "little") + text + data[end:]
