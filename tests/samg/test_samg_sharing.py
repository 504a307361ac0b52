"""One fit for many runs: made once, equal to one's own, replaced when damaged."""

import multiprocessing
import shutil

import pytest
import torch

from common.paths import PROJECT_ROOT
from samg import Reference, build_masker, fit_once
from samg.build import MaskerBuilder

IMAGES = PROJECT_ROOT / "reference_images"
pytestmark = pytest.mark.usefixtures("one_thread")


def reference(*point: int) -> Reference:
    return Reference.load(IMAGES / "walker_0.png", IMAGES / "walker_masked_0.png", [point or (40, 24)])


def builder(**options) -> MaskerBuilder:
    return build_masker("tiny", persam=False, **options)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    return folder, fit_once(builder(), reference(), folder)


def test_the_second_run_loads_what_the_first_has_fitted(shared, tmp_path, monkeypatch):
    folder, first = shared
    monkeypatch.setattr(MaskerBuilder, "fit", None)  # whoever fits now, fails
    second = fit_once(builder(), reference(), folder)
    assert second.info == first.info
    frames = torch.from_numpy(reference().image.copy())[None]
    assert torch.equal(first.mask(frames), second.mask(frames))
    second.save(tmp_path / "masker")
    first.save(tmp_path / "masker")  # the same masker: nothing to refuse


def test_other_inputs_have_a_place_of_their_own():
    here = builder().identity(reference())
    assert here == builder().identity(reference())
    assert len({here, builder(passes=1).identity(reference()), builder().identity(reference(40, 25))}) == 3


def test_a_damaged_one_is_fitted_anew(shared, tmp_path):
    folder, first = shared
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (place,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    (place / "fit.safetensors").write_bytes(b"half")
    assert fit_once(builder(), reference(), tmp_path).info == first.info
    assert (place / "fit.safetensors").stat().st_size > 4


def test_maskers_without_a_reference_need_no_place(tmp_path):
    assert fit_once(build_masker("none"), None, tmp_path / "shared").info.variant == "none"
    assert not (tmp_path / "shared").exists()


def _hold(path: str, ready, release) -> None:
    import fcntl

    with open(path, "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        ready.set()
        release.wait(60)


def test_others_wait_for_the_one_that_fits(shared):
    folder, _ = shared
    made = builder()
    lock = (folder / made.identity(reference())).with_suffix(".lock")
    context = multiprocessing.get_context("fork")
    ready, release = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(str(lock), ready, release))
    holder.start()
    assert ready.wait(60)
    waiting = context.Process(target=fit_once, args=(made, reference(), folder))
    waiting.start()
    waiting.join(1.0)
    assert waiting.is_alive()
    waiting.kill()  # whoever dies while it waits leaves nothing behind
    waiting.join()
    release.set()
    holder.join()
    assert fit_once(made, reference(), folder).info.variant == "tiny"
