"""Weights of ``masker=tiny`` that cannot be used: each is one clear error, before anything is masked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from common.errors import InputError
from samg import build_masker
from samg.pretraining.export import export_weights
from samg.tiny import ARCHITECTURE, WEIGHTS, TinyNetworks

SHIPPED = WEIGHTS.read_bytes()


def changed(
    path: Path, change: Callable[[dict[str, torch.Tensor]], object], name: str = ARCHITECTURE
) -> None:
    tensors = load_file(WEIGHTS)
    change(tensors)
    save_file(tensors, path, metadata={"architecture": name})


def flipped(path: Path) -> None:
    """One bit of one weight is another: only the record can tell."""
    data = bytearray(SHIPPED)
    data[-1000] ^= 0x10
    path.write_bytes(bytes(data))
    path.with_suffix(".json").write_bytes(WEIGHTS.with_suffix(".json").read_bytes())


def recorded(text: str) -> Callable[[Path], object]:
    """Whole weights beside another record."""

    def make(path: Path) -> None:
        path.write_bytes(SHIPPED)
        path.with_suffix(".json").write_text(text)

    return make


@pytest.mark.reliability("18", "every way in which tiny weights can be wrong is one clear error")
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "do not exist"),
        (lambda path: path.mkdir(), "do not exist"),
        (lambda path: path.write_bytes(b""), "not a whole safetensors file"),
        (lambda path: path.write_bytes(SHIPPED[:-1]), "not a whole safetensors file"),
        (lambda path: path.write_bytes(SHIPPED[:4000]), "not a whole safetensors file"),
        (lambda path: path.write_bytes(b"\xff" * 4000), "not a whole safetensors file"),
        (lambda path: torch.save({"weights": torch.zeros(9)}, path), "not a whole safetensors file"),
        (
            lambda path: save_file({"a": torch.zeros(2)}, path),
            "architecture 'unnamed', expected 'samg-tiny-2'",
        ),
        (
            lambda path: changed(path, len, "samg-tiny-9"),
            "architecture 'samg-tiny-9', expected 'samg-tiny-2'",
        ),
        (lambda path: changed(path, lambda t: t.pop("map_scale")), "'map_scale' is missing"),
        (lambda path: changed(path, lambda t: t.update(more=torch.zeros(1))), "tensor 'more' is"),
        (lambda path: changed(path, lambda t: t.update(map_scale=torch.zeros(3))), "'map_scale' is"),
        (
            lambda path: changed(path, lambda t: t["map_scale"].fill_(torch.nan)),
            "'map_scale' holds values that are not finite",
        ),
        (flipped, "not the file that tiny.json describes"),
        (recorded("{broken"), "not valid JSON"),
        (recorded("[]"), "not the file that tiny.json describes"),
        (recorded(json.dumps({"sha256": "0" * 64})), "not the file that tiny.json describes"),
    ],
)
def test_unusable_weights_are_one_clear_error(
    make: Callable[[Path], object], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "tiny.safetensors"
    make(path)
    with pytest.raises(InputError, match=said) as caught:
        build_masker("tiny", weights=path).load()
    assert caught.value.hint and "tiny.safetensors" in caught.value.message.replace(".json", ".safetensors")


def test_the_same_weights_are_the_same_file_in_every_process(tmp_path: Path) -> None:
    """The library keeps metadata in an order of its own, another one in every process."""
    torch.manual_seed(0)
    networks = TinyNetworks()
    networks.presence = {"dino": 0.5, "dino+sam": 0.25}
    export_weights(networks, tmp_path / "one.safetensors", {"command": "test"})
    data = (tmp_path / "one.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert list(header["__metadata__"]) == ["architecture", "format", "presence"]
    assert int.from_bytes(data[:8], "little") % 8 == 0
    found = load_file(tmp_path / "one.safetensors")
    for key, value in networks.state_dict().items():
        torch.testing.assert_close(found[key].float(), value.float(), atol=2e-3, rtol=2e-3)
