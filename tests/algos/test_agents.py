"""What holds for every agent: published sizes, gradients, determinism, state, acting, learning."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import algos
from algos import Agent, DrQV2Agent
from algos.networks import Encoder
from common.errors import ConfigError, SnapshotError
from tests.support.agents import (
    AGENTS,
    MOVED,
    make_agent,
    make_batch,
    moved,
    returns,
    snapshot,
    train_on_bars,
)
from training.flatten import flatten, restore

every_agent = pytest.mark.parametrize("name", AGENTS)

AUXILIARY = {
    "sgqn": {"encoder", "decoder"},
    "curl": {"encoder", "similarity", "key_encoder"},
    "curl-rlvigen": {"encoder", "similarity"},
}
FOLLOWERS = {"critic_target", "key_encoder"}


def parameters(agent: DrQV2Agent) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for n in agent.networks().values() for p in n.parameters()])


def mlp_size(inputs: int, hidden: int, outputs: int) -> int:
    return (inputs + 1) * hidden + (hidden + 1) * hidden + (hidden + 1) * outputs


PUBLISHED = {  # at 84 x 84 with 6 actions: features, and parameters by network
    "svea": (14_112, {"encoder": 9 * 9 * 32 + 32 + 10 * (9 * 32 * 32 + 32)}),
    "srm": (14_112, {"encoder": 95_104}),
    "sgqn": (
        512,
        {
            "encoder": 30_368 + 39_200 * 512 + 512,
            "decoder": 519 * 32 * 21 * 21 + 9 * (32 * 128 + 128 * 64 + 64 * 9) + 128 + 64 + 9,
        },
    ),
    "curl": (512, {"encoder": 20_101_280, "similarity": 512 * 512}),
    "vrl3": (256, {"encoder": 9 * (9 * 32 + 32 * 32 + 32 * 64 + 64 * 128 + 128 * 256) + 2 * (32 + 480)}),
    "drq": (39_200, {"encoder": 30_368, "actor": mlp_size(39_200, 1024, 12), "temperature": 1}),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("algos.networks.initialise", lambda module: None)  # slow at this size
    agent = getattr(algos, AGENTS[name][0])((9, 84, 84), (6,))
    features, wanted = PUBLISHED[name]
    assert agent.encoder.repr_dim == features == agent.encoder(torch.zeros(1, 9, 84, 84)).shape[1]
    trunk = features * 50 + 50 + 2 * 50
    wanted = {"critic": trunk + 2 * mlp_size(56, 1024, 1), **wanted}
    if name != "drq":
        wanted["actor"] = trunk + mlp_size(50, 1024, 6)
    found = {key: sum(p.numel() for p in agent.networks()[key].parameters()) for key in wanted}
    assert found == wanted


@every_agent
def test_every_agent_has_drqv2s_interface_and_keywords(name: str) -> None:
    agent = make_agent(name, device="cpu", lr=3e-4, critic_target_tau=0.5, update_every_steps=3,
                       stddev_schedule="linear(1.0,0.1,9)", stddev_clip=0.2, seed=4)  # fmt: skip
    assert isinstance(agent, Agent) and agent.update_every_steps == 3 and agent.lr == 3e-4
    with pytest.raises(TypeError, match="unheard_of"):
        make_agent(name, unheard_of=1)


@every_agent
def test_every_trainable_parameter_gets_a_gradient_and_no_frozen_one(name: str) -> None:
    agent = make_agent(name)
    before = snapshot(agent)
    agent.update(make_batch(), step=100)
    for network, module in agent.networks().items():
        for key, parameter in module.named_parameters():
            if network in FOLLOWERS or key.startswith("resnet."):
                assert parameter.grad is None and not parameter.requires_grad, f"{network}.{key}"
                assert network in FOLLOWERS or torch.equal(parameter, before[network][key])
            else:
                assert parameter.requires_grad, f"{network}.{key}"
                assert parameter.grad is not None and parameter.grad.abs().sum() > 0, f"{network}.{key}"
                assert not torch.equal(parameter, before[network][key]), f"{network}.{key} did not move"
    optimised = {
        id(p) for o in agent.optimizers().values() for group in o.param_groups for p in group["params"]
    }
    trainable = {id(p) for n in agent.networks().values() for p in n.parameters() if p.requires_grad}
    assert optimised == trainable


@every_agent
def test_each_part_of_an_update_moves_its_networks_only(name: str) -> None:
    agent, batch = make_agent(name), make_batch()
    before = snapshot(agent)
    agent.update(batch, 100)
    assert moved(agent, before) == MOVED[name] == set(agent.networks())
    obs = agent.augment(batch.obs)
    features = agent.encoder(obs)
    before = snapshot(agent)
    agent.update_actor(features.detach(), 100)
    assert moved(agent, before) == {"actor"} | ({"temperature"} & MOVED[name])
    before = snapshot(agent)
    target = agent.target(batch, 100)
    assert not moved(agent, before) and not target.requires_grad and target.shape == (5, 1)
    agent.update_critic(batch, obs, features, target)
    assert moved(agent, before) == {"encoder", "critic"}
    before = snapshot(agent)
    agent.update_auxiliary(batch, obs)
    assert moved(agent, before) == AUXILIARY.get(name, set())


@every_agent
def test_same_seed_same_updates_whatever_the_global_generators(name: str) -> None:
    found = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        expected = torch.rand(1)
        torch.manual_seed(noise)
        agent = make_agent(name, seed=3)
        for step in range(2):
            metrics = agent.update(make_batch(seed=step), step)
        action = agent.act(make_batch().obs, 99, eval_mode=False)
        assert torch.equal(torch.rand(1), expected), "a global generator was used"
        found.append((parameters(agent), action, metrics))
    assert torch.equal(found[0][0], found[1][0]) and np.array_equal(found[0][1], found[1][1])
    assert all(torch.equal(value, found[1][2][key]) for key, value in found[0][2].items())
    assert not torch.equal(found[0][0], parameters(make_agent(name, seed=4)))


@every_agent
def test_state_survives_a_snapshot_and_goes_on_bit_by_bit(name: str) -> None:
    first = make_agent(name, seed=1)
    first.update(make_batch(), 0)
    first.act(make_batch().obs, 50, False)
    tensors: dict[str, torch.Tensor] = {}
    structure = flatten(first.state_dict(), tensors)
    tensors = {key: value.clone() for key, value in tensors.items()}
    second = make_agent(name, seed=1)
    second.load_state_dict(restore(structure, tensors))
    for agent in (first, second):
        for step in range(2):
            agent.update(make_batch(seed=9 + step), step)
    assert torch.equal(parameters(first), parameters(second))
    assert np.array_equal(*(agent.act(make_batch().obs, 50, False) for agent in (first, second)))
    third = make_agent(name, seed=2)
    third.load_networks(first.state_dict()["networks"])
    assert torch.equal(parameters(first), parameters(third))
    assert np.array_equal(*(agent.act(make_batch().obs, 50, True) for agent in (first, third)))


def test_a_state_of_another_machine_does_not_say_how_optimisers_compute() -> None:
    agent = make_agent("drqv2")
    agent.update(make_batch(), 0)
    state = agent.state_dict()
    for optimizer in state["optimizers"].values():
        for group in optimizer["param_groups"]:
            group |= {"capturable": True, "fused": False, "lr": 0.5}
    agent.load_state_dict(state)
    groups = [group for optimizer in agent.optimizers().values() for group in optimizer.param_groups]
    assert all(group["fused"] and not group["capturable"] and group["lr"] == 0.5 for group in groups)
    agent.update(make_batch(), 1)


@every_agent
def test_act_changes_nothing_and_draws_nothing_in_evaluation(name: str) -> None:
    agent, obs = make_agent(name), make_batch().obs
    agent.update(make_batch(), 0)
    before = snapshot(agent)
    states = {key: generator.get_state() for key, generator in agent.generators.items()}
    mean = agent.act(obs, 0, eval_mode=True)
    assert mean.shape == (5, 3) and mean.dtype == np.float32 and np.abs(mean).max() <= 1
    assert np.array_equal(mean, agent.act(obs.numpy(), 10**6, eval_mode=True))
    assert all(torch.equal(states[key], g.get_state()) for key, g in agent.generators.items())
    uniform, noisy = agent.act(obs, 0, eval_mode=False), agent.act(obs, 10, eval_mode=False)
    assert not np.array_equal(uniform, noisy) and np.abs(noisy).max() <= 1
    assert torch.equal(states["update"], agent.generators["update"].get_state())
    assert not torch.equal(states["act"], agent.generators["act"].get_state())
    assert not moved(agent, before)
    assert not any(module.training for n in agent.networks().values() for module in n.modules())


@every_agent
def test_metrics_are_detached_scalars_and_explained(name: str) -> None:
    agent = make_agent(name)
    metrics = agent.update(make_batch(), 0)
    assert {"critic_loss", "actor_loss", "critic_target_q", "batch_reward"} <= metrics.keys()
    assert all(value.ndim == 0 and not value.requires_grad for value in metrics.values())
    assert all(torch.isfinite(value) for value in metrics.values())
    text = " ".join(inspect.getdoc(kind) or "" for kind in type(agent).__mro__)
    explained = set(re.findall(r"``(\w+)``", text))
    assert metrics.keys() <= explained, metrics.keys() - explained


@every_agent
def test_networks_of_another_agent_are_refused(name: str) -> None:
    agent = make_agent(name)
    other = make_agent("curl" if name != "curl" else "svea")
    before = snapshot(agent)
    with pytest.raises(SnapshotError, match=type(agent).__name__):
        agent.load_networks(other.state_dict()["networks"])
    wider = make_agent(name, hidden_dim=17)
    with pytest.raises(SnapshotError, match=r"actor.policy.* is \(17,"):
        agent.load_networks(wider.state_dict()["networks"])
    assert not moved(agent, before)


def test_frames_too_small_for_the_encoder_are_one_error() -> None:
    assert Encoder((3, 43, 43), layers=11).repr_dim == 32
    with pytest.raises(ConfigError, match="image_size=43"):
        Encoder((3, 42, 42), layers=11)
    assert Encoder((3, 15, 15)).repr_dim == 32
    with pytest.raises(ConfigError, match="image_size=15"):
        Encoder((3, 14, 14))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every_agent
def test_every_agent_learns_on_the_gpu(name: str) -> None:
    agent = make_agent(name, device="cuda")
    metrics = agent.update(make_batch().to("cuda"), 100)
    assert all(value.is_cuda and torch.isfinite(value) for value in metrics.values())
    assert agent.act(make_batch().obs, 100, eval_mode=True).shape == (5, 3)
    assert moved(agent, snapshot(make_agent(name, device="cuda"))) == MOVED[name]


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    "name", ["drqv2", "svea", "srm", "sgqn", "curl", "drq", "vrl3"]
)  # pieg: test_pieg.py
def test_every_agent_learns_the_bars(name: str, tmp_path: Path) -> None:
    agent = train_on_bars(name, tmp_path, decisions=2000)
    assert returns(agent, size=48) > 2.0 * returns(None, size=48)
