"""Readers of files and values, each with a strategy of what it may be given."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save as to_safetensors

from algos.schedules import parse_schedule
from common.files import read_json
from common.paths import existing_file
from envs.archive import open_members
from envs.data import COLOUR_KEYS, load_colours
from envs.video_background import VideoFiles
from evaluation.footage import ImageFootage, VideoFootage
from evaluation.partial import Partial
from evaluation.results import EvaluationResult, load_result
from evaluation.videos import VideoFile
from samg.artefact import read_record
from samg.images import binarise, read_rgb
from samg.reference import Reference, parse_points
from samg.weights import read_state
from tests.support.fuzzing import ANYTHING, altered, spoilt
from tests.support.reports import write_results
from tests.support.scenes import scene
from training.config import compose_config, prepare_overrides
from training.episodes import DAMAGE, Episode
from training.rules import check_values
from training.snapshot import SnapshotStore, load_snapshot

IMAGE, MASK = scene(size=24)
PICTURES = (
    ("PNG", ".png"),
    ("JPEG", ".jpg"),
    ("GIF", ".gif"),
    ("BMP", ".bmp"),
    ("TIFF", ".tif"),
    ("WEBP", ".webp"),
)


class Reader(NamedTuple):
    """What is fuzzed.

    ``make`` gets a folder and returns the strategy of inputs and the function that reads one; ``share``
    scales the number of cases, for readers that take long.
    """

    make: Callable[[Path], tuple[st.SearchStrategy[Any], Callable[[Any], Any]]]
    share: float = 1.0
    allowed: tuple[type[Exception], ...] = ()


def encode(pixels: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def images(folder):
    def read(case):
        suffix, content = case
        path = folder / f"image{suffix}"
        path.write_bytes(content)
        pixels, _ = read_rgb(path, "reference image")
        assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3

    return st.one_of(
        *(st.tuples(st.just(suffix), spoilt(encode(IMAGE, kind))) for kind, suffix in PICTURES)
    ), read


def picture_folders(folder):
    def read(contents):
        for index, content in enumerate(contents):
            (folder / f"{index}.png").write_bytes(content)
        for _, frame in ImageFootage(folder, 24).frames(None):
            assert frame.shape == (24, 24, 3)

    return st.lists(spoilt(encode(IMAGE, "PNG")), min_size=2, max_size=2), read


def masks(folder):
    Image.fromarray(IMAGE).save(folder / "image.png")

    def read(case):
        mode, height, width, values, part = case
        pixels = np.resize(np.array(values, np.uint8), (height, width))
        Image.fromarray(pixels).convert(mode).save(folder / "mask.tif")
        parts = [folder / "mask.tif"] if part else []
        found = Reference.load(folder / "image.png", folder / "mask.tif", (), parts)
        assert found.mask.any() and found.mask.shape == IMAGE.shape[:2]

    sizes = st.sampled_from((24, 24, 24, 1, 23, 48))
    modes = st.sampled_from(("1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "F", "I", "YCbCr"))
    values = st.lists(st.sampled_from((0, 1, 16, 17, 127, 128, 255)), min_size=1, max_size=9)
    return st.tuples(modes, sizes, sizes, values, st.booleans()), read


def mask_files(folder):
    Image.fromarray(IMAGE).save(folder / "image.png")

    def read(content):
        (folder / "mask.png").write_bytes(content)
        binarise(Reference.load(folder / "image.png", folder / "mask.png").cutouts[0])

    return spoilt(encode(MASK.astype(np.uint8) * 255, "PNG")), read


def points(folder):
    def read(values):
        found = parse_points(values)
        assert found.ndim == 2 and found.shape[1] == 2 and np.isfinite(found).all()
        image, mask = IMAGE.copy(), MASK.copy()
        placed = Reference.from_arrays(image, mask, values).points
        assert ((placed >= 0) & (placed <= 23)).all()

    numbers = st.one_of(st.integers(-5, 30), st.floats(-5, 30), st.floats(), ANYTHING)
    return st.one_of(
        st.lists(st.lists(numbers, max_size=3), max_size=3), st.lists(numbers, max_size=6), ANYTHING
    ), read


def video(folder: Path) -> bytes:
    file = VideoFile(folder / "whole.mp4", fps=10)
    for number in range(4):
        file.add(np.full((104, 104, 3), 50 * number, np.uint8))
    assert file.close()
    return (folder / "whole.mp4").read_bytes()


def videos(folder):
    def read(content):
        path = folder / "clip.mp4"
        path.write_bytes(content)
        for _, frame in VideoFootage(path, 24).frames(20):
            assert frame.shape == (24, 24, 3)
        clip = VideoFiles([path], 24, folder / "cache").clip(0)
        assert clip.shape[1:] == (24, 24, 3) and len(clip) >= 1

    return spoilt(video(folder)), read


def result_file(folder: Path) -> Path:
    return write_results(folder, ["walker_walk"], ["train"], ["tiny"], [1])[0]


def results(folder):
    path = result_file(folder)
    whole = json.loads(path.read_text())

    def read(content):
        path.write_text(json.dumps(content))
        assert isinstance(load_result(path), EvaluationResult)

    return altered(whole), read


def result_bytes(folder):
    path = result_file(folder)

    def read(content):
        path.write_bytes(content)
        load_result(path)

    return spoilt(path.read_bytes()), read


def partials(folder):
    whole = {
        "version": 1,
        "identity": {"seed": 0},
        "episodes": [
            {
                "episode": 0,
                "episode_return": 1.0,
                "seed": 1,
                "length": 5,
                "terminated": False,
                "success": None,
                "mask_iou": None,
                "mask_recall": None,
                "mask_precision": None,
                "empty_share": 0.0,
                "point_error": None,
            }
        ],
        "random_returns": {"3": 1.5},
        "view": {
            "episode": 0,
            "step": 1,
            "raw": "iVBORw0KGgo=",
            "masked": "",
            "mask": "",
            "foreground": None,
        },
    }

    def read(content):
        (folder / "a.partial").write_text(json.dumps(content))
        Partial.open(folder / "a.partial", {"seed": 0}, overwrite=False)

    return altered(whole), read


def colours(folder):
    whole = [{key: [0.1, 0.2, 0.3] for key in COLOUR_KEYS} for _ in range(100)]

    def read(content):
        (folder / "color_easy.json").write_text(json.dumps(content))
        assert len(load_colours("easy", folder).entries) == 100

    return altered(whole), read


def colour_bytes(folder):
    buffer = io.BytesIO()
    torch.save([{key: np.array([0.1, 0.2, 0.3]) for key in COLOUR_KEYS}] * 100, buffer)

    def read(content):
        (folder / "color_hard.pt").write_bytes(content)
        load_colours("hard", folder)

    return spoilt(buffer.getvalue()), read


def weights(folder):
    state, buffer = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(3)}, io.BytesIO()
    torch.save(state, buffer)

    def read(case):
        suffix, content = case
        (folder / f"l1{suffix}").write_bytes(content)
        assert all(isinstance(value, torch.Tensor) for value in read_state(folder / f"l1{suffix}").values())

    kinds = ((".pt", buffer.getvalue()), (".safetensors", to_safetensors(state)))
    return st.one_of(*(st.tuples(st.just(suffix), spoilt(content)) for suffix, content in kinds)), read


def saved_maskers(folder):
    Reference.from_arrays(IMAGE, MASK, [[10, 10]], [MASK]).save(folder / "reference")
    path = folder / "reference" / "reference.json"
    whole = json.loads(path.read_text())

    def read(content):
        path.write_text(json.dumps(content))
        (folder / "masker.json").write_text(json.dumps(content))
        try:
            Reference.restore(folder / "reference")
        finally:
            read_record(folder)

    return altered({**whole, "format": 1, "name": "samg"}), read


def snapshots(folder):
    store = SnapshotStore(folder / "snapshots")
    path = store.save(7, {"agent": {"w": torch.ones(3)}, "loop": {"n": 1, "list": [1, 2.5]}}, {"num_envs": 1})
    files = {file.name: file.read_bytes() for file in path.iterdir()}

    def read(case):
        name, content = case
        for other, whole in files.items():
            (path / other).write_bytes(content if other == name else whole)
        found = store.latest_valid(set_aside=False)
        assert content == files[name] or name not in files, "a spoilt snapshot passed"
        load_snapshot(found)

    return st.one_of(*(st.tuples(st.just(name), spoilt(whole)) for name, whole in files.items())), read


def episodes(folder):
    episode = Episode(
        3, np.zeros((5, 3, 8, 8), np.uint8), np.zeros((4, 2), np.float32), *np.zeros((2, 4), np.float32)
    )
    episode.save(folder)
    whole = (folder / episode.name).read_bytes()

    def read(content):
        (folder / episode.name).write_bytes(content)
        assert len(Episode.load(folder / episode.name)) == 4

    return spoilt(whole), read


def archives(folder):
    import tarfile
    import zipfile

    with zipfile.ZipFile(folder / "whole.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data/a", b"content" * 20)
    with tarfile.open(folder / "whole.tar.gz", "w:gz") as archive:
        archive.add(folder / "whole.zip", "data/b")

    def read(content):
        (folder / "archive").write_bytes(content)
        with open_members(folder / "archive") as members:
            for member in members:
                if member.escapes() is None and member.kind == "file" and member.size < 10**6:
                    member.open().read()

    return st.one_of(*(spoilt((folder / name).read_bytes()) for name in ("whole.zip", "whole.tar.gz"))), read


def json_files(folder):
    def read(content):
        (folder / "a.json").write_bytes(content)
        read_json(folder / "a.json")

    return spoilt(b'{"a": [1, 2.5, null, "text"], "b": {"c": true}}'), read


def paths(folder):
    texts = st.one_of(
        st.text(max_size=30),
        st.sampled_from(("~nobody/x", "~", "", "a\0b", "x" * 5000, "a/" * 3000, "\ud800")),
    )
    return texts, lambda text: existing_file(text, "reference image")


def schedules(folder):
    forms = st.one_of(
        st.text(max_size=30),
        st.floats(),
        st.tuples(
            st.sampled_from(("linear", "step_linear", "cosine")), st.lists(st.floats() | st.text(max_size=3))
        ).map(lambda call: f"{call[0]}({','.join(map(str, call[1]))})"),
    )

    def read(text):
        value = parse_schedule(text)(1000)
        assert value >= 0

    return forms, read


def overrides(folder):
    keys = st.sampled_from(
        "batch_size lr task masker agent nstep masker.passes extra_points_list resume background.type "
        "agent.lr agent.stddev_schedule seed use_SAM_g +new ~seed batchsize image_size num_train_frames "
        "discount stddev_schedule +study data.overlay_dir".split()
    )
    values = st.one_of(
        st.integers().map(str),
        st.floats().map(str),
        st.sampled_from(
            ("tiny", "none", "walker_walk", "drqv2", "null", "true", "[1,2]", "{a: 1}", "${seed}", "???")
        ),
        st.text(max_size=12),
    )
    texts = st.one_of(st.tuples(keys, values).map("=".join), st.text(max_size=20))

    def read(arguments):
        check_values(compose_config(prepare_overrides(["masker=none", *arguments])))

    return st.lists(texts, min_size=1, max_size=2), read


READERS = {
    "images": Reader(images),
    "picture folders": Reader(picture_folders, 0.5),
    "masks": Reader(masks),
    "mask files": Reader(mask_files),
    "points": Reader(points, 2),
    "videos": Reader(videos, 0.5),
    "results": Reader(results),
    "result bytes": Reader(result_bytes, 0.5),
    "unfinished evaluations": Reader(partials, 0.5),
    "colours": Reader(colours, 0.5),
    "colour bytes": Reader(colour_bytes, 0.5),
    "weights": Reader(weights),
    "saved maskers": Reader(saved_maskers, 0.5),
    "snapshots": Reader(snapshots),
    "episodes": Reader(episodes, 1, DAMAGE),
    "archives": Reader(archives),
    "JSON": Reader(json_files, 0.5),
    "paths": Reader(paths, 0.5),
    "schedules": Reader(schedules, 0.5),
    "overrides": Reader(overrides, 0.25),
}
