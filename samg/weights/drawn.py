"""Weights drawn from their own names: the same numbers on every machine, for tests and benchmarks.

Masks made with them mean nothing, but every layer passes on activations of ordinary size, so that times are
real and outputs can be compared with those of other implementations filled in the same way.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor


def _draw(name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    key = zlib.crc32(name.encode())
    noise = np.random.default_rng(key if seed == 0 else [key, seed]).standard_normal(shape)
    if name.endswith("running_var"):
        noise = 1 + 0.1 * np.abs(noise)
    elif name.endswith("running_mean"):
        noise = 0.05 * noise
    elif len(shape) <= 1:
        noise = 1 + 0.05 * noise if name.endswith("weight") else 0.02 * noise
    else:
        noise = noise / math.sqrt(math.prod(shape[1:]))
    return torch.from_numpy(np.asarray(noise, dtype=np.float32))


def drawn_state(shapes: Mapping[str, Sequence[int]], seed: int = 0) -> dict[str, Tensor]:
    """Return float32 tensors of the given shapes, each a pure function of its name and ``seed``.

    Matrices and kernels are scaled by the square root of their fan-in; one-dimensional weights lie around 1,
    biases around 0; running variances around 1.
    """
    return {name: _draw(name, tuple(shape), seed) for name, shape in shapes.items()}
