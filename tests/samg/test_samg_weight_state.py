"""Weight files: read without running code, and loaded strictly or refused with what differs."""

import os

import pytest
import torch
from safetensors.torch import save_file

from common.errors import InputError
from samg.weights.state import load_strictly, read_state
from tests.support.weight_files import Small, saved


@pytest.mark.parametrize("wrapped", [False, True])
def test_reading_unwraps_state_dicts_and_gives_float32(tmp_path, wrapped):
    state = {"a": torch.randn(2, 3).half(), "count": torch.tensor(4)}
    path = saved(tmp_path / "x.pt", {"state_dict": state, "epoch": 3} if wrapped else state)
    found = read_state(path)
    assert found.keys() == state.keys()
    assert found["a"].dtype == torch.float32
    assert torch.equal(found["a"], state["a"].float())
    assert found["count"].dtype == torch.int64
    save_file(state, tmp_path / "x.safetensors")
    assert torch.equal(read_state(tmp_path / "x.safetensors")["a"], found["a"])


class Trap:
    """A pickle that runs code when it is loaded carelessly."""

    def __reduce__(self):
        return os.mkdir, (os.environ["SAMG_TRAP"],)


@pytest.mark.reliability("18", "a pickle that would run code is refused and not run")
def test_code_in_a_weight_file_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.setenv("SAMG_TRAP", str(tmp_path / "sprung"))
    path = saved(tmp_path / "l1.pt", {"state_dict": Trap()})
    with pytest.raises(InputError, match="run their code"):
        read_state(path)
    assert not (tmp_path / "sprung").exists()


def damaged_files(folder):
    whole = saved(folder / "whole.pt", {"a": torch.randn(50, 50)}).read_bytes()
    save_file({"a": torch.randn(50, 50)}, folder / "whole.safetensors")
    tensors = (folder / "whole.safetensors").read_bytes()
    return {
        "cut.pt": whole[: len(whole) // 2],
        "empty.pt": b"",
        "page.pt": b"<!DOCTYPE html><html>not found</html>",
        "pointer.pt": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
        "cut.safetensors": tensors[: len(tensors) // 2],
        "empty.safetensors": b"",
    }


@pytest.mark.reliability("18", "truncated, empty and foreign weight files are refused")
@pytest.mark.parametrize(
    "name", ["cut.pt", "empty.pt", "page.pt", "pointer.pt", "cut.safetensors", "empty.safetensors"]
)
def test_damaged_files_are_input_errors(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(damaged_files(tmp_path)[name])
    with pytest.raises(InputError, match="cannot be read") as caught:
        read_state(path)
    assert str(path) in caught.value.message
    assert "fetch it again" in caught.value.hint


@pytest.mark.parametrize("content", [[torch.zeros(1)], {}, {"a": "text"}, {"state_dict": {"a": 1.5}}])
def test_files_without_a_state_dict_are_input_errors(tmp_path, content):
    with pytest.raises(InputError, match=r"hold no state dict|expected only tensors"):
        read_state(saved(tmp_path / "x.pt", content))


@pytest.mark.reliability("18", "weights that hold NaN are refused")
def test_numbers_that_are_not_finite_are_refused(tmp_path):
    with pytest.raises(InputError, match="not finite"):
        read_state(saved(tmp_path / "x.pt", {"a": torch.tensor([1.0, float("nan")])}))


def test_missing_file_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="do not exist"):
        read_state(tmp_path / "none.pt")


@pytest.mark.reliability("18", "weights of another architecture: the differences are named")
def test_a_wrong_architecture_names_up_to_five_differences(tmp_path):
    state = {f"other.{i}": torch.zeros(1) for i in range(4)}
    state |= {"first.weight": torch.zeros(5, 5), "first.bias": torch.zeros(2)}
    with pytest.raises(InputError) as caught:
        load_strictly(Small(), state, tmp_path / "l1.pt", "efficientvit_sam_l1")
    message = caught.value.message
    assert "efficientvit_sam_l1" in message and "norm.weight is missing" in message
    assert "and 5 more" in message  # 5 norm entries missing, 4 unexpected, 1 shape: 10 in all
    assert message.count(";") == 5


def test_a_shape_is_reported_with_both_shapes(tmp_path):
    state = dict(Small().state_dict(), **{"first.weight": torch.zeros(5, 5)})
    with pytest.raises(InputError, match=r"first.weight has shape \(5, 5\), not \(2, 3\)"):
        load_strictly(Small(), state, tmp_path / "x.pt", "small")


def test_weights_reach_a_model_built_without_memory(tmp_path):
    with torch.device("meta"):
        model = Small()
    state = Small().state_dict()
    load_strictly(model, state, tmp_path / "x.pt", "small")
    assert all(torch.equal(model.state_dict()[key], value) for key, value in state.items())
