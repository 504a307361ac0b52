"""Downloads against a server on this machine: whole, altered, cut, absent, and no server at all."""

import hashlib
import importlib.util
import json
import subprocess
import sys

import pytest

from common.errors import ConfigError, InputError, ResourceError
from common.paths import PROJECT_ROOT
from envs import download
from envs.data import DATA_VARIABLE, MANIFEST
from envs.download import fetch_dmcgb
from tests.support.file_server import serve

FILES = {
    "color_easy.pt": b"easy colours" * 40,
    "color_hard.pt": b"hard colours" * 41,
    "video_easy/video0.mp4": bytes(range(256)) * 400,
    "video_hard/video0.mp4": b"known by its git blob id alone" * 99,
}


@pytest.fixture(autouse=True)
def manifest(tmp_path, monkeypatch):
    entries = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        for name, content in FILES.items()
    }
    blob = FILES["video_hard/video0.mp4"]
    entries["video_hard/video0.mp4"] = {
        "git_blob_sha1": hashlib.sha1(f"blob {len(blob)}\0".encode() + blob).hexdigest()
    }
    path = tmp_path / "manifest.json"
    facts = {"repository": "owner/name", "commit": "abc", "folder": "data", "files": entries}
    path.write_text(json.dumps(facts))
    monkeypatch.setattr(download, "MANIFEST", path)
    monkeypatch.setattr(download.time, "sleep", lambda _: None)
    for name in (download.URL_VARIABLE, DATA_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    return path


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_everything_arrives_whole_and_nothing_is_fetched_twice(tmp_path):
    target, lines = tmp_path / "data", []
    with serve(FILES) as served:
        assert fetch_dmcgb(target, base_url=served.url + "/", report=lines.append) == 4
        assert {name: (target / name).read_bytes() for name in FILES} == FILES
        assert files_in(target) == sorted(FILES)
        assert len(served.seen) == 4 == len(lines)
        assert fetch_dmcgb(target, base_url=served.url) == 0
        (target / "color_easy.pt").write_bytes(b"spoilt")
        assert fetch_dmcgb(target, base_url=served.url) == 1
        assert len(served.seen) == 5 and (target / "color_easy.pt").read_bytes() == FILES["color_easy.pt"]


def test_parts_can_be_chosen(tmp_path):
    with serve(FILES) as served:
        assert fetch_dmcgb(tmp_path / "data", ["color"], served.url) == 2
        assert files_in(tmp_path / "data") == ["color_easy.pt", "color_hard.pt"]
    for wrong in (["colour"], []):
        with pytest.raises(ConfigError):
            fetch_dmcgb(tmp_path / "data", wrong, served.url)


@pytest.mark.reliability("19", "a file that was altered on its way is never kept; what is complete stays")
@pytest.mark.parametrize("name", ["color_hard.pt", "video_hard/video0.mp4"], ids=["sha256", "git blob"])
@pytest.mark.parametrize("fault", ["altered", "longer", "short"])
def test_an_altered_file_is_never_kept(name, fault, tmp_path):
    with (
        serve(FILES, {name: [fault]}) as served,
        pytest.raises(InputError, match="not the published file") as caught,
    ):
        fetch_dmcgb(tmp_path / "data", base_url=served.url)
    assert name in caught.value.message
    kept = files_in(tmp_path / "data")
    assert name not in kept and not any(".stage" in file for file in kept)
    assert "color_easy.pt" in kept, "what was complete is lost"


@pytest.mark.reliability("19", "redirects are followed")
def test_redirects(tmp_path):
    with serve(FILES, {name: ["redirect"] for name in FILES}) as served:
        assert fetch_dmcgb(tmp_path / "data", base_url=served.url) == 4
    assert {name: (tmp_path / "data" / name).read_bytes() for name in FILES} == FILES


@pytest.mark.reliability("19", "a connection that is cut once is tried again")
def test_a_connection_that_is_cut_once_is_tried_again(tmp_path):
    with serve(FILES, {"video_easy/video0.mp4": ["cut"], "color_easy.pt": [503]}) as served:
        assert fetch_dmcgb(tmp_path / "data", base_url=served.url) == 4
    assert served.seen.count("video_easy/video0.mp4") == 2 == served.seen.count("color_easy.pt")


@pytest.mark.reliability(
    "19", "a connection that is always cut is an error; the same command goes on where it stopped"
)
@pytest.mark.parametrize("fault", ["cut", "stall", "loop", 500])
def test_a_connection_that_is_always_cut_is_an_error(fault, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_TIMEOUT", 0.3)
    with serve(FILES, {"video_easy/video0.mp4": [fault] * 9}) as served:
        with pytest.raises(InputError, match=r"video_easy/video0\.mp4 cannot be downloaded") as caught:
            fetch_dmcgb(tmp_path / "data", base_url=served.url)
        assert fault == "loop" or served.seen.count("video_easy/video0.mp4") == 3
        assert "same command again" in caught.value.hint
        assert files_in(tmp_path / "data") == ["color_easy.pt", "color_hard.pt"]
        (tmp_path / "data" / "video_easy" / ".stage-dead.mp4").write_bytes(b"left by a killed download")
    with serve(FILES) as served:
        assert fetch_dmcgb(tmp_path / "data", base_url=served.url) == 2
        assert "color_easy.pt" not in served.seen
    assert files_in(tmp_path / "data") == sorted(FILES)


@pytest.mark.reliability("19", "404 is an error at once")
def test_an_absent_file_is_not_asked_for_again(tmp_path):
    with serve(FILES, {"color_easy.pt": [404] * 9}) as served:
        with pytest.raises(InputError, match="HTTP 404"):
            fetch_dmcgb(tmp_path / "data", base_url=served.url)
        assert served.seen == ["color_easy.pt"]
    assert files_in(tmp_path / "data") == []


@pytest.mark.reliability("19", "without a network one error names the cures")
def test_without_a_network_one_error_names_the_cures(tmp_path):
    with serve(FILES) as served:
        pass  # the server is gone now
    with pytest.raises(InputError, match="cannot be downloaded") as caught:
        fetch_dmcgb(tmp_path / "data", base_url=served.url)
    for cure in ("--base-url", "SAMG_DATA", "--background-source procedural"):
        assert cure in caught.value.hint
    assert caught.value.exit_code == 3


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "data").write_text("a file, not a folder")
    with serve(FILES) as served, pytest.raises(ResourceError, match="cannot be written"):
        fetch_dmcgb(tmp_path / "data", base_url=served.url)


def test_the_address_is_the_pinned_commit_unless_told_otherwise(monkeypatch):
    assert download.default_base_url() == "https://raw.githubusercontent.com/owner/name/abc/data"
    monkeypatch.setenv(download.URL_VARIABLE, "http://mirror/x")
    assert download.default_base_url() == "http://mirror/x"
    commit = json.loads(MANIFEST.read_text())["commit"]
    assert len(bytes.fromhex(commit)) == 20


def load_script():
    spec = importlib.util.spec_from_file_location("download_script", PROJECT_ROOT / "setup" / "download.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_command_downloads_and_says_how_to_use_the_folder(tmp_path, capsys, monkeypatch):
    script, target = load_script(), tmp_path / "data"
    with serve(FILES) as served:
        script.main(["dmcgb", "--dir", str(target), "--only", "color,video-easy", "--base-url", served.url])
    said = capsys.readouterr().out
    assert "3 files downloaded" in said and f"export SAMG_DATA={target}" in said
    monkeypatch.setenv(DATA_VARIABLE, str(target))
    with serve(FILES) as served:
        script.main(["dmcgb", "--only", "color", "--base-url", served.url])
    said = capsys.readouterr().out
    assert "0 files downloaded" in said and "export" not in said


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--help"], 0, "dmcgb"),
        (["dmcgb", "--help"], 0, "--base-url"),
        ([], 2, "required"),
        (["dmcgb", "--only", "colour"], 2, "Did you mean color?"),
        (["dmcgb", "--only", "color", "--base-url", "http://127.0.0.1:9"], 3, "cure:"),
    ],
)
def test_exit_codes_of_the_command(arguments, code, says, tmp_path):
    command = [sys.executable, str(PROJECT_ROOT / "setup" / "download.py"), *arguments]
    environment = {"PYTHONPATH": str(PROJECT_ROOT), "SAMG_CACHE": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert says in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
