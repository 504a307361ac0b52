"""The mask benchmark on drawn frames: what it measures for maskers whose behaviour is known."""

import numpy as np
import pytest
import torch

from benchmarks import mask_controls, mask_tables
from benchmarks.mask_frames import DOMAINS, Frames, frames_of, paste

COLOURS = {domain: (30 * n + 20, 255 - 30 * n, 40 + 25 * n) for n, domain in enumerate(DOMAINS)}


def drawn(domain: str, count: int = 6) -> Frames:
    """Rectangles in the domain's colour on black; the left half is its first part."""
    pixels = np.zeros((count, 84, 84, 3), np.uint8)
    masks = np.zeros((count, 84, 84), bool)
    parts = np.zeros((count, 2, 84, 84), bool)
    for index in range(count):
        x, y = 20 + 3 * index, 10 + 4 * DOMAINS.index(domain)
        masks[index, y : y + 24, x : x + 12] = True
        parts[index, 0, y : y + 24, x : x + 6] = True
        parts[index, 1] = masks[index] & ~parts[index, 0]
        pixels[index][masks[index]] = COLOURS[domain]
    return Frames(pixels, masks, parts, np.arange(count) % 3 == 2)


DATA = {(domain, level): drawn(domain) for domain in DOMAINS for level in ("clean", "video_hard")}


class Colour:
    """A masker that finds what has the domain's colour, as a perfect one would."""

    def __init__(self, domain):
        self.colour = torch.tensor(COLOURS[domain], dtype=torch.uint8)

    def mask(self, frames):
        return (frames == self.colour).all(-1)


class Anything:
    """A masker that ignores its reference: all that is not black."""

    def mask(self, frames):
        return frames.any(-1)


def test_pasted_pictures_label_what_is_visible():
    own, rival = drawn("walker"), drawn("hopper")
    frames, mine, theirs = paste(own, rival, seed=1)
    assert len(frames) == 6
    assert not (mine & theirs).any()
    assert np.array_equal((frames == COLOURS["walker"]).all(-1), mine)
    assert np.array_equal((frames == COLOURS["hopper"]).all(-1), theirs)
    overlap = [int(m.sum()) < 24 * 12 for m in mine], [int(t.sum()) < 24 * 12 for t in theirs]
    assert any(overlap[0][1::3]) and not any(overlap[0][2::3]), "in front hides the own, behind does not"
    assert any(overlap[1][2::3]) and not any(overlap[1][0::3]), "behind hides the rival, beside does not"


def test_an_obedient_masker_passes_every_control():
    found = mask_controls.obedience({d: Colour(d) for d in DOMAINS}, DATA, "clean", None)
    mean = found["mean"]
    assert mean["own_iou"] == mean["rival_iou_by_its_reference"] == mean["absent_reference_empty"] == 1
    assert mean["rival_taken"] == mean["own_taken_by_rival_reference"] == mean["absent_reference_taken"] == 0
    assert len(found["pairs"]) == 14 and all(
        pair.split("/")[0] != pair.split("/")[1] for pair in found["pairs"]
    )


def test_a_masker_that_ignores_its_reference_fails_them():
    def unet(frames):
        return frames.any(-1)

    found = mask_controls.obedience(dict.fromkeys(DOMAINS, Anything()), DATA, "video_hard", unet)
    assert found["mean"]["rival_taken"] == found["worst"]["absent_reference_taken"] == 1
    assert found["mean"]["own_iou"] < 0.7 and found["worst"]["own_iou"] <= found["mean"]["own_iou"]
    assert found["mean"]["unet_own_iou"] == pytest.approx(found["mean"]["own_iou"])


def test_parts_are_compared_with_the_named_and_the_other_one():
    class Left:
        def mask(self, frames):
            whole = frames.any(-1)
            return whole & (whole.cumsum(-1) <= 6)

    found = mask_controls.parts(lambda _: Left(), {"finger": [None, None]}, DATA)
    assert found["finger part 1"] == {"named": 1.0, "other": 0.0}
    assert found["finger part 2"] == {"named": 0.0, "other": 1.0}


def test_summary_against_numbers_worked_out_by_hand():
    truth = np.zeros((2, 4, 4), bool)
    truth[:, :2] = True
    found = truth.copy()
    found[1, 0] = False  # half of it missing
    values = mask_controls.summary(found, truth)
    assert values["iou"] == 0.75 and values["recall"] == 0.75 and values["precision"] == 1
    assert values["below_half"] == 0 and values["p10"] == pytest.approx(0.55)


def test_median_goes_leaf_by_leaf():
    seeds = [{"a": {"x": 1.0}, "b": 5}, {"a": {"x": 3.0}, "b": 1}, {"a": {"x": 2.0}, "b": 9}]
    assert mask_tables.median(seeds) == {"a": {"x": 2.0}, "b": 5.0}


def test_report_shows_every_table():
    quality = {
        level: {d: dict.fromkeys(("iou", "recall", "precision", "p10", "below_half"), 0.5) for d in DOMAINS}
        for level in ("clean", "video_hard")
    }
    controls = mask_controls.obedience({d: Colour(d) for d in DOMAINS}, DATA, "clean", None)
    result = {
        "levels": quality,
        "unet": quality,
        "planned": {level: dict.fromkeys(DOMAINS, 0.25) for level in quality},
        "obedience": {"clean": controls},
        "parts": {"finger part 1": {"named": 0.9, "other": 0.01}},
        "ablations": {"one pass": {"clean": 0.8}},
    }
    text = mask_tables.report(result)
    for words in (
        "| walker | .500 .500 .500 (.500) |",
        "50.0 %",
        "| **mean** | .250 |",
        "walker/cartpole",
        "one pass",
    ):
        assert words in text
    assert "1.000" in text and ".010" in text


def test_pictures_have_a_row_per_domain(tmp_path):
    from PIL import Image

    maskers = {d: Colour(d) for d in DOMAINS}
    mask_tables.picture(maskers, DATA, ["clean", "video_hard"], tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").size == (84 * 8, 84 * 2 * len(DOMAINS))
    mask_tables.rival_picture(maskers, {"walker/finger": DATA["walker", "clean"].pixels}, tmp_path / "b.png")
    assert Image.open(tmp_path / "b.png").size == (84 * 9, 84)


def test_rendered_frames_carry_exact_labels_and_are_cached(tmp_path):
    frames = frames_of("ball_in_cup", "clean", 6, 5, "procedural", None, tmp_path)
    assert frames.pixels.shape == (6, 84, 84, 3) and frames.planned.tolist().count(True) == 2
    assert frames.parts.shape == (6, 2, 84, 84)
    assert np.array_equal(frames.parts.any(1), frames.masks), "ball and cup are the whole object"
    assert not frames.parts.all(1).any()
    again = frames_of("ball_in_cup", "clean", 6, 5, "procedural", None, tmp_path)
    assert np.array_equal(again.pixels, frames.pixels) and np.array_equal(again.parts, frames.parts)
    assert len(list(tmp_path.iterdir())) == 1
