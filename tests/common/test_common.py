"""The ground floor: errors, atomic files, seeds, paths, devices, masks."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from common import files, paths, seeding
from common.devices import resolve_device
from common.errors import ConfigError, InputError, ResourceError, SnapshotError, unknown_choice
from common.masking import apply_mask, check_frames


def test_error_tells_what_and_what_to_do_and_leaves_with_its_code():
    program = (
        "from common.errors import run_script, SnapshotError\n"
        "def main(): raise SnapshotError('no snapshot in X.', 'Train first.')\n"
        "run_script(main)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=paths.PROJECT_ROOT
    )
    assert done.returncode == SnapshotError.exit_code == 6
    assert done.stderr.splitlines() == ["error: no snapshot in X.", "  cure: Train first."]


def test_error_survives_the_way_from_a_worker_process():
    error = pickle.loads(pickle.dumps(InputError("a.png is empty.", "Export it again.")))
    assert (error.message, error.hint, error.exit_code) == ("a.png is empty.", "Export it again.", 3)


def test_unknown_choice_offers_the_nearest():
    assert "Did you mean color_hard?" in str(unknown_choice("level", "colour_hard", ["train", "color_hard"]))
    assert "Did you mean SVEA?" in str(unknown_choice("agent", "svae", ["SVEA", "drq"]))


def test_a_failed_write_leaves_the_old_file_and_no_leftovers(tmp_path):
    target = tmp_path / "a.json"
    files.write_json(target, {"x": 1})
    with pytest.raises(RuntimeError), files.atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(target, float("nan"))
    assert json.loads(target.read_text()) == {"x": 1}
    assert list(tmp_path.iterdir()) == [target]


def test_a_directory_appears_whole_or_not_at_all(tmp_path):
    with files.atomic_directory(tmp_path / "step") as stage:
        (stage / "file").write_text("1")
        assert not (tmp_path / "step").exists()
    assert (tmp_path / "step" / "file").read_text() == "1"
    with pytest.raises(FileExistsError), files.atomic_directory(tmp_path / "step"):
        pass
    with pytest.raises(RuntimeError), files.atomic_directory(tmp_path / "other"):
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["step"]


def test_an_empty_directory_is_as_good_as_none(tmp_path):
    (tmp_path / "made").mkdir()
    with files.atomic_directory(tmp_path / "made") as stage:
        (stage / "file").write_text("1")
    assert (tmp_path / "made" / "file").read_text() == "1"
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    for taken in ("link", "made/file"):
        with pytest.raises(FileExistsError), files.atomic_directory(tmp_path / taken):
            pass


def test_leftovers_of_a_killed_write_are_swept(tmp_path):
    (tmp_path / f"{files.STAGE_PREFIX}dir").mkdir()
    (tmp_path / f"{files.STAGE_PREFIX}file").write_text("")
    (tmp_path / "kept").write_text("")
    files.sweep_stages(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_read_json_names_a_damaged_file(tmp_path):
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(InputError, match=r"bad\.json is not valid JSON"):
        files.read_json(tmp_path / "bad.json", "result")
    with pytest.raises(InputError, match="does not exist"):
        files.read_json(tmp_path / "none.json")


def test_counter_streams_do_not_depend_on_order():
    later = seeding.counter_rng(1, "replay", 7).random(4)
    seeding.counter_rng(1, "replay", 6).random(1000)
    assert np.array_equal(later, seeding.counter_rng(1, "replay", 7).random(4))
    distinct = {tuple(seeding.counter_rng(s, n, i).random(2)) for s in (0, 1) for n in "ab" for i in (0, 1)}
    assert len(distinct) == 8
    assert len({seeding.derive_seed(0, "train", i) for i in range(1000)}) == 1000


def test_relative_paths_work_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert paths.resolve("pyproject.toml") == paths.PROJECT_ROOT / "pyproject.toml"
    (tmp_path / "pyproject.toml").write_text("")
    assert paths.resolve("pyproject.toml") == tmp_path / "pyproject.toml"
    with pytest.raises(InputError, match=r"Image none\.png does not exist"):
        paths.existing_file("none.png", "Image")
    with pytest.raises(InputError, match="is not a file"):
        paths.existing_file(tmp_path, "Image")


def test_outputs_lie_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert paths.output_path("docs/new.json") == tmp_path / "docs" / "new.json"
    assert paths.output_path(tmp_path / "a") == tmp_path / "a"


def test_device_is_checked():
    assert resolve_device("cpu").type == "cpu"
    with pytest.raises(ConfigError, match="not a device"):
        resolve_device("gpu0")
    with pytest.raises(ResourceError, match="does not exist"):
        resolve_device("cuda:99")


def test_masks_are_applied_as_documented():
    frames = torch.full((2, 3, 4, 3), 101, dtype=torch.uint8)
    hard = torch.zeros(2, 3, 4, dtype=torch.bool)
    hard[0, 1, 2] = True
    masked = apply_mask(frames, hard)
    assert masked.dtype == torch.uint8 and masked.sum() == 303 and masked[0, 1, 2, 0] == 101
    assert (apply_mask(frames, torch.full((2, 3, 4), 0.5)) == 50).all()  # round half to even
    with pytest.raises(ValueError, match=r"expected shape \(2, 3, 4\), got \(3, 4\)"):
        apply_mask(frames, hard[0])
    with pytest.raises(ValueError, match=r"uint8 of shape \(N, H, W, 3\), got torch.float32"):
        check_frames(frames.float())
