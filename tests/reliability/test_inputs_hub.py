"""The hub's real client against a server on this machine that cuts, lies, stalls and redirects."""

import hashlib
import time

import pytest
from huggingface_hub import constants

from common.errors import InputError
from samg.weights import download_weights, find_paper_weights, hub
from tests.support.file_server import serve

SAM = "mit-han-lab/efficientvit-sam/resolve/main/efficientvit_sam_l1.pt"
DINO = "timm/vit_base_patch14_dinov2.lvd142m/resolve/main/model.safetensors"
FILES = {SAM: bytes(range(256)) * 4096, DINO: b"dino" * 3000}
ROW = "19"


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    """An empty cache, and a client that waits one second and no longer."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 1)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)  # what is resumed is counted in chunks
    monkeypatch.setattr(hub, "CHECKPOINTS", tmp_path / "checkpoints")
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    return tmp_path / "cache"


@pytest.fixture
def start(monkeypatch):
    """Return what starts a server and lets the client know it."""

    def begin(behaviour=None):
        context = serve(FILES, behaviour)
        served = context.__enter__()
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        template = f"{served.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        opened.append(context)
        return served

    opened = []
    yield begin
    for context in opened:
        context.__exit__(None, None, None)


def snapshots(cache):
    """Return the contents of all files that count as downloaded."""
    return sorted(path.read_bytes() for path in cache.glob("models--*/snapshots/*/*"))


WHOLE = sorted(FILES.values())


@pytest.mark.reliability(
    ROW, "weights: cut downloads are resumed, also where the server ignores Range; redirects work"
)
@pytest.mark.parametrize(
    ("steps", "ranges"),
    [
        ([], [None]),
        (["cut"], [None, f"bytes={len(FILES[SAM]) // 2}-"]),
        (["cut", "no-range"], [None, f"bytes={len(FILES[SAM]) // 2}-"]),
        (["stall"], [None, f"bytes={len(FILES[SAM]) // 2}-"]),
        (["redirect"], [None, None]),
    ],
    ids=["good", "cut", "cut, no range", "stall", "redirect"],
)
def test_weights_arrive_whole(steps, ranges, start, empty_cache):
    served = start({SAM: steps})
    records = download_weights("paper")
    assert snapshots(empty_cache) == WHOLE and served.gets(SAM) == ranges
    assert {record.sha256 for record in records.values()} == {
        hashlib.sha256(content).hexdigest() for content in FILES.values()
    }
    before = len(served.asked)
    assert set(find_paper_weights().values()) == set(records)
    assert len(served.asked) == before, "what is in the cache needs no network"


@pytest.mark.reliability(
    ROW, "weights: what is longer, shorter, altered or missing is never taken for the file"
)
@pytest.mark.parametrize(
    ("step", "says"),
    [
        ("longer", "another size"),
        ("short", "another size"),
        ("altered", "its SHA-256 is"),
        (404, "answered 404"),
        (500, "answered 500"),
        ("loop", "cannot be reached"),
    ],
)
def test_weights_that_are_wrong_are_not_kept(step, says, start, empty_cache):
    start({SAM: [step] * 20})
    with pytest.raises(InputError, match=says) as caught:
        download_weights("paper")
    assert caught.value.exit_code == 3 and caught.value.hint
    assert snapshots(empty_cache) == []
    with pytest.raises(InputError):
        find_paper_weights()
    start()
    download_weights("paper")
    assert snapshots(empty_cache) == WHOLE


@pytest.mark.reliability(
    ROW, "weights: a poisoned cache is refused when used, and repaired by the download command"
)
def test_a_poisoned_cache_is_repaired(start, empty_cache):
    served = start()
    path = next(iter(download_weights("paper")))
    poisoned = path.read_bytes()[:-3] + b"bad"
    path.resolve().write_bytes(poisoned)
    with pytest.raises(InputError, match="damaged: its SHA-256 is"):
        hub.describe_file(path, "sam", "l1")
    download_weights("paper")
    assert snapshots(empty_cache) == WHOLE and len(served.gets(SAM)) == 2
    (aside,) = empty_cache.glob("models--*/blobs/*.bad")
    assert aside.read_bytes() == poisoned


@pytest.mark.reliability("17", "offline mode asks no network at all")
def test_offline_mode_asks_nothing(start, monkeypatch):
    served = start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    began = time.monotonic()
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is set"):
        find_paper_weights()
    assert not served.asked and time.monotonic() - began < 5
