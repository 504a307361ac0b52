"""Between the frames that go to the device and the masks that come back, nothing waits for it."""

import pytest
import torch

from samg import build_masker
from tests.support.host_sync import HostSync
from tests.support.maskers import fake_reference, register_fake, scenes


@pytest.fixture(autouse=True)
def _fake(monkeypatch):
    register_fake(monkeypatch)


@pytest.mark.parametrize(
    ("variant", "options"),
    [
        ("fake", {}),
        ("fake", {"compat": True}),
        ("fake", {"map_prompt": True, "on_empty": "previous_pass"}),
        ("tiny", {"persam": False}),
        ("tiny", {"persam": False, "precision": "bfloat16", "channels_last": False, "passes": 1}),
    ],
)
def test_masking_never_waits_for_the_device(variant, options):
    size = 84 if variant == "tiny" else 48
    masker, (frames, _) = build_masker(variant, **options).fit(fake_reference(size)), scenes(3, size)
    masker.mask(frames)  # what is made once and kept may come from the host
    with HostSync():
        masker.mask(frames)


@pytest.mark.parametrize(
    "waiting",
    [
        lambda x: float(x[0]),
        lambda x: x[x > 0],
        lambda x: x + torch.tensor([1.0]),
        lambda x: torch.where(x > 0, 1.0, x),
        lambda x: x.to("meta"),
    ],
)
def test_waiting_for_the_device_would_be_noticed(waiting):
    with pytest.raises(AssertionError), HostSync():
        waiting(torch.ones(2))
