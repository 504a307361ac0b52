"""The real command ``visualize.py``: a level, a folder, a video; and every input that it must refuse."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from common.paths import PROJECT_ROOT
from evaluation.videos import VideoFile, count_frames

REFERENCE = (
    "--original_image",
    "reference_images/walker_0.png",
    "--masked_image",
    "reference_images/walker_masked_0.png",
)


def run(*arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MUJOCO_GL": os.environ.get("MUJOCO_GL", "egl")}
    environment.pop("SAMG_DATA", None)
    return subprocess.run(
        [sys.executable, str(PROJECT_ROOT / "visualize.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        check=False,
    )


def test_a_level_gives_picture_video_and_record(tmp_path):
    flags = ("--level", "color-hard", "--background-source", "procedural", "--frames", 3, "--every", 2)
    done = run("--task_name", "cartpole_swingup", *flags, "--out", tmp_path / "p.png")
    assert done.returncode == 0, done.stderr
    assert [line.split()[-1] for line in done.stdout.splitlines()] == [
        str(tmp_path / name) for name in ("p.png", "p.json", "p.mp4")
    ]
    told = json.loads((tmp_path / "p.json").read_text())
    assert told["level"] == "color_hard" and told["source"] == "procedural"
    assert count_frames(tmp_path / "p.mp4") == len(told["frames"]) == 5
    assert all(len(frame["passes"]) == 3 and frame["points"] for frame in told["frames"])
    assert told["mean"]["iou"] > 0.6
    assert Image.open(tmp_path / "p.png").height > 1500


def test_a_folder_of_images(tmp_path):
    images = tmp_path / "mine"
    images.mkdir()
    walker = Image.open(PROJECT_ROOT / "reference_images" / "walker_0.png").convert("RGB")
    walker.save(images / "same.png")
    walker.resize((200, 200)).save(images / "larger.jpg")
    done = run("--images", images, *REFERENCE, "--no-video", "--out", tmp_path / "p")
    assert done.returncode == 0, done.stderr
    assert "1 of 2 images are not 84 x 84" in done.stderr
    told = json.loads((tmp_path / "p.json").read_text())
    assert [frame["title"] for frame in told["frames"]] == ["larger.jpg", "same.png"]
    area = np.asarray(Image.open(PROJECT_ROOT / "reference_images" / "walker_masked_0.png")).mean() / 255
    for frame in told["frames"]:
        assert frame["mask_area"] == pytest.approx(area, rel=0.3) and "iou" not in frame
    assert not (tmp_path / "p.mp4").exists()


@pytest.mark.slow
def test_a_video_file_with_options_of_the_masker(tmp_path):
    walker = np.asarray(Image.open(PROJECT_ROOT / "reference_images" / "walker_0.png").convert("RGB"))
    film = VideoFile(tmp_path / "mine.mp4")
    for shift in range(4):
        film.add(np.roll(walker, 3 * shift, 1))
    assert film.close()
    options = ("--masker_options", "passes=2", "persam=false")
    done = run(
        "--video-file", tmp_path / "mine.mp4", *REFERENCE, *options, "--every", 2, "--out", tmp_path / "p.png"
    )
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "p.json").read_text())
    assert len(told["frames"]) == 4 and count_frames(tmp_path / "p.mp4") == 4
    assert told["masker"]["method"]["passes"] == 2 and len(told["frames"][0]["passes"]) == 2


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--level", "video_hrad"], 2, ["video_hrad", "video_hard"]),
        (["--masker", "tinny"], 2, ["tinny", "tiny"]),
        (["--masker_options", "pases=1"], 2, ["pases"]),
        (["--images", "{empty}"], 2, ["--original_image"]),
        (["--images", "{empty}", *REFERENCE], 3, ["holds no image"]),
        (["--images", "{empty}", "--masker", "groundtruth"], 2, ["no simulator"]),
        (["--images", "{empty}", "--level", "train", *REFERENCE], 2, ["--level"]),
        (["--images", "a", "--video-file", "b"], 2, ["one of them"]),
        (["--original_image", "reference_images/walker_0.png"], 2, ["belong together"]),
        (["--extra_points_list", "3", "4"], 2, ["without the reference"]),
        (["--model_dir", "{empty}"], 6, ["config.yaml"]),
        (["--task_name", "humanoid_walk"], 2, ["no reference image", "annotate.py"]),
        (["--frame", "3"], 2, ["--frames"]),
    ],
)
def test_bad_input_gets_one_clear_error_before_anything_is_drawn(
    tmp_path, monkeypatch, capsys, flags, code, words
):
    import visualize
    from common.errors import run_script

    (tmp_path / "empty").mkdir()
    filled = [text.format(empty=tmp_path / "empty") for text in flags]
    monkeypatch.setattr("samg.build.load_networks", None)  # would be called in vain
    with pytest.raises(SystemExit) as left:
        run_script(lambda: visualize.main([*filled, "--out", str(tmp_path / "p.png")]))
    told = capsys.readouterr().err
    assert left.value.code == code, told
    lines = [line for line in told.splitlines() if line.startswith(("error:", "  cure:"))]
    assert len(lines) == 2 and all(word in " ".join(lines) for word in words), told
    assert not (tmp_path / "p.png").exists()
