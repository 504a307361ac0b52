"""The shipped references: every task's images load, and every configured point lies on the mask."""

import json

import numpy as np
import pytest
from PIL import Image

from common.paths import PROJECT_ROOT, resolve
from samg import Reference
from training.config import CONFIG_DIR, compose_config

DOMAINS = sorted(path.stem for path in (CONFIG_DIR / "task" / "reference").glob("*.yaml"))
TASK_OF = {
    "walker": "walker_walk",
    "cartpole": "cartpole_swingup",
    "ball_in_cup": "cup_catch",
    "finger": "finger_spin",
    "cheetah": "cheetah_run",
    "hopper": "hopper_stand",
    "quadruped": "quadruped_walk",
    **{domain: domain for domain in ("door", "hammer", "pen", "relocate")},
}


def configured(domain):
    cfg = compose_config([f"task={TASK_OF[domain]}"])
    return cfg, Reference.load(
        cfg.original_image, cfg.masked_image, cfg.extra_points_list, cfg.extra_masked_images_list
    )


def test_all_domains_have_a_reference():
    assert set(DOMAINS) == set(TASK_OF)


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_configured_point_is_on_its_mask(domain):
    cfg, reference = configured(domain)
    points = np.array(cfg.extra_points_list)
    assert len(points) >= 2
    mask = np.asarray(Image.open(resolve(cfg.masked_image))) > 127
    assert mask[points[:, 1], points[:, 0]].all()
    assert np.asarray(reference.mask).sum() == mask.sum() > 30


@pytest.mark.parametrize("domain", ["ball_in_cup", "finger", "door", "hammer", "pen", "relocate"])
def test_parts_are_disjoint_and_make_up_the_whole(domain):
    _, reference = configured(domain)
    first, second = (np.asarray(part) for part in reference.part_masks)
    assert not (first & second).any()
    assert ((first | second) == np.asarray(reference.mask)).all()


@pytest.mark.parametrize("domain", DOMAINS)
def test_masks_are_binary_images_of_the_frame_size(domain):
    cfg, _ = configured(domain)
    for name in (cfg.masked_image, *cfg.extra_masked_images_list):
        image = Image.open(resolve(name))
        assert image.format == "PNG" and image.size == (cfg.image_size, cfg.image_size)
        assert set(np.unique(np.asarray(image))) == {0, 255}


def test_points_of_the_annotation_tool_are_the_configured_ones():
    annotated = json.loads((PROJECT_ROOT / "reference_images" / "points.json").read_text())
    for domain in DOMAINS:
        cfg, _ = configured(domain)
        assert [list(point) for point in cfg.extra_points_list] == annotated[domain]
        for camera, own in cfg.camera_references.items():
            assert [list(point) for point in own.extra_points_list] == annotated[f"{domain}_{camera}"]
