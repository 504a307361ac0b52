"""The embedded networks: their contract, their weights file, and mask quality through the whole pipeline."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from common.errors import InputError
from common.files import sha256_file
from samg.pretraining.export import export_weights, storable
from samg.tiny import GRIDS, WEIGHTS, TinyNetworks, load_tiny_networks
from samg.tiny_modules import Cells


@pytest.fixture(scope="module")
def networks() -> TinyNetworks:
    torch.manual_seed(0)
    made = TinyNetworks()
    with torch.no_grad():  # batch norms as after training: not the identity
        for name, buffer in made.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 2.0)
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.1)
    return made.requires_grad_(False).eval()


def frames(count: int, height: int = 84, width: int = 84) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8, generator=generator)


def prompts(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(count + 1)
    return torch.rand(count, 4, 2, generator=generator) * 83, torch.tensor([[1, 0, 1, -1]]).repeat(count, 1)


def test_shapes_and_grids(networks: TinyNetworks) -> None:
    encoded = networks.encode(frames(2))
    assert set(encoded.maps) == set(networks.encoders) == set(GRIDS)
    for name, grid in GRIDS.items():
        assert encoded.maps[name].shape[::2] == (2, grid)
        assert networks.similarity_operator(name, 84).shape == (84, grid)
    points, labels = prompts(2)
    out = networks.decode(encoded.embedding, (84, 84), points, labels)
    assert out.logits.shape == (2, 3, 84, 84) and out.iou.shape == (2, 3)
    boxes = torch.tensor([[4.0, 5, 60, 70], [1, 1, 83, 83]])
    again = networks.decode(encoded.embedding, (84, 84), points, labels, boxes, out.low_res[:, :1])
    assert again.logits.shape == out.logits.shape
    assert not torch.allclose(again.logits, out.logits)


@pytest.mark.parametrize("grid", [21, 42, 84])
def test_pixels_of_a_token_and_of_a_cell_follow_each_other(grid: int) -> None:
    cells = Cells(grid)
    where = torch.stack(torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij"))[None].float()
    rows = cells.rows(where)[0].long()  # (row, column) of every pixel in its new place
    tokens = torch.stack(torch.meshgrid(torch.arange(21), torch.arange(21), indexing="ij"), -1).flatten(0, 1)
    per_token = rows.view(21 * 21, -1, 2)
    assert (per_token // (grid // 21) == tokens[:, None]).all()
    if grid == 84:
        assert (rows.view(42 * 42, 4, 2) // 2 == rows.view(42 * 42, 4, 2)[:, :1] // 2).all()
    assert torch.equal(cells.pictures(cells.rows(where).transpose(1, 2)), where)
    assert torch.equal(cells.rank[cells.order], torch.arange(grid * grid))


def test_the_gradient_of_an_order_is_the_other_order() -> None:
    cells, pictures = Cells(42), torch.randn(2, 3, 42, 42, requires_grad=True)
    weights = torch.randn(2, 42 * 42, 3)
    (cells.rows(pictures) * weights).sum().backward()
    assert pictures.grad is not None
    torch.testing.assert_close(pictures.grad, cells.pictures(weights.transpose(1, 2)))


def test_operator_is_bilinear(networks: TinyNetworks) -> None:
    assert torch.equal(networks.similarity_operator("dino", 84), torch.eye(84))
    operator = networks.similarity_operator("sam", 84)
    small = torch.rand(1, 1, 42, 42)
    wanted = torch.nn.functional.interpolate(small, size=84, mode="bilinear")[0, 0]
    torch.testing.assert_close(operator @ small[0, 0] @ operator.T, wanted)


def test_frames_do_not_influence_their_neighbours(networks: TinyNetworks) -> None:
    batch = frames(3)
    points, labels = prompts(3)
    together = networks.encode(batch)
    logits = networks.decode(together.embedding, (84, 84), points, labels).logits
    for index in range(3):
        alone = networks.encode(batch[index : index + 1])
        one = slice(index, index + 1)
        single = networks.decode(alone.embedding, (84, 84), points[one], labels[one]).logits
        torch.testing.assert_close(single, logits[one], atol=1e-4, rtol=1e-4)


def test_ignored_points_change_nothing_and_others_do(networks: TinyNetworks) -> None:
    embedding = networks.encode(frames(2)).embedding
    points, labels = prompts(2)
    logits = networks.decode(embedding, (84, 84), points, labels).logits
    shorter = networks.decode(embedding, (84, 84), points[:, :3], labels[:, :3]).logits
    torch.testing.assert_close(shorter, logits, atol=1e-5, rtol=1e-5)
    flipped = labels.clone()
    flipped[:, 2] = 0
    assert (networks.decode(embedding, (84, 84), points, flipped).logits - logits).abs().max() > 1e-3
    moved = points.clone()
    moved[:, 0] = 83 - moved[:, 0]
    assert (networks.decode(embedding, (84, 84), moved, labels).logits - logits).abs().max() > 1e-3


def test_other_image_sizes_are_resized(networks: TinyNetworks) -> None:
    big = frames(1).repeat_interleave(2, 1).repeat_interleave(2, 2)
    points, labels = prompts(1)
    embedding = networks.encode(big).embedding
    out = networks.decode(embedding, (168, 168), 2 * points + 0.5, labels)
    native = networks.decode(embedding, (84, 84), points, labels)
    assert out.logits.shape == (1, 3, 168, 168)
    torch.testing.assert_close(out.low_res, native.logits, atol=1e-4, rtol=1e-4)


def test_folding_batch_norms_keeps_the_outputs(networks: TinyNetworks) -> None:
    folded = TinyNetworks()
    folded.load_state_dict(networks.state_dict())
    folded.requires_grad_(False).fuse()
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    one, two = networks.encode(frames(1)), folded.encode(frames(1))
    torch.testing.assert_close(one.embedding, two.embedding, atol=1e-4, rtol=1e-3)


def test_every_parameter_gets_a_gradient() -> None:
    trained = TinyNetworks()
    encoded = trained.encode(frames(2))
    points, labels = prompts(2)
    box = torch.tensor([[2.0, 2, 50, 50]]).repeat(2, 1)
    first = trained.decode(encoded.embedding, (84, 84), points, labels)
    second = trained.decode(encoded.embedding, (84, 84), points, labels, box, first.low_res[:, :1])
    maps = [
        scale * (m - offset)
        for m, scale, offset in zip(encoded.maps.values(), trained.map_scale, trained.map_offset, strict=True)
    ]
    (
        sum(m.square().mean() for m in maps) + (second.logits + first.logits).mean() + second.iou.sum()
    ).backward()
    assert [name for name, p in trained.named_parameters() if p.grad is None] == []


def test_shipped_weights_match_their_record() -> None:
    record = json.loads(WEIGHTS.with_suffix(".json").read_text(encoding="utf-8"))
    assert record["sha256"] == sha256_file(WEIGHTS)
    assert WEIGHTS.stat().st_size == record["bytes"] <= 10e6
    loaded, found = load_tiny_networks()
    assert found["sha256"] == record["sha256"]
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    for key in ("command", "seed", "versions"):
        assert record[key] or record[key] == 0


def test_export_reads_back(networks: TinyNetworks, tmp_path) -> None:
    path = tmp_path / "own.safetensors"
    export_weights(networks, path, {"command": "test"})
    loaded, record = load_tiny_networks(weights=path)
    assert record["command"] == "test"
    half = TinyNetworks()
    half.load_state_dict({key: value.float() for key, value in storable(networks).items()})
    half.requires_grad_(False).fuse()
    assert torch.equal(half.encode(frames(1)).embedding, loaded.encode(frames(1)).embedding)


def test_unusable_weights_are_named(networks: TinyNetworks, tmp_path) -> None:
    with pytest.raises(InputError, match="do not exist"):
        load_tiny_networks(weights=tmp_path / "none.safetensors")
    whole = WEIGHTS.read_bytes()
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="not a whole safetensors"):
        load_tiny_networks(weights=cut)
    tensors = load_file(WEIGHTS)
    other = tmp_path / "other.safetensors"
    save_file(tensors, other, metadata={"architecture": "unet"})
    with pytest.raises(InputError, match="'unet', expected 'samg-tiny-2'"):
        load_tiny_networks(weights=other)
    tensors.pop("decoder.no_mask")
    save_file(tensors, other, metadata={"architecture": "samg-tiny-2"})
    with pytest.raises(InputError, match=r"decoder\.no_mask"):
        load_tiny_networks(weights=other)


def test_clean_masks_of_seven_domains_through_the_pipeline() -> None:
    import envs
    from envs.pretraining_frames import POSE_TASKS
    from samg import Reference, build_masker

    references = WEIGHTS.parent.parent.parent / "reference_images"
    points = json.loads((references / "points.json").read_text(encoding="utf-8"))
    means = []
    for domain, task in POSE_TASKS.items():
        parts = sorted(references.glob(f"{domain}_masked_0_*.png"))
        masked = references / f"{domain}_masked_0.png"
        masker = build_masker("tiny").fit(
            Reference.load(references / f"{domain}_0.png", masked, points[domain], parts)
        )
        frames, truth = random_frames(envs.make_env(task, foreground=True, action_repeat=2), 4, every=10)
        found = masker.mask(torch.from_numpy(frames)).numpy()
        either = (found | truth).sum((1, 2))
        means.append(float(((found & truth).sum((1, 2)) / either).mean()))
    assert np.mean(means) >= 0.60, dict(zip(POSE_TASKS, means, strict=True))


def random_frames(env, count: int, every: int) -> tuple[np.ndarray, np.ndarray]:
    """Return frames uint8 (N, H, W, 3) of random actions, and the foreground bool (N, H, W)."""
    generator, pairs = np.random.default_rng(1234), []
    with contextlib.closing(env):
        env.reset(seed=1234)
        for step in range(1, 1 + every * count):
            action = generator.uniform(env.action_space.low, env.action_space.high).astype(np.float32)
            obs, _, _, _, info = env.step(action)
            if step % every == 0:
                pairs.append((obs["pixels"].copy(), info["foreground"].copy()))
    frames, masks = zip(*pairs, strict=True)
    return np.stack(frames), np.stack(masks)
