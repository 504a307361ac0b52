"""How masks are computed, as opposed to which: precision, layout, compilation, CUDA graphs.

The counterpart of ``agent.numerics`` (``algos.numerics``), shared by all network sets. What is chosen here is
recorded beside a masker's fingerprint and is no part of it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self, TypeVar

import torch
from torch import nn

from common.numerics import PRECISIONS, Numerics, full_precision_convolutions, warn_once

Function = TypeVar("Function", bound=Callable[..., Any])

# A masker meets some batch sizes and three prompt sets each; every combination is a compilation of its own.
_COMPILATIONS = 64


# What autocast computes in less than float32, of the layers that have weights.
_ROUNDED = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


@dataclass(frozen=True)
class MaskerNumerics(Numerics):
    """Choices that change the speed of masking and the last bits of its numbers (``bfloat16``: more).

    Attributes:
        precision: of the networks' convolutions and matrix products: ``float32`` or ``bfloat16``.
            EfficientViT's linear attention, SAM's prompt codes and mask logits, and all similarity maps are
            never rounded.
        compile: compile encoders and decoder for fixed shapes; needs a C++ compiler (on a GPU: Triton).
        cuda_graph: record the way from frames to masks once per batch size and replay it as one launch; needs
            a CUDA device.
        channels_last: convolve in channels-last layout; the same sums in another order.
    """

    key = "masker"

    @classmethod
    def of(cls, options: Mapping[str, Any], defaults: MaskerNumerics | None = None) -> MaskerNumerics:
        """Return the choices named in ``options``, those of ``defaults`` for the others.

        Raises:
            ConfigError: an impossible value.
        """
        cls.check(options)
        return replace(defaults or cls(), **options)

    @classmethod
    def recorded(cls, record: Mapping[str, Any], defaults: MaskerNumerics) -> MaskerNumerics:
        """Return the choices in a saved record of ``numerics``, which may be older than some of them."""
        return cls.of({name: record[name] for name in NUMERICS if name in record}, defaults)

    def moved_to(self, device: torch.device) -> MaskerNumerics:
        """Return what of a saved masker's choices is possible on another ``device`` than it was made for."""
        if self.cuda_graph and device.type != "cuda":
            warn_once(f"The saved masker's cuda_graph=true is ignored: device is {device}.")
            return replace(self, cuda_graph=False).on(device)
        return self.on(device)

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """Return the context in which networks compute; ``float32`` is float32 on GPUs, too."""
        if self.rounds or device.type != "cuda":
            return super().autocast(device)
        return full_precision_convolutions()

    @property
    def rounds(self) -> bool:
        """Whether networks compute in less than float32."""
        return PRECISIONS[self.precision] is not None

    @property
    def fixed_shapes(self) -> bool:
        """Whether every new batch size costs seconds, so that there must be few."""
        return self.compile or self.cuda_graph

    def compiled(self, function: Function, device: torch.device) -> Function:
        """Return ``function``, a network's method that takes and gives tensors, as it is to be called.

        Weights are constants on a CPU ("freezing"): they are laid out for the kernels once.
        """
        options: dict[str, Any] = {"freezing": True} if device.type == "cpu" else {}
        limit: dict[str, Any] = {"recompile_limit": _COMPILATIONS}
        if "recompile_limit" not in inspect.signature(torch.compile).parameters:  # older versions of torch
            from torch._dynamo import config

            config.recompile_limit, limit = max(config.recompile_limit, _COMPILATIONS), {}
        compiled: Any = torch.compile(function, dynamic=False, options=options, **limit)
        return compiled  # type: ignore[no-any-return]

    def to_dict(self) -> dict[str, Any]:
        """Return the choices as JSON values."""
        return asdict(self)


NUMERICS = tuple(field.name for field in fields(MaskerNumerics))


class TunableNetworks(nn.Module):
    """Networks of a masker that can be told how to compute, once, when they lie on their device.

    Attributes:
        defaults: how they compute unless told otherwise.
        numerics: how they compute.
    """

    defaults = MaskerNumerics()

    def __init__(self) -> None:
        super().__init__()
        self.numerics = self.defaults

    def hot_methods(self) -> list[tuple[nn.Module, str]]:
        """Return where time is spent, as modules and names of their methods: what is worth compiling."""
        raise NotImplementedError

    def never_rounded(self) -> list[nn.Module]:
        """Return the modules that compute in float32 whatever the precision."""
        return []

    def tune(self, numerics: MaskerNumerics, device: torch.device) -> Self:
        """Compute so from now on; returns self. It must be possible on ``device``, where the networks are."""
        self.numerics = numerics
        layout = torch.channels_last if numerics.channels_last else torch.contiguous_format
        self.to(memory_format=layout)
        self._round(PRECISIONS[numerics.precision])
        for owner, name in self.hot_methods() if numerics.compile else ():
            setattr(owner, name, numerics.compiled(getattr(owner, name), device))
        return self

    def _round(self, dtype: torch.dtype | None) -> None:
        """Round weights once; autocast, which keeps none of frozen networks, would do it at every call."""
        if dtype is None:
            return
        kept = {module for root in self.never_rounded() for module in root.modules()}
        for module in self.modules():
            if isinstance(module, _ROUNDED) and module not in kept:
                module.to(dtype)
