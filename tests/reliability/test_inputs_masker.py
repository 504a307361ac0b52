"""A masker that fails or finds nothing: the frame is named and kept, and empty masks are counted."""

import logging

import numpy as np
import pytest
import torch
from PIL import Image

from common.errors import ConfigError, MaskerError
from common.masking import MaskerInfo
from wrappers import BatchMasker
from wrappers.mask_faults import WINDOW

ROW = "25"


class Faulty:
    """Keeps what is bright; ``fault`` decides what happens to frames that hold the value 13."""

    def __init__(self, fault):
        self.info, self.fault = MaskerInfo("fake", "fragile", "0"), fault

    def mask(self, frames, foreground=None):
        mask = frames[..., 0] > 99
        if (frames == 13).any():
            return self.fault(mask)
        return mask


def frames(number, unlucky=None):
    made = np.full((number, 8, 8, 3), 200, np.uint8)
    made[:, 0] = np.arange(number, dtype=np.uint8)[:, None, None] + 20
    if unlucky is not None:
        made[unlucky, 0] = 13
    return made


def crash(mask):
    raise RuntimeError("index out of range\n in some kernel")


@pytest.mark.reliability(ROW, "a masker that raises: the frame is named and saved; two lines, exit 3")
@pytest.mark.parametrize("fault", [crash, lambda mask: mask.float() * torch.nan, lambda mask: mask[:, :4]])
def test_the_frame_is_named_and_saved(fault, tmp_path):
    masking = BatchMasker(Faulty(fault), batch_size=4, keep_failed=tmp_path / "failed")
    masking(frames(5), None)
    with pytest.raises(MaskerError) as caught:
        masking(frames(7, unlucky=6), None)
    error = caught.value
    assert error.exit_code == 3 and "\n" not in error.message
    assert "fake (fragile) failed on frame 11 of this process" in error.message
    (saved,) = (tmp_path / "failed").iterdir()
    assert str(saved) in error.hint
    assert np.array_equal(np.asarray(Image.open(saved)), frames(7, unlucky=6)[6])


@pytest.mark.reliability(ROW, "a frame that cannot be saved does not hide why the masker failed")
def test_a_folder_that_cannot_be_written_is_no_second_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    masking = BatchMasker(Faulty(crash), keep_failed=tmp_path / "file")
    with pytest.raises(MaskerError, match=r"frame 1 .*index out of range in some kernel") as caught:
        masking(frames(2, unlucky=1), None)
    assert "could not be saved" in caught.value.hint


def test_a_failure_of_the_batch_alone_names_all_of_it(tmp_path):
    class OnlyTogether(Faulty):
        def mask(self, frames, foreground=None):
            if len(frames) > 1:
                crash(None)
            return frames[..., 0] > 99

    with pytest.raises(MaskerError, match="frames 0 to 2"):
        BatchMasker(OnlyTogether(crash), keep_failed=tmp_path)(frames(3), None)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    "error",
    [
        ConfigError("no foreground", "give it"),
        torch.OutOfMemoryError("no"),
        getattr(torch, "AcceleratorError", torch.OutOfMemoryError)("an illegal memory access"),
    ],
)
def test_errors_with_a_cure_of_their_own_pass_through(error, tmp_path):
    def fault(mask):
        raise error

    with pytest.raises(type(error)):
        BatchMasker(Faulty(fault), keep_failed=tmp_path)(frames(1, unlucky=0), None)
    assert not list(tmp_path.iterdir())


@pytest.mark.reliability(ROW, "empty masks are counted; more than 20 % of them are a warning")
@pytest.mark.parametrize(("every", "warns"), [(3, True), (6, False)])
def test_many_empty_masks_warn_once(every, warns, caplog):
    masking = BatchMasker(Faulty(crash))
    batch = np.full((WINDOW // 2, 4, 4, 3), 200, np.uint8)
    batch[::every] = 0
    with caplog.at_level(logging.WARNING):
        for _ in range(8):
            masking(batch, None)
    said = [record for record in caplog.records if "found nothing in" in record.getMessage()]
    assert len(said) == warns
    assert masking._watch.frames == 4 * WINDOW
    assert masking._watch.empty == 8 * int(np.ceil(len(batch) / every))
