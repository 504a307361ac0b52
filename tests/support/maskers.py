"""Maskers on the fake networks, by a variant of their own that also survives saving and loading."""

from pathlib import Path

import torch

from samg import build
from samg.masker import Source
from samg.reference import Reference
from tests.support.fake_networks import FakeNetworks
from tests.support.scenes import scene


def load_fake(device, weights, encoders, settings):
    """Load fake networks; the name of their weights file is their seed."""
    seed = int(Path(weights or "0").name)
    return build.LoadedNetworks(
        FakeNetworks(seed, str(device)), Source("fake", f"digest-{seed}", weights, settings)
    )


def register_fake(monkeypatch):
    """Offer the variant ``fake`` for the duration of a test."""
    known = build.NetworkSet(load_fake, FakeNetworks.encoders, ())
    monkeypatch.setitem(build.NETWORKS, "fake", known)


def fake_reference(size=48, points=((24, 20),)):
    """Return a red square as a reference."""
    image, mask = scene(seed=1, size=size)
    return Reference.from_arrays(image, mask, points=points)


def scenes(count, size=48):
    """Return uint8 (count, size, size, 3) frames with the square elsewhere, and its masks."""
    pairs = [scene(seed=10 + i, size=size, at=(4 + 3 * i % 28, 6 + 5 * i % 24)) for i in range(count)]
    return (
        torch.stack([torch.from_numpy(image) for image, _ in pairs]),
        torch.stack([torch.from_numpy(mask) for _, mask in pairs]),
    )
