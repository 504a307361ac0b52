"""Notices, on a CPU, what would let the host wait for a GPU."""

import torch


class HostSync(torch.utils._python_dispatch.TorchDispatchMode):
    """Fails on what makes the host wait for the device or on shapes that depend on data."""

    forbidden = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique", "lift_fresh")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert not any(name.startswith(bad) for bad in self.forbidden), f"{name} synchronises"
        if name == "where":  # a number, which a GPU would have to be sent
            assert all(value.ndim for value in args), "where with a number"
        if name == "_to_copy" and "device" in (kwargs or {}):
            assert kwargs["device"] == args[0].device, "copied to another device"
        if name in ("index", "index_put_"):
            assert all(i is None or i.dtype != torch.bool for i in args[1]), f"{name} with a boolean index"
        return func(*args, **(kwargs or {}))
