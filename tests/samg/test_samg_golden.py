"""``compat=True`` against the published code's own outputs, with the full-size networks and drawn weights."""

import numpy as np
import pytest
import torch

from samg.compat import CompatRules
from samg.fitting import Fit, fit_reference
from samg.masker import SamGMasker, Source
from samg.options import SamgOptions
from samg.reference import Reference
from tests.support import golden

CPU = torch.device("cpu")
FRAMES = range(4)


@pytest.fixture(scope="module")
def expected():
    return golden.arrays("samg_pipeline")


@pytest.fixture(scope="module")
def reference(expected):
    return Reference.from_arrays(
        expected["reference_image"],
        expected["reference_mask"],
        points=expected["extra_points"],
        part_masks=expected["part_mask"][None],
    )


@pytest.fixture(scope="module")
def fit(reference):
    return fit_reference(golden.paper_networks(), reference, CompatRules(), SamgOptions(), CPU)


@pytest.fixture(scope="module")
def explained(expected, reference, fit):
    """Every frame, segmented with the published mask weights (theirs depend on their own noise)."""
    injected = Fit(fit.targets, torch.from_numpy(expected["weights"]), None, {})
    networks, options = golden.paper_networks(), SamgOptions()
    masker = SamGMasker(networks, reference, injected, CompatRules(), options, Source("paper", "drawn"), CPU)
    return [masker.explain(torch.from_numpy(expected["frames"][index : index + 1])) for index in FRAMES]


def test_target_and_part_features(expected, fit):
    for encoder, prefix in (("sam", ""), ("dino", "dino_")):
        found = fit.targets[encoder].numpy()
        np.testing.assert_allclose(found[0], expected[f"{prefix}target_feature"], atol=2e-6)
        np.testing.assert_allclose(found[1:], expected[f"{prefix}part_features"], atol=2e-6)


def test_mask_weights_within_a_few_hundredths(expected, fit):
    np.testing.assert_allclose(fit.mask_weights.numpy(), expected["weights"], atol=0.03)
    assert fit.report["point_sets"] > 1


@pytest.mark.parametrize("index", FRAMES)
def test_similarity(expected, explained, index):
    found = explained[index].similarity[0].numpy()
    np.testing.assert_allclose(found, expected[f"f{index}_similarity"], atol=1e-5)


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("index", FRAMES)
def test_prompts_of_every_pass(expected, explained, index, number):
    found, name = explained[index].passes[number], f"f{index}_pass{number}"
    np.testing.assert_array_equal(found.points[0].numpy(), expected[f"{name}_points"])
    np.testing.assert_array_equal(found.labels[0].numpy(), expected[f"{name}_labels"])
    np.testing.assert_allclose(found.iou[0].numpy(), expected[f"{name}_iou"], atol=1e-3)
    if number:
        np.testing.assert_array_equal(found.boxes[0].numpy(), expected[f"{name}_box"])


@pytest.mark.parametrize("index", FRAMES)
def test_masks(expected, explained, index):
    np.testing.assert_array_equal(explained[index].mask[0].numpy(), expected[f"f{index}_mask"])
