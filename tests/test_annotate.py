"""The reference images of this repository, and the command that makes them."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

import annotate
from common.errors import ConfigError, InputError, run_script
from common.paths import PROJECT_ROOT
from envs.reference_scene import POSES, VIEWS, deepest_pixel, draw_reference

ALL = {**POSES, **VIEWS}
FOLDER = PROJECT_ROOT / "reference_images"


def read(name):
    return np.array(Image.open(FOLDER / name))


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["annotate.py", *map(str, arguments)])
    annotate.main()


@pytest.mark.parametrize(
    "domain",
    [pytest.param(d, marks=pytest.mark.slow) if d in ("hammer", "relocate", *VIEWS) else d for d in ALL],
)
def test_committed_files_are_what_the_simulator_draws(domain):
    picture = draw_reference(domain)
    image, mask = read(f"{domain}_0.png"), read(f"{domain}_masked_0.png")
    side = ALL[domain].image_size
    assert image.shape == (side, side, 3) and mask.shape == (side, side) and set(np.unique(mask)) == {0, 255}
    # another version of Mesa may round a few edge pixels otherwise
    assert np.abs(image.astype(int) - picture.image).mean() < 1.0
    assert ((mask > 0) != picture.mask).sum() <= 4
    assert json.loads((FOLDER / "points.json").read_text())[domain] == [list(p) for p in picture.points]
    assert len(picture.parts) == len(list(FOLDER.glob(f"{domain}_masked_0_*.png")))


@pytest.mark.parametrize("domain", ALL)
def test_points_and_parts_lie_on_the_mask(domain):
    mask = read(f"{domain}_masked_0.png") > 0
    points = json.loads((FOLDER / "points.json").read_text())[domain]
    assert len(points) >= 2 and all(mask[y, x] for x, y in points)
    parts = [read(path.name) > 0 for path in sorted(FOLDER.glob(f"{domain}_masked_0_*.png"))]
    if parts:
        assert len(parts) == 2 and all(part.any() for part in parts)
        assert np.array_equal(parts[0] | parts[1], mask) and not (parts[0] & parts[1]).any()


def test_documented_points_of_walker_hit_torso_and_feet():
    from envs.dmc import DMCEnv
    from envs.reference_scene import _body_of_each_pixel, take_pose
    from envs.tasks import find_task

    env = DMCEnv(find_task("walker_walk"))
    env.reset(seed=0)
    take_pose(env, POSES["walker"])
    bodies = _body_of_each_pixel(env, env.renderer.render_segmentation(env.data))
    names = [env.model.body(int(bodies[y, x])).name for x, y in ((40, 24), (23, 68), (68, 57))]
    contacts = env.data.ncon
    env.close()
    assert names == ["torso", "left_foot", "right_foot"] and contacts == 1, "it stands on one foot"


def test_deepest_pixel_is_farthest_from_the_edge():
    region = np.zeros((9, 12), bool)
    region[1:8, 2:9] = True
    assert deepest_pixel(region) == (5, 4)
    region = np.zeros((9, 12), bool)
    region[0, 3:8] = True  # one pixel thin, at the border: the middle
    assert deepest_pixel(region) == (5, 0)


def test_drawing_again_gives_the_same_files(tmp_path, monkeypatch, capsys):
    run(monkeypatch, "--from-simulator", "finger", "--out", tmp_path)
    for path in tmp_path.glob("*.png"):
        assert np.array_equal(np.array(Image.open(path)), read(path.name)), path.name
    assert len(list(tmp_path.glob("*.png"))) == 4 and set(json.loads((tmp_path / "points.json").read_text()))
    assert "extra_points_list: [[" in capsys.readouterr().out


def test_files_of_a_user_are_checked_and_normalised(tmp_path, monkeypatch, capsys):
    image = read("walker_0.png")
    mask = read("walker_masked_0.png") > 0
    Image.fromarray(image * mask[..., None]).save(tmp_path / "cutout.png")
    arguments = ["--name", "mine", "--image", FOLDER / "walker_0.png", "--mask", tmp_path / "cutout.png"]
    out = tmp_path / "out"
    run(monkeypatch, *arguments, "--part", tmp_path / "cutout.png", "--points", 40, 24, 23, 68, "--out", out)
    for name in ("mine_masked_0.png", "mine_masked_0_1.png"):
        written = np.array(Image.open(out / name))
        assert set(np.unique(written)) == {0, 255} and ((written > 0) != mask).mean() < 0.01
    assert json.loads((out / "points.json").read_text()) == {"mine": [[40, 24], [23, 68]]}
    run(monkeypatch, *arguments[:1], "other", *arguments[2:], "--out", out)  # the first entry stays
    assert json.loads((out / "points.json").read_text()) == {"mine": [[40, 24], [23, 68]], "other": []}


def test_bad_input_writes_nothing(tmp_path, monkeypatch):
    Image.new("L", (84, 84)).save(tmp_path / "empty.png")
    image = FOLDER / "walker_0.png"
    out = tmp_path / "out"
    with pytest.raises(InputError, match="empty"):
        run(monkeypatch, "--name", "a", "--image", image, "--mask", tmp_path / "empty.png", "--out", out)
    with pytest.raises(ConfigError, match="--mask is missing"):
        run(monkeypatch, "--name", "a", "--image", image, "--out", out)
    with pytest.raises(ConfigError, match="Unknown domain 'walkr'"):
        run(monkeypatch, "--from-simulator", "walkr", "--out", out)
    assert not out.exists()


def test_the_command_ends_with_the_documented_exit_code(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["annotate.py", "--name", "a", "--image", "no.png", "--mask", "no.png"])
    with pytest.raises(SystemExit) as ended:
        run_script(annotate.main)
    assert ended.value.code == InputError.exit_code and "no.png" in capsys.readouterr().err
