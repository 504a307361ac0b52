"""The script that a user with network runs once: here with stand-ins for the networks."""

import importlib.util
import json

import numpy as np
import pytest
import torch
from PIL import Image

from common.paths import PROJECT_ROOT
from samg import Reference
from tests.support.fake_networks import FakeNetworks


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("verify_paper", PROJECT_ROOT / "setup" / "verify_paper.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Stub(FakeNetworks):
    """Fake networks with the constructor and attributes of the real ones."""

    def __init__(self, sam=None, dino=None, encoders=()):
        super().__init__()
        self.sam, self.dino = sam, dino

    def tune(self, numerics, device):
        return self


def test_masks_are_compared_and_written(script, tmp_path, monkeypatch, capsys):
    frames, foregrounds = script.collect("cartpole_swingup", "train", "procedural", 2)
    assert frames.shape == (2, 84, 84, 3) and foregrounds.any((1, 2)).all()
    assert (frames[0] != frames[1]).any()
    Image.fromarray(frames[0]).save(tmp_path / "image.png")
    Image.fromarray(foregrounds[0].astype(np.uint8) * 255).save(tmp_path / "mask.png")
    reference = Reference.load(tmp_path / "image.png", tmp_path / "mask.png")

    monkeypatch.setattr(script.Reference, "load", lambda **_: reference)
    monkeypatch.setattr(script, "PaperNetworks", Stub)
    monkeypatch.setattr(script, "random_paper_networks", lambda device: Stub())
    out = tmp_path / "found.json"
    arguments = ["--random-weights", "--tasks", "cartpole_swingup", "--levels", "train", "color_hard"]
    script.main([*arguments, "--frames", "2", "--device", "cpu", "--out", str(out)])

    found = json.loads(out.read_text())
    assert found["weights"] is None and found["torch"] == torch.__version__
    result = found["tasks"]["cartpole_swingup"]
    assert set(result["iou"]) == set(result["empty_share"]) == {"train", "color_hard"}
    assert result["bfloat16_iou"] == 1  # the stub has one precision only
    assert result["point_sets"] >= 1 and len(result["mask_weights"]) == 3
    assert "cartpole_swingup" in capsys.readouterr().out


def test_mean_iou_by_hand(script):
    a = np.zeros((2, 2, 2), dtype=bool)
    b = a.copy()
    a[0, 0] = True  # two pixels against one of them
    b[0, 0, 0] = True
    assert script.mean_iou(a, b) == pytest.approx((0.5 + 1) / 2)  # two empty masks agree
