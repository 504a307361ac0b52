"""EfficientViT-SAM: released names, golden numbers, the batched decoder against segment-anything's."""

import functools

import numpy as np
import pytest
import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder

from common.errors import ConfigError
from efficientvit import VARIANTS, EfficientViTSam, build_efficientvit_sam, upsample_logits
from tests.support import golden

IMAGE_SIZE = (84, 84)
TOLERANCE = 1e-3  # absolute, as the golden files promise; measured: 2e-4


@functools.cache
def model(name):
    return golden.efficientvit_sam(name)


@functools.cache
def embedding(name):
    image = torch.from_numpy(golden.arrays("efficientvit_sam")["image"])
    with torch.no_grad():
        return model(name).encode(image[None])


def prompts():
    arrays = golden.arrays("efficientvit_sam")
    return tuple(torch.from_numpy(arrays[key])[None] for key in ("points", "labels", "box"))


@pytest.mark.parametrize("name", list(VARIANTS))
def test_state_dict_has_the_released_names_and_shapes(name):
    with torch.device("meta"):
        state = EfficientViTSam(name).state_dict()
    ours = [(key, list(value.shape)) for key, value in state.items()]
    assert ours == list(golden.shapes("efficientvit_sam_state_dict")[name].items())


def test_golden_covers_every_released_variant():
    assert set(golden.shapes("efficientvit_sam_state_dict")) == set(VARIANTS)


@pytest.mark.parametrize("name", ["l0", "l1"])
def test_embedding_agrees_with_the_published_code(name):
    arrays = golden.arrays("efficientvit_sam")
    rows, columns = arrays["positions"].T
    features = embedding(name)[0].numpy()
    np.testing.assert_allclose(features[:, rows, columns].T, arrays[f"{name}_feat"], atol=TOLERANCE, rtol=0)
    stats = [features.mean(), features.std(), features.min(), features.max()]
    np.testing.assert_allclose(stats, arrays[f"{name}_feat_stats"], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", ["l0", "l1"])
def test_masks_agree_with_the_published_code(name):
    arrays = golden.arrays("efficientvit_sam")
    points, labels, box = prompts()
    first = model(name).decode(embedding(name), IMAGE_SIZE, points, labels)
    refined = model(name).decode(embedding(name), IMAGE_SIZE, points, labels, box, first.low_res[:, :1])
    for key, value in {
        "logits_points": first.logits,
        "iou_points": first.iou,
        "low_points": first.low_res[:, :, ::8, ::8],
        "logits_refine": refined.logits,
        "iou_refine": refined.iou,
    }.items():
        expected = arrays[f"{name}_{key}"]
        np.testing.assert_allclose(value[0].numpy(), expected, atol=TOLERANCE, rtol=0, err_msg=key)


def test_decode_is_low_res_and_upsampling():
    points, labels, _ = prompts()
    output = model("l0").decode(embedding("l0"), IMAGE_SIZE, points, labels)
    low_res, iou = model("l0").decode_low_res(embedding("l0"), IMAGE_SIZE, points, labels)
    assert torch.equal(output.low_res, low_res)
    assert torch.equal(output.iou, iou)
    assert torch.equal(output.logits, upsample_logits(low_res, IMAGE_SIZE))


@pytest.fixture(scope="module")
def random_prompts():
    """Three images with a prompt set each."""
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(3, 256, 64, 64, generator=generator)
    points = 84 * torch.rand(3, 4, 2, generator=generator)
    labels = torch.tensor([[1, 0, 1, 1], [1, 1, 0, -1], [0, 1, -1, -1]])
    boxes = torch.tensor([[3.0, 5, 70, 60], [0, 0, 83, 83], [10, 20, 11, 22]])
    mask_inputs = 5 * torch.randn(3, 1, 256, 256, generator=generator)
    return features, points, labels, boxes, mask_inputs


def by_segment_anything(sam, features, points, labels, box=None, mask_input=None):
    """One image through segment-anything's own forward passes."""
    encoder, decoder = sam.prompt_encoder, sam.mask_decoder
    assert isinstance(encoder, PromptEncoder) and isinstance(decoder, MaskDecoder)
    scale = 1024 / 84
    sparse, dense = encoder(
        points=(points * scale, labels), boxes=None if box is None else box * scale, masks=mask_input
    )
    return decoder(features, encoder.get_dense_pe(), sparse, dense, multimask_output=True)


@pytest.mark.parametrize("with_box", [False, True])
@pytest.mark.parametrize("with_mask", [False, True])
def test_batch_equals_segment_anything_image_by_image(random_prompts, with_box, with_mask):
    features, points, labels, boxes, mask_inputs = random_prompts
    box, mask = (boxes if with_box else None), (mask_inputs if with_mask else None)
    sam = model("l0")
    with torch.no_grad():
        output = sam.decode(features, IMAGE_SIZE, points, labels, box, mask)
        for i in range(3):
            one = slice(i, i + 1)
            low_res, iou = by_segment_anything(
                sam,
                features[one],
                points[one],
                labels[one],
                None if box is None else box[one],
                None if mask is None else mask[one],
            )
            torch.testing.assert_close(output.low_res[one], low_res, atol=2e-4, rtol=0)
            torch.testing.assert_close(output.iou[one], iou, atol=2e-4, rtol=0)


def test_dense_positions_follow_the_loaded_weights():
    sam = model("l0")
    expected = sam.prompt_encoder.get_dense_pe()
    torch.testing.assert_close(sam.dense_positions, expected, atol=1e-5, rtol=0)
    assert "dense_positions" not in sam.state_dict()


def test_frames_that_are_not_square_are_padded_at_the_end():
    sam = model("l0")
    frames = torch.randint(
        0, 256, (1, 40, 80, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    x = sam.preprocess(frames)
    assert x.shape == (1, 3, 512, 512)
    assert x[:, :, 256:].abs().max() == 0
    assert x[:, :, :256].abs().min() > 0


def test_decoding_runs_without_waiting_for_the_device(random_prompts):
    """On ``meta`` tensors anything that needs a value on the host fails."""
    features, points, labels, boxes, mask_inputs = (tensor.to("meta") for tensor in random_prompts)
    with torch.device("meta"):
        sam = EfficientViTSam("l0")
    low_res, iou = sam.decode_low_res(features, IMAGE_SIZE, points, labels, boxes, mask_inputs)
    assert low_res.shape == (3, 3, 256, 256)
    assert iou.shape == (3, 3)


def test_an_empty_batch_decodes_to_an_empty_batch():
    output = model("l0").decode(
        torch.zeros(0, 256, 64, 64), IMAGE_SIZE, torch.zeros(0, 2, 2), torch.zeros(0, 2), torch.zeros(0, 4)
    )
    assert output.logits.shape == (0, 3, 84, 84)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": torch.zeros(3, 2)}, "points: expected"),
        ({"labels": torch.zeros(3, 3)}, "labels: expected"),
        ({"boxes": torch.zeros(3, 2, 2)}, "boxes: expected"),
        ({"mask_inputs": torch.zeros(3, 256, 256)}, "mask_inputs: expected"),
    ],
)
def test_prompts_of_another_shape_are_refused(random_prompts, change, message):
    features, points, labels, boxes, mask_inputs = random_prompts
    arguments = {"points": points, "labels": labels, "boxes": boxes, "mask_inputs": mask_inputs} | change
    with pytest.raises(ValueError, match=message):
        model("l0").decode(features, IMAGE_SIZE, **arguments)


def test_unknown_variant_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean xl1"):
        build_efficientvit_sam("xl11")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["l2", "xl0"])
def test_larger_variants_encode(name):
    frames = torch.from_numpy(golden.arrays("efficientvit_sam")["image"])[None]
    with torch.no_grad():
        features = golden.efficientvit_sam(name).encode(frames)
    assert features.shape == (1, 256, 64, 64)
    # The last layer norm leaves every cell with zero mean and unit variance, up to its drawn weights.
    assert 0.8 < features.std() < 1.2
