"""The benchmark's files: both formats of colours, nothing unpickled, every fault with its cures."""

import json
import os

import numpy as np
import pytest
import torch

from common.errors import ConfigError, InputError, SamgError
from envs import data
from envs.data import COLOUR_KEYS, data_directory, find_clips, is_published, load_colours, manifest_entries
from envs.levels import LEVELS, build_scene, describe_level, get_level, resolve_protocol
from envs.procedural import COLOUR_STD, procedural_colours
from envs.scene import NullScene

SHARED = os.environ.get("SAMG_DATA")
needs_data = pytest.mark.skipif(not SHARED, reason="SAMG_DATA is not set: no benchmark data here")


def entries(seed=0):
    rng = np.random.default_rng(seed)
    return [{key: rng.random(3).round(6).tolist() for key in COLOUR_KEYS} for _ in range(100)]


def write_json(folder, values, name="color_easy.json"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(values))
    return folder


@pytest.fixture(autouse=True)
def no_other_data(monkeypatch, tmp_path):
    monkeypatch.delenv("SAMG_DATA", raising=False)
    monkeypatch.setenv("SAMG_CACHE", str(tmp_path / "samg-cache"))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_json_and_pt_give_the_same_colours(tmp_path, zipped, kind):
    values = entries()
    write_json(tmp_path / "json", values)
    arrays = [{key: np.array(rgb, dtype=kind) for key, rgb in entry.items()} for entry in values]
    (tmp_path / "pt").mkdir()
    path = tmp_path / "pt" / "color_easy.pt"
    torch.save(arrays, path, _use_new_zipfile_serialization=zipped)
    from_json = load_colours("easy", tmp_path / "json").entries
    from_pt = load_colours("easy", tmp_path / "pt").entries
    assert len(from_pt) == 100
    for one, other, value in zip(from_json, from_pt, values, strict=True):
        for key in COLOUR_KEYS:
            assert one[key] == tuple(value[key])
            np.testing.assert_allclose(other[key], value[key], atol=1e-7)


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.reliability("18", "a colour file that would run code is refused and not run")
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_pt_file_runs_no_code(tmp_path, zipped):
    sprung = tmp_path / "sprung"
    torch.save([Trap(sprung)] * 100, tmp_path / "color_hard.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=r"color_hard\.pt"):
        load_colours("hard", tmp_path)
    assert not sprung.exists()


@pytest.mark.reliability("18", "a truncated colour file is refused")
def test_a_truncated_pt_file_is_an_error(tmp_path):
    path = tmp_path / "color_hard.pt"
    torch.save(entries(), path)
    for size in (0, 10, path.stat().st_size // 2):
        (tmp_path / "cut").mkdir(exist_ok=True)
        (tmp_path / "cut" / "color_hard.pt").write_bytes(path.read_bytes()[:size])
        with pytest.raises(InputError, match=r"color_hard\.pt"):
            load_colours("hard", tmp_path / "cut")


def broken_tables():
    one = entries()
    yield "99 entries", one[:99]
    yield "dict", {"colours": one}
    yield "lacks a key", [*one[:5], {"grid_rgb1": [0, 0, 0]}, *one[6:]]
    yield "entry 3", [*one[:3], {**one[3], "self_rgb": [0.1, 0.2]}, *one[4:]]
    yield "entry 4", [*one[:4], {**one[4], "self_rgb": [0.1, 0.2, 1.5]}, *one[5:]]
    yield "entry 7", [*one[:7], {**one[7], "skybox_rgb": [0.1, -0.2, 0.5]}, *one[8:]]
    yield "not numeric", [{**one[0], "grid_rgb2": ["a", "b", "c"]}, *one[1:]]
    yield "not numeric", [{**one[0], "grid_rgb2": {"r": 1}}, *one[1:]]


@pytest.mark.parametrize(("says", "table"), broken_tables())
def test_a_wrong_table_says_what_is_wrong(says, table, tmp_path):
    write_json(tmp_path, table)
    with pytest.raises(InputError, match=says) as caught:
        load_colours("easy", tmp_path)
    assert "color_easy.json" in caught.value.message and "100 entries" in caught.value.message


def test_colours_that_are_no_numbers_are_refused(tmp_path):
    table = [{key: np.array([0.5, np.nan, 0.5]) for key in COLOUR_KEYS} for _ in range(100)]
    torch.save(table, tmp_path / "color_easy.pt")
    with pytest.raises(InputError, match="entry 0"):
        load_colours("easy", tmp_path)
    (tmp_path / "color_easy.json").write_text("[1, 2")
    with pytest.raises(InputError, match="not valid JSON"):
        load_colours("easy", tmp_path)


def test_the_data_directory_is_argument_then_variable_then_cache(tmp_path, monkeypatch):
    assert data_directory() == tmp_path / "samg-cache" / "dmcgb"
    monkeypatch.setenv("SAMG_DATA", str(tmp_path / "variable"))
    assert data_directory() == tmp_path / "variable"
    assert data_directory(tmp_path / "argument") == tmp_path / "argument"


@pytest.mark.parametrize("level", [name for name in LEVELS if name != "train"])
def test_missing_data_is_an_error_with_both_cures(level, tmp_path):
    for build in (lambda: build_scene(level, "walker", data_dir=tmp_path), lambda: describe_level(level)):
        with pytest.raises(InputError) as caught:
            build()
        for cure in (
            "python setup/download.py dmcgb",
            "--background-source procedural",
            "background.source=procedural",
        ):
            assert cure in caught.value.hint
        assert caught.value.exit_code == 3


def test_clips_are_ordered_by_number_and_unfinished_ones_ignored(tmp_path):
    folder = tmp_path / "video_easy"
    folder.mkdir()
    for name in ("video10.mp4", "video2.mp4", "video1.mp4", "notes.txt", ".stage-1.mp4", "extra.avi"):
        (folder / name).write_text("x")
    names = [path.name for path in find_clips("easy", tmp_path)]
    assert names == ["video1.mp4", "video2.mp4", "video10.mp4", "extra.avi"]


def test_clips_are_published_only_whole_and_with_the_published_content(tmp_path, monkeypatch):
    folder = tmp_path / "video_easy"
    folder.mkdir()
    (folder / "video0.mp4").write_bytes(b"hello")
    (folder / "video1.mp4").write_bytes(b"what is up, doc?")
    files = {
        "video_easy/video0.mp4": {
            "sha256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
            "bytes": 5,
        },
        # The example of the book Pro Git, chapter "Git Objects".
        "video_easy/video1.mp4": {"git_blob_sha1": "bd9dbf5aae1a3862dd1526723246b20206e5fc37"},
    }
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps({"files": files}))
    monkeypatch.setattr(data, "MANIFEST", manifest)
    assert is_published(find_clips("easy", tmp_path))
    (folder / "video1.mp4").write_bytes(b"what is up, dog?")
    assert not is_published(find_clips("easy", tmp_path))
    (folder / "video1.mp4").write_bytes(b"what is up, doc?")
    (folder / "video2.mp4").write_bytes(b"mine")
    assert not is_published(find_clips("easy", tmp_path))
    (folder / "video2.mp4").unlink()
    (folder / "video1.mp4").unlink()
    assert not is_published(find_clips("easy", tmp_path)), "one of two is not the benchmark"
    assert not is_published([])


def test_clips_that_are_not_all_of_the_benchmark_warn_once(tmp_path, caplog):
    folder = tmp_path / "video_easy"
    folder.mkdir()
    for number in range(10):
        (folder / f"video{number}.mp4").touch()
    data.warn_unless_whole(find_clips("easy", tmp_path))
    assert caplog.messages == []
    for number in range(3, 10):
        (folder / f"video{number}.mp4").unlink()
    for _ in range(2):
        data.warn_unless_whole(find_clips("easy", tmp_path))
    assert caplog.messages == ["3 of 10 clips of DMC-GB's video_easy: not the published benchmark"]
    (folder / "mine.mp4").touch()
    data.warn_unless_whole(find_clips("easy", tmp_path))
    assert caplog.messages[1].startswith("3 of 10 clips of DMC-GB's video_easy and 1 other: not")


def test_the_manifest_names_every_file_of_the_benchmark():
    files = manifest_entries()
    wanted = {"color_easy.pt", "color_hard.pt"}
    wanted |= {f"video_easy/video{i}.mp4" for i in range(10)} | {
        f"video_hard/video{i}.mp4" for i in range(100)
    }
    assert set(files) == wanted
    for entry in files.values():
        if "sha256" in entry:
            assert len(bytes.fromhex(entry["sha256"])) == 32 and entry["bytes"] > 0
        else:
            assert len(bytes.fromhex(entry["git_blob_sha1"])) == 20


@needs_data
def test_the_data_here_are_the_published_ones():
    entries = manifest_entries()
    for clip in find_clips("hard", SHARED)[:8]:
        assert data.matches(clip, entries[f"video_hard/{clip.name}"])
    facts = describe_level("color_hard", data_dir=SHARED)
    assert facts["colors"] == 100 and facts["agent_recoloured"] and facts["source"] == "dmcgb"
    facts = describe_level("video-easy", data_dir=SHARED, protocol="samg")
    clips = find_clips("easy", SHARED)
    assert facts["clips"] == len(clips) and facts["key"] == "black"
    assert facts["published"] == (len(clips) == 10)


@needs_data
@pytest.mark.parametrize("difficulty", ["easy", "hard"])
def test_generated_colours_have_the_published_spread(difficulty):
    def table(found):
        return np.array([[entry[key] for key in COLOUR_KEYS] for entry in found.entries])

    generated, published = table(procedural_colours(difficulty)), table(load_colours(difficulty, SHARED))
    np.testing.assert_allclose(generated.mean(axis=0), published.mean(axis=0), atol=0.09)
    np.testing.assert_allclose(generated.std(axis=0), published.std(axis=0), atol=0.05)


@pytest.mark.parametrize("difficulty", ["easy", "hard"])
def test_generated_colours_are_seeded_and_in_range(difficulty):
    found = procedural_colours(difficulty)
    values = np.array([[entry[key] for key in COLOUR_KEYS] for entry in found.entries])
    assert values.shape == (100, 4, 3) and values.min() >= 0 and values.max() <= 1
    np.testing.assert_allclose(values[:, 1], np.minimum(values[:, 0] + 0.1, 1), atol=1e-9)
    sky = values[:, 2]
    assert abs(sky[:, 1].std() - COLOUR_STD[difficulty]) < 0.03  # 0.6 is far from both clips
    procedural_colours.cache_clear()
    assert procedural_colours(difficulty) == found
    assert procedural_colours("easy").digest != procedural_colours("hard").digest


def test_levels_have_aliases_and_unknown_ones_name_the_nearest():
    assert LEVELS == ("train", "color_easy", "color_hard", "video_easy", "video_hard")
    assert get_level("original").name == "train" and get_level("Video-Hard").name == "video_hard"
    assert get_level(get_level("color_easy")) is get_level("color_easy")
    assert isinstance(build_scene("original", "walker"), NullScene)
    with pytest.raises(ConfigError, match="vidoe_hard") as caught:
        build_scene("vidoe_hard", "walker")
    assert "Did you mean video_hard?" in caught.value.hint


@pytest.mark.parametrize(
    "options", [{"protocol": "dmcbg"}, {"source": "precedural"}, {"key": "gren"}, {"colors": "smag"}]
)
@pytest.mark.parametrize("level", ["train", "color_easy", "video_hard"])
def test_unknown_choices_are_refused_at_every_level(options, level):
    with pytest.raises(SamgError) as caught:
        build_scene(level, "walker", **{"source": "procedural", **options})
    assert isinstance(caught.value, ConfigError) and "Did you mean" in caught.value.hint
    with pytest.raises(ConfigError):
        describe_level(level, **{"source": "procedural", **options})


def test_protocols_and_overrides():
    assert resolve_protocol().recolour_agent and resolve_protocol().key == "green"
    samg = resolve_protocol("samg")
    assert not samg.recolour_agent and samg.key == "black"
    mixed = resolve_protocol("samg", key="segmentation", colors="dmcgb")
    assert mixed.recolour_agent and mixed.key == "segmentation" and mixed.name == "samg"


def test_results_say_where_backgrounds_came_from():
    assert describe_level("train") == {"level": "train"}
    colours = describe_level("color_hard", source="procedural", protocol="samg")
    assert colours["source"] == "procedural" and colours["protocol"] == "samg" and colours["colors"] == 100
    assert colours["agent_recoloured"] is False and "clips" not in colours
    videos = describe_level("video_hard", source="procedural", key="segmentation")
    assert videos["clips"] == 30 == len(videos["clip_names"]) and videos["key"] == "segmentation"
    assert videos["published"] is False
    json.dumps([colours, videos])
