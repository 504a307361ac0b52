"""Released weights: found, fetched, checked and recorded; every failure is one sentence with its cure."""

import hashlib
import importlib.util
import os
import time
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from common.errors import ConfigError, InputError, ResourceError
from common.files import sha256_file
from common.paths import PROJECT_ROOT
from efficientvit import EfficientViTSam
from samg.dinov2 import DinoV2
from samg.paper import PaperNetworks
from samg.weights import (
    download_weights,
    drawn_state,
    find_paper_weights,
    load_paper_networks,
    loading,
    random_paper_networks,
)
from samg.weights import hub as hub_module
from tests.support.weight_files import Small, saved

SAM_REPO = "mit-han-lab/efficientvit-sam"
DINO_REPO = "timm/vit_base_patch14_dinov2.lvd142m"


@pytest.fixture(autouse=True)
def no_weights_anywhere(tmp_path, monkeypatch):
    """An empty hub cache, an empty checkpoints folder, and no network."""
    cache = tmp_path / "cache"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub_module, "CHECKPOINTS", tmp_path / "checkpoints")
    return cache


def into_cache(cache: Path, repo: str, filename: str, content: bytes, digest: str | None = None) -> Path:
    """Lay a file into the hub's cache as the hub's client does: blobs, snapshots, refs."""
    revision = "0123456789abcdef0123456789abcdef01234567"
    folder = cache / f"models--{repo.replace('/', '--')}"
    blob = folder / "blobs" / (digest or hashlib.sha256(content).hexdigest())
    snapshot = folder / "snapshots" / revision / filename
    for path in (blob, snapshot, folder / "refs" / "main"):
        path.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(content)
    snapshot.symlink_to(os.path.relpath(blob, snapshot.parent))
    (folder / "refs" / "main").write_text(revision)
    return snapshot


# --- finding -----------------------------------------------------------------------------------------------


@pytest.mark.reliability("17", "no weights and no network: one error names the files and every cure, at once")
def test_without_network_one_error_names_everything_missing_and_every_cure():
    start = time.monotonic()
    with pytest.raises(InputError) as caught:
        find_paper_weights()
    assert time.monotonic() - start < 2
    error = caught.value
    for text in ("efficientvit_sam_l1.pt", SAM_REPO, DINO_REPO, "HF_HUB_OFFLINE"):
        assert text in error.message
    for cure in ("setup/download.py paper", "masker.weights=", "dinov2_vitb14_pretrain.pth", "masker=tiny"):
        assert cure in error.hint
    assert error.exit_code == 3


@pytest.mark.reliability("17", "a hub that cannot be reached is noticed within seconds")
def test_an_unreachable_hub_is_noticed_at_once(monkeypatch):
    """The client's own download retries for half a minute; nothing listens on port 9."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(hub_module, "hf_hub_url", lambda repo, name: f"http://127.0.0.1:9/{repo}/{name}")
    monkeypatch.setattr(hub_module, "hf_hub_download", lambda *_, **__: pytest.fail("asked before probing"))
    start = time.monotonic()
    with pytest.raises(InputError, match="cannot be reached"):
        find_paper_weights()
    assert time.monotonic() - start < 5


def test_only_what_is_needed_is_missed():
    with pytest.raises(InputError) as caught:
        find_paper_weights(encoders=("sam",), sam="l0")
    assert "efficientvit_sam_l0.pt" in caught.value.message
    assert "dinov2" not in str(caught.value)


@pytest.mark.parametrize("sam_name", ["efficientvit_sam_l1.pt", "l1.pt"])
@pytest.mark.parametrize(
    "dino_name",
    ["dinov2_vitb14_pretrain.pth", "model.safetensors", "vit_base_patch14_dinov2.lvd142m.safetensors"],
)
def test_a_folder_is_searched_for_old_and_new_names(tmp_path, sam_name, dino_name):
    for name in (sam_name, dino_name):
        (tmp_path / name).write_bytes(b"x")
    expected = {"sam": tmp_path / sam_name, "dino": tmp_path / dino_name}
    assert find_paper_weights(tmp_path) == expected
    assert find_paper_weights(str(tmp_path)) == expected
    assert find_paper_weights([expected["dino"], expected["sam"]]) == expected


def test_files_in_the_checkpoints_folder_are_found_and_the_users_come_first(tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for name in ("l1.pt", "dinov2_vitb14_pretrain.pth"):
        (folder / name).write_bytes(b"x")
    assert find_paper_weights() == {"sam": folder / "l1.pt", "dino": folder / "dinov2_vitb14_pretrain.pth"}
    own = tmp_path / "mine" / "l1.pt"
    own.parent.mkdir()
    own.write_bytes(b"y")
    assert find_paper_weights(own)["sam"] == own
    assert find_paper_weights(own)["dino"].parent == folder


def test_the_hubs_cache_needs_no_network(no_weights_anywhere):
    sam = into_cache(no_weights_anywhere, SAM_REPO, "efficientvit_sam_l1.pt", b"sam")
    dino = into_cache(no_weights_anywhere, DINO_REPO, "model.safetensors", b"dino")
    assert find_paper_weights() == {"sam": sam, "dino": dino}


def test_named_paths_that_hold_nothing_are_errors(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        find_paper_weights(tmp_path / "nowhere")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="holds none") as caught:
        find_paper_weights(empty)
    assert "l1.pt" in caught.value.hint


@pytest.mark.parametrize("choice", [{"sam": "l9"}, {"dino": "vitx"}, {"encoders": ("clip",)}])
def test_unknown_architectures_are_configuration_errors(choice):
    with pytest.raises(ConfigError):
        find_paper_weights(**choice)


# --- fetching ----------------------------------------------------------------------------------------------


@pytest.fixture
def fake_hub(no_weights_anywhere, monkeypatch):
    """A hub that delivers small files into the cache and remembers what was asked for."""
    asked = []

    def deliver(repo, filename, etag_timeout):
        asked.append((repo, filename))
        assert etag_timeout <= 10
        return str(into_cache(no_weights_anywhere, repo, filename, filename.encode()))

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub_module, "get_hf_file_metadata", lambda url, timeout: None)
    monkeypatch.setattr(hub_module, "hf_hub_download", deliver)
    return asked


def test_download_fetches_both_files_and_then_none(fake_hub):
    paths = download_weights("paper")
    assert fake_hub == [(SAM_REPO, "efficientvit_sam_l1.pt"), (DINO_REPO, "model.safetensors")]
    assert list(find_paper_weights().values()) == list(paths)
    for path, file in paths.items():
        assert file.sha256 == sha256_file(path) and file.revision == path.parent.name
    assert len(fake_hub) == 2


def test_the_download_command_says_which_files_these_are(fake_hub, capsys):
    spec = importlib.util.spec_from_file_location("download_command", PROJECT_ROOT / "setup" / "download.py")
    command = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(command)
    command.main(["paper"])
    told = capsys.readouterr().out
    for path in find_paper_weights().values():
        assert f"{path}\n  sha256 {sha256_file(path)}" in told
        assert f"revision {path.parent.name}" in told


@pytest.mark.reliability("18", "weights whose SHA-256 is not the hub's: both digests are named")
def test_a_file_that_is_not_what_the_hub_sent_is_refused(no_weights_anywhere):
    path = into_cache(no_weights_anywhere, SAM_REPO, "efficientvit_sam_l1.pt", b"cut", digest="0" * 64)
    with pytest.raises(InputError, match="damaged") as caught:
        hub_module.describe_file(path, "sam", "l1")
    assert "python setup/download.py paper" in caught.value.hint


def test_a_full_disk_is_a_resource_error(fake_hub, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(hub_module, "hf_hub_download", fail)
    with pytest.raises(ResourceError):
        find_paper_weights()


def test_records_say_where_the_file_came_from(no_weights_anywhere, tmp_path):
    cached = into_cache(no_weights_anywhere, SAM_REPO, "efficientvit_sam_l1.pt", b"sam")
    record = hub_module.describe_file(cached, "sam", "l1")
    assert (record.source, record.repo, record.release) == ("hub", SAM_REPO, "2024-02")
    assert record.revision == cached.parent.name
    assert record.sha256 == hashlib.sha256(b"sam").hexdigest()
    own = tmp_path / "l1.pt"
    own.write_bytes(b"sam")
    record = hub_module.describe_file(own, "sam", "l1")
    assert (record.source, record.repo, record.revision, record.release) == ("local", None, None, "2023-09")


# --- loading -----------------------------------------------------------------------------------------------


@pytest.fixture
def small_networks(monkeypatch):
    """Small modules in place of the large networks, so that the whole path can be walked."""
    monkeypatch.setattr(loading, "_empty", lambda component, architecture, size: Small())
    built = {}

    def assemble(networks, encoders, device):
        built.update(networks)
        return PaperNetworks.__new__(PaperNetworks)

    monkeypatch.setattr(loading, "_assemble", assemble)
    return built


def test_loading_fills_every_network_and_records_every_file(tmp_path, small_networks):
    states = {"l1.pt": Small().state_dict(), "dinov2_vitb14_pretrain.pth": Small().state_dict()}
    for name, state in states.items():
        saved(tmp_path / name, {"state_dict": state})
    _, record = load_paper_networks(tmp_path)
    for component, name in (("sam", "l1.pt"), ("dino", "dinov2_vitb14_pretrain.pth")):
        assert torch.equal(small_networks[component].first.weight, states[name]["first.weight"])
    described = record.to_dict()
    assert described["variant"] == "paper" and len(described["sha256"]) == 64
    assert [file["architecture"] for file in described["files"]] == ["efficientvit_sam_l1", "dinov2_vitb14"]


def test_swapped_files_are_noticed(tmp_path, small_networks):
    saved(tmp_path / "l1.pt", {"patch_embed.proj.weight": torch.zeros(1)})
    with pytest.raises(InputError, match=r"l1\.pt do not fit efficientvit_sam_l1"):
        load_paper_networks(tmp_path, encoders=("sam",))


def test_the_digest_changes_with_any_file(tmp_path, small_networks):
    digests = set()
    for _ in range(2):
        saved(tmp_path / "l1.pt", Small().state_dict())
        digests.add(load_paper_networks(tmp_path, encoders=("sam",))[1].sha256)
    assert len(digests) == 2


# --- drawn weights -----------------------------------------------------------------------------------------


def test_drawn_weights_depend_on_name_and_seed_alone():
    shapes = {"a.weight": (4, 3), "b.weight": (4, 3), "n.running_var": (5,), "n.num_batches_tracked": ()}
    state = drawn_state(shapes)
    assert torch.equal(state["a.weight"], drawn_state({"a.weight": (4, 3)})["a.weight"])
    assert not torch.equal(state["a.weight"], state["b.weight"])
    assert not torch.equal(state["a.weight"], drawn_state(shapes, seed=1)["a.weight"])
    assert state["n.running_var"].min() >= 1
    assert state["n.num_batches_tracked"].dtype == torch.int64


# --- the real architectures --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("naming", ["original", "timm"])
def test_full_size_files_of_either_naming_load_and_are_the_same_networks(tmp_path, naming):
    """DINOv2's original file has a mask token and is pickled; timm's has none and is a safetensors file."""
    with torch.device("meta"):
        sam, dino = EfficientViTSam("l0").state_dict(), DinoV2("vits14").model.state_dict()
    shapes = {name: tuple(value.shape) for name, value in dino.items()} | {"pos_embed": (1, 1370, 384)}
    saved(tmp_path / "l0.pt", {"state_dict": drawn_state({name: v.shape for name, v in sam.items()})})
    if naming == "original":
        state = drawn_state(shapes | {"mask_token": (1, 384)})
        saved(tmp_path / "dinov2_vits14_pretrain.pth", state)
    else:
        save_file(drawn_state(shapes), tmp_path / "model.safetensors")
    networks, record = load_paper_networks(tmp_path, sam="l0", dino="vits14")
    expected = random_paper_networks(sam="l0", dino="vits14").state_dict()
    loaded = networks.state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], value) for name, value in expected.items())
    assert [file.release for file in record.files] == ["2023-09", "DINOv2 LVD-142M"]
    assert not any(parameter.is_meta for parameter in [*networks.parameters(), *networks.buffers()])
