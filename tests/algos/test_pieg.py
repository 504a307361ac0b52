"""PIE-G: sizes against torchvision's own network, frozen weights, BatchNorm, both losses, weight files."""

from __future__ import annotations

import functools
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import resnet18

import algos.imagenet
from algos import PIEGAgent
from algos.imagenet import find_weights, frozen_resnet, load_weights
from algos.pieg import PiegEncoder
from common.errors import ConfigError, InputError
from common.files import sha256_file
from tests.support.agents import AGENTS, make_batch, moved, returns, snapshot, train_on_bars
from training.flatten import flatten, restore

SHAPE = (9, 24, 24)


def make_agent(**options: object) -> PIEGAgent:
    small = {"feature_dim": 8, "hidden_dim": 16, "num_expl_steps": 10, "overlay_images": 16}
    return PIEGAgent(SHAPE, (3,), **({"encoder_weights": "random"} | small | options))


@functools.cache
def published() -> dict[str, torch.Tensor]:
    """Stand-in for the published file: torchvision's names, shapes and initial values."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        network = resnet18()
        for layer in network.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.running_mean.normal_(0, 0.1)
                layer.running_var.uniform_(0.5, 1.5)
        return network.state_dict()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.save(published(), tmp_path / "resnet18.pth")
    return tmp_path / "resnet18.pth"


def statistics(agent: PIEGAgent) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in agent.encoder.resnet.named_buffers()}


def test_published_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("algos.networks.initialise", lambda module: None)
    agent = PIEGAgent((9, 84, 84), (6,), encoder_weights="random")
    encoder = agent.encoder
    assert encoder.feature_count == 61_952 == encoder.features(torch.zeros(2, 9, 84, 84)).shape[1]
    assert encoder.repr_dim == 1024 == encoder(torch.zeros(2, 9, 84, 84)).shape[1]
    whole = resnet18()
    kept = [whole.conv1, whole.bn1, whole.layer1, whole.layer2]
    count = sum(p.numel() for layer in kept for p in layer.parameters())
    assert sum(p.numel() for p in encoder.resnet.parameters()) == count == 683_072
    trainable = {name: p.numel() for name, p in encoder.named_parameters() if p.requires_grad}
    linear = {"project.weight": 61_952 * 1024, "project.bias": 1024}
    assert trainable == {**linear, "norm.weight": 1024, "norm.bias": 1024}
    assert sum(p.numel() for p in agent.actor.trunk.parameters()) == 1024 * 50 + 50 + 2 * 50


def test_features_are_torchvisions_layer2_of_each_frame_and_their_differences(file: Path) -> None:
    whole = resnet18()
    whole.load_state_dict(published())
    whole.eval()
    agent = make_agent(encoder_weights=str(file))
    agent.prepare()
    obs = make_batch(2, shape=SHAPE).obs
    for observation, features in zip(obs, agent.encoder.features(obs), strict=True):
        maps = []
        for frame in range(3):
            x = observation[3 * frame : 3 * frame + 3][None].float() / 255 - 0.5
            x = whole.maxpool(whole.relu(whole.bn1(whole.conv1(x))))
            maps.append(whole.layer2(whole.layer1(x))[0])
        wanted = torch.stack([maps[1], maps[2], maps[1] - maps[0], maps[2] - maps[1]]).flatten()
        assert torch.allclose(features, wanted, atol=1e-5)


def test_updates_never_move_the_frozen_network_and_move_everything_else() -> None:
    agent = make_agent()
    before = snapshot(agent)
    for step in range(2):
        agent.update(make_batch(shape=SHAPE), step)
    for name, parameter in agent.encoder.named_parameters():
        if name.startswith("resnet."):
            assert not parameter.requires_grad and parameter.grad is None, name
            assert torch.equal(parameter, before["encoder"][name]), name
        else:
            assert parameter.grad.abs().sum() > 0, name
            assert not torch.equal(parameter, before["encoder"][name]), name
    for network in ("actor", "critic"):
        for name, parameter in agent.networks()[network].named_parameters():
            assert not torch.equal(parameter, before[network][name]), f"{network}.{name}"
    optimised = {id(p) for group in agent.encoder_opt.param_groups for p in group["params"]}
    assert optimised == {id(p) for p in agent.encoder.parameters() if p.requires_grad}


@pytest.mark.parametrize("bn_eval", ["running", "batch"])
def test_batchnorm_statistics_move_in_updates_only(bn_eval: str) -> None:
    agent = make_agent(bn_eval=bn_eval)
    agent.update(make_batch(shape=SHAPE), 0)
    before = statistics(agent)
    assert int(before["bn1.num_batches_tracked"]) == 3  # plain, overlaid and next observations
    for eval_mode in (True, False):
        agent.act(make_batch(shape=SHAPE).obs, 100, eval_mode)
    after = statistics(agent)
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert not any(module.training for module in agent.encoder.modules())
    agent.update(make_batch(shape=SHAPE), 1)
    assert not torch.equal(statistics(agent)["bn1.running_mean"], before["bn1.running_mean"])


def test_bn_eval_batch_is_training_mode_on_each_observation() -> None:
    agent = make_agent(bn_eval="batch")
    for step in range(3):
        agent.update(make_batch(shape=SHAPE), step)
    obs = make_batch(4, seed=5, shape=SHAPE).obs
    found = agent.act(obs, 100, eval_mode=True)
    running = make_agent(bn_eval="running")
    running.load_networks(agent.state_dict()["networks"])
    assert not np.allclose(found, running.act(obs, 100, eval_mode=True), atol=1e-4)
    assert np.array_equal(found[1:2], agent.act(obs[1:2], 100, eval_mode=True))  # no neighbour matters
    agent.encoder.train()  # as the published script leaves it
    with torch.no_grad():
        wanted = torch.cat([agent.actor(agent.encoder(single[None])) for single in obs])
    assert np.allclose(found, wanted.numpy(), atol=1e-6)


def test_both_critic_losses_against_an_independent_computation(monkeypatch: pytest.MonkeyPatch) -> None:
    agent, batch = make_agent(), make_batch(shape=SHAPE)
    target = torch.rand(5, 1)
    obs, overlaid = (make_batch(seed=s, shape=SHAPE).obs.float() for s in (1, 2))
    monkeypatch.setattr(agent, "overlay", lambda seen: overlaid if seen is obs else None)
    agent.train(True)
    project, norm, critic = agent.encoder.project, agent.encoder.norm, agent.critic
    losses = []
    with torch.no_grad():
        for frames in (obs, overlaid):
            x = agent.encoder.features(frames) @ project.weight.T + project.bias
            x = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()
            inputs = torch.cat([critic.trunk(x * norm.weight + norm.bias), batch.action], 1)
            losses.append(
                sum(float(((head(inputs) - target) ** 2).mean()) for head in (critic.q1, critic.q2))
            )
    values = agent.critic(agent.encoder(obs), batch.action)
    loss, metrics = agent.critic_loss(batch, obs, values, target)
    assert float(loss.detach()) == pytest.approx((losses[0] + losses[1]) / 2, rel=1e-5)
    assert float(metrics["critic_loss_clean"]) == pytest.approx(losses[0], rel=1e-5)
    assert float(metrics["critic_loss_overlay"]) == pytest.approx(losses[1], rel=1e-5)
    assert abs(losses[0] - losses[1]) > 1e-6


def test_same_seed_same_update_whatever_the_global_generators(file: Path) -> None:
    found = []
    for noise, weights in ((1, "random"), (2, "random"), (3, str(file))):
        torch.manual_seed(noise)
        agent = make_agent(seed=3, encoder_weights=weights)
        metrics = agent.update(make_batch(shape=SHAPE), 0)
        found.append((metrics["critic_loss"], agent.actor.trunk[0].weight.detach()))
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])
    assert not torch.equal(found[0][0], found[2][0])


def test_trained_layers_start_alike_whatever_the_frozen_ones(file: Path) -> None:
    drawn, loaded = make_agent(seed=3), make_agent(seed=3, encoder_weights=str(file))
    loaded.prepare()
    assert moved(drawn, snapshot(loaded)) == {"encoder"}
    assert torch.equal(drawn.encoder.project.weight, loaded.encoder.project.weight)


def test_state_survives_a_snapshot_and_needs_no_file_afterwards(file: Path) -> None:
    first = make_agent(encoder_weights=str(file), seed=1)
    first.update(make_batch(shape=SHAPE), 0)
    tensors: dict[str, torch.Tensor] = {}
    structure = flatten(first.state_dict(), tensors)
    state = restore(structure, {key: value.clone() for key, value in tensors.items()})
    second = make_agent(encoder_weights=str(file), seed=1)
    second.prepare()
    second.load_state_dict(state)
    second.prepare()  # changes nothing: neither weights nor statistics
    file.unlink()
    third = make_agent(encoder_weights=str(file), seed=2)
    third.load_networks(first.state_dict()["networks"])
    for other in (second, third):
        assert not moved(other, snapshot(first))
        obs = make_batch(shape=SHAPE).obs
        assert np.array_equal(first.act(obs, 50, True), other.act(obs, 50, True))
    for agent in (first, second):
        agent.update(make_batch(seed=9, shape=SHAPE), 1)
    assert not moved(second, snapshot(first))


def test_the_record_names_the_weights(file: Path) -> None:
    record = make_agent(encoder_weights=str(file)).prepare()
    assert record["encoder_weights"] == "resnet18.pth" and record["encoder_sha256"] == sha256_file(file)
    assert record["overlay_source"]["name"] == "generated textures" and record["bn_eval"] == "running"
    record = make_agent(seed=4).prepare()
    assert (record["encoder_weights"], record["encoder_seed"]) == ("random", 4)


def test_an_agent_never_acts_through_weights_it_was_not_given(file: Path) -> None:
    agent = make_agent(encoder_weights=str(file))
    agent.act(make_batch(shape=SHAPE).obs, 100, eval_mode=True)
    assert torch.equal(agent.encoder.resnet.conv1.weight, published()["conv1.weight"])


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_with_and_without_batch_counts_load(tmp_path: Path, suffix: str) -> None:
    old = {k: v for k, v in published().items() if not k.endswith("num_batches_tracked")}
    for number, state in enumerate((published(), old)):
        path = tmp_path / f"{number}{suffix}"
        if suffix == ".pth":
            torch.save(state, path)
        else:
            save_file(dict(state), path)
        network = frozen_resnet()
        load_weights(network, path)
        assert torch.equal(network.layer2[1].bn2.running_var, published()["layer2.1.bn2.running_var"])


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code of the file ran",)


def damaged(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:50_000])


def save_changed(path: Path, **changes: object) -> None:
    state = {**published(), **changes}
    torch.save({key: value for key, value in state.items() if value is not None}, path)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.unlink(), ["does not exist"]),
        (damaged, ["cannot be read"]),
        (lambda path: torch.save({"conv1.weight": Evil()}, path), ["cannot be read"]),
        (lambda path: torch.save([1, 2], path), ["no state dict"]),
        (lambda path: save_changed(path, **{"conv1.weight": None}), ["conv1.weight is missing"]),
        (lambda path: save_changed(path, extra=torch.ones(1)), ["extra is not expected"]),
        (
            lambda path: save_changed(path, **{"bn1.weight": torch.ones(3)}),
            ["bn1.weight has shape (3,), not (64,)"],
        ),
        (
            lambda path: save_changed(path, **{"bn1.bias": torch.full((64,), torch.nan)}),
            ["bn1.bias is not finite"],
        ),
    ],
)
def test_bad_files_are_one_error_with_both_cures(file: Path, spoil, words: list[str], capsys) -> None:
    spoil(file)
    agent = make_agent(encoder_weights=str(file))
    before = snapshot(agent)
    with pytest.raises(InputError) as caught:
        agent.prepare()
    text = str(caught.value)
    for word in [*words, file.name, "agent.encoder_weights=<file>", "agent.encoder_weights=random"]:
        assert word in text
    assert not moved(agent, before) and "code of the file ran" not in capsys.readouterr().out


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of torchvision's loader, and no network."""

    def refuse(*arguments: object, **options: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


def test_without_network_one_error_names_both_cures(hub: Path) -> None:
    agent = make_agent(encoder_weights="imagenet")
    with pytest.raises(InputError) as caught:
        agent.update(make_batch(shape=SHAPE), 0)
    for word in ("could not be fetched", "agent.encoder_weights=<file>", "agent.encoder_weights=random"):
        assert word in str(caught.value)


def test_torchvisions_cache_is_used_and_its_digest_checked(
    hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(published(), hub / "tmp.pth")
    digest = sha256_file(hub / "tmp.pth")
    weights = type("Weights", (), {"url": f"https://host.invalid/resnet18-{digest[:8]}.pth"})
    monkeypatch.setattr(algos.imagenet, "_published", lambda: weights)
    cached = (hub / "tmp.pth").rename(hub / f"resnet18-{digest[:8]}.pth")
    assert find_weights("imagenet") == cached
    record = make_agent(encoder_weights="imagenet").prepare()
    assert (record["encoder_weights"], record["encoder_sha256"]) == (cached.name, digest)
    damaged(cached)
    with pytest.raises(InputError, match="damaged"):
        find_weights("imagenet")


def test_impossible_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="batch"):
        make_agent(bn_eval="bacth")
    with pytest.raises(ConfigError, match="frame_stack"):
        PiegEncoder((3, 24, 24))


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_it_learns_the_bars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(AGENTS, "pieg", ("PIEGAgent", {"encoder_weights": "random", "overlay_images": 16}))
    agent = train_on_bars("pieg", tmp_path, decisions=2000)
    assert returns(agent, size=48) > 2.0 * returns(None, size=48)
