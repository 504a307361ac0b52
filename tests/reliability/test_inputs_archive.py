"""Archives of the benchmark's data: taken file by file, checked, refused where a member points outside."""

import io
import tarfile
import zipfile

import pytest

from common.errors import InputError, ResourceError
from envs.archive import unpack_dmcgb
from envs.download import PARTS
from tests.test_download import FILES, files_in, manifest  # noqa: F401  (the fixture runs for this file, too)

ROW = "19"
TREE = {f"repo-main/src/env/data/{name}": content for name, content in FILES.items()}


def tar(path, files, *others):
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in others:
            archive.addfile(info)
    return path


def zipped(path, files, link=None):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
        if link:
            info = zipfile.ZipInfo(link)
            info.external_attr = 0o120777 << 16
            archive.writestr(info, "/etc/passwd")
    return path


@pytest.mark.reliability(
    ROW, "the benchmark's data come out of an archive of its repository, without a network"
)
@pytest.mark.parametrize("make", [tar, zipped])
def test_published_files_are_taken(make, tmp_path):
    suffix = "zip" if make is zipped else "tar.gz"
    archive = make(tmp_path / f"data.{suffix}", {**TREE, "repo-main/README.md": b"more"})
    target, told = tmp_path / "data", []
    assert unpack_dmcgb(archive, target, PARTS, told.append) == 4 and told == list(FILES)
    assert {name: (target / name).read_bytes() for name in FILES} == FILES
    assert files_in(target) == sorted(FILES)
    assert unpack_dmcgb(archive, target, PARTS, told.append) == 0


def link(name, target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.reliability(
    ROW, "archives with ../, absolute paths, links or devices are refused; nothing is written"
)
@pytest.mark.parametrize(
    "make",
    [
        lambda path: tar(path, {**TREE, "../escaped": b"x"}),
        lambda path: tar(path, {**TREE, "repo/a/../../../escaped": b"x"}),
        lambda path: tar(path, {**TREE, "/tmp/escaped": b"x"}),
        lambda path: tar(path, TREE, link("repo/link", "/etc")),
        lambda path: tar(path, TREE, link("repo/link", "../../escaped")),
        lambda path: tar(path, TREE, link("repo/hard", "/etc/passwd", tarfile.LNKTYPE)),
        lambda path: tar(path, TREE, link("repo/device", "", tarfile.CHRTYPE)),
        lambda path: zipped(path, {**TREE, "../escaped": b"x"}),
        lambda path: zipped(path, {**TREE, "/escaped": b"x"}),
        lambda path: zipped(path, {**TREE, "..\\escaped": b"x"}),
        lambda path: zipped(path, {**TREE, "C:/escaped": b"x"}),
        lambda path: zipped(path, TREE, link="repo/link"),
    ],
)
def test_archives_that_try_to_escape(make, tmp_path):
    archive = make(tmp_path / "archive")
    before = files_in(tmp_path)
    with pytest.raises(InputError, match="is refused") as caught:
        unpack_dmcgb(archive, tmp_path / "deep" / "data", PARTS)
    assert caught.value.exit_code == 3 and caught.value.hint
    assert files_in(tmp_path) == before


@pytest.mark.reliability(
    ROW, "archives that are cut, foreign, incomplete or altered are refused with their name"
)
def test_archives_that_are_wrong(tmp_path):
    whole = tar(tmp_path / "whole.tar.gz", TREE).read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.zip").write_text("no archive")
    (tmp_path / "empty.zip").write_bytes(b"")
    first = next(iter(TREE))
    zipped(tmp_path / "less.zip", {name: content for name, content in TREE.items() if name != first})
    zipped(tmp_path / "other.zip", {**TREE, first: TREE[first][:-1] + b"!"})
    for name, says in {
        "cut.tar.gz": "cannot be read",
        "text.zip": "cannot be read",
        "empty.zip": "cannot be read",
        "less.zip": "1 of 4 files are not in",
        "other.zip": "not the published file",
        "nowhere.zip": "does not exist",
    }.items():
        with pytest.raises(InputError, match=says) as caught:
            unpack_dmcgb(tmp_path / name, tmp_path / "data", PARTS)
        assert name in caught.value.message
    assert not (tmp_path / "data").exists() or not files_in(tmp_path / "data")


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResourceError, match="cannot be written"):
        unpack_dmcgb(zipped(tmp_path / "data.zip", TREE), tmp_path / "file", PARTS)
