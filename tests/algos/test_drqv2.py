"""DrQ-v2: published numbers, formulas against plain loops, gradients, determinism, state."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from algos import Agent, Batch, DrQV2Agent
from algos.augmentations import random_shift
from algos.distributions import TruncatedNormal
from algos.networks import Critic, Encoder, soft_update
from algos.schedules import parse_schedule
from common.errors import ConfigError

SHAPE = (9, 24, 24)


def make_agent(**options: object) -> DrQV2Agent:
    defaults = {"feature_dim": 8, "hidden_dim": 16, "num_expl_steps": 10}
    return DrQV2Agent(obs_shape=SHAPE, action_shape=(3,), **(defaults | options))


def make_batch(size: int = 6, seed: int = 0) -> Batch:
    g = torch.Generator().manual_seed(seed)
    frames = torch.randint(0, 256, (2, size, *SHAPE), generator=g, dtype=torch.uint8)
    action = torch.rand(size, 3, generator=g) * 2 - 1
    reward, discount = torch.rand(size, 1, generator=g), torch.full((size, 1), 0.97)
    return Batch(frames[0], action, reward, discount, frames[1])


def parameters(agent: DrQV2Agent) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for n in agent.networks().values() for p in n.parameters()])


def test_published_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("algos.networks.initialise", lambda module: None)  # slow at this size
    encoder = Encoder((9, 84, 84))
    assert encoder.repr_dim == 39_200
    assert sum(p.numel() for p in encoder.parameters()) == 9 * 32 * 9 + 32 + 3 * (32 * 32 * 9 + 32)
    agent = DrQV2Agent((9, 84, 84), (6,))
    trunk = 39_200 * 50 + 50 + 2 * 50
    assert sum(p.numel() for p in agent.actor.parameters()) == trunk + sum(
        a * b + b for a, b in pairwise((50, 1024, 1024, 6))
    )
    assert sum(p.numel() for p in agent.critic.parameters()) == trunk + 2 * sum(
        a * b + b for a, b in pairwise((56, 1024, 1024, 1))
    )


def test_the_agent_satisfies_the_protocol() -> None:
    assert isinstance(DrQV2Agent(SHAPE, (3,)), Agent)


def test_layers_are_orthogonal_with_zero_biases() -> None:
    critic = Critic(40, 3, 8, 16)
    weight = critic.q1[2].weight
    assert torch.allclose(weight @ weight.T, torch.eye(16), atol=1e-5)
    convolution = Encoder(SHAPE).convnet[2].weight.flatten(1)
    assert torch.allclose(convolution @ convolution.T, 2 * torch.eye(32), atol=1e-5)
    assert all((p == 0).all() for name, p in critic.named_parameters() if name.endswith("bias"))


def test_every_trainable_parameter_gets_a_gradient() -> None:
    agent = make_agent()
    before = {name: parameters_of.state_dict() for name, parameters_of in agent.networks().items()}
    before = {name: {k: v.clone() for k, v in state.items()} for name, state in before.items()}
    agent.update(make_batch(), step=100)
    for name in ("encoder", "actor", "critic"):
        for key, parameter in agent.networks()[name].named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, f"{name}.{key}"
            assert not torch.equal(parameter, before[name][key]), f"{name}.{key} did not move"
    assert all(p.grad is None and not p.requires_grad for p in agent.critic_target.parameters())


def test_encoder_learns_from_the_critic_only() -> None:
    agent = make_agent()
    features = agent.encoder(agent.augment(make_batch().obs)).detach()
    weights = [p.clone() for p in agent.encoder.parameters()]
    critic = [p.clone() for p in agent.critic.parameters()]
    agent.update_actor(features, step=100)
    assert all(torch.equal(a, b) for a, b in zip(weights, agent.encoder.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(critic, agent.critic.parameters(), strict=True))


def test_critic_target_against_a_loop() -> None:
    agent = make_agent()
    batch = make_batch()
    features = agent.encoder(batch.next_obs).detach()
    state = agent.generators["update"].get_state()
    target = agent.target_value(batch.reward, batch.discount, features, step=50_000)
    agent.generators["update"].set_state(state)
    noise = torch.randn(6, 3, generator=agent.generators["update"])
    stddev = 1.0 + (0.1 - 1.0) * 0.5
    for i in range(6):
        mean = agent.actor(features[i : i + 1])[0].detach()
        action = []
        for j in range(3):
            clipped = min(max(float(noise[i, j]) * stddev, -0.3), 0.3)
            action.append(min(max(float(mean[j]) + clipped, -1 + 1e-6), 1 - 1e-6))
        q1, q2 = agent.critic_target(features[i : i + 1], torch.tensor([action]))
        expected = float(batch.reward[i]) + float(batch.discount[i]) * min(float(q1), float(q2))
        assert float(target[i]) == pytest.approx(expected, abs=1e-5)


def test_soft_update_follows_slowly() -> None:
    network, target = Critic(10, 2, 4, 8), Critic(10, 2, 4, 8)
    expected = [0.3 * p + 0.7 * t for p, t in zip(network.parameters(), target.parameters(), strict=True)]
    soft_update(network, target, 0.3)
    for value, wanted in zip(target.parameters(), expected, strict=True):
        assert torch.allclose(value, wanted, atol=1e-7)


def test_random_shift_is_an_integer_crop_of_the_padded_frame() -> None:
    obs = torch.randint(0, 256, (16, 6, 12, 12), generator=torch.Generator().manual_seed(1)).float()
    shifted = random_shift(obs, pad=4, generator=torch.Generator().manual_seed(7))
    shift = torch.randint(0, 9, (16, 2), generator=torch.Generator().manual_seed(7))
    assert len(shift.unique()) > 4
    for i in range(16):
        padded = np.pad(obs[i].numpy(), ((0, 0), (4, 4), (4, 4)), mode="edge")
        x, y = shift[i].tolist()
        crop = padded[:, y : y + 12, x : x + 12]
        assert np.abs(shifted[i].numpy() - crop).max() < 0.01


def test_truncated_normal_clips_and_passes_gradients() -> None:
    loc = torch.full((1000, 1), 0.9, requires_grad=True)
    sample = TruncatedNormal(loc, 1.0).sample(clip=0.3, generator=torch.Generator().manual_seed(0))
    assert 0.6 - 1e-6 <= sample.min() and sample.max() <= 1 - 1e-6
    assert (sample == sample.max()).sum() > 300  # many were clamped at the bound
    sample.sum().backward()
    assert torch.equal(loc.grad, torch.ones_like(loc))
    wanted = torch.distributions.Normal(0.9, 0.2).log_prob(torch.tensor([[0.5]]))
    assert torch.allclose(TruncatedNormal(torch.tensor([[0.9]]), 0.2).log_prob(torch.tensor([[0.5]])), wanted)


def test_acting() -> None:
    agent = make_agent(stddev_schedule=0.1)
    obs = make_batch().obs
    uniform = np.concatenate([agent.act(obs, 0, eval_mode=False) for _ in range(50)])
    assert uniform.shape == (300, 3) and uniform.dtype == np.float32
    assert abs(uniform.mean()) < 0.1 and uniform.std() == pytest.approx(1 / math.sqrt(3), abs=0.05)
    state = agent.generators["act"].get_state()
    mean = agent.act(obs.numpy(), 0, eval_mode=True)
    assert torch.equal(state, agent.generators["act"].get_state()), "evaluation drew a random number"
    noisy = np.stack([agent.act(obs, 10, eval_mode=False) for _ in range(100)])
    assert np.abs(noisy.mean(0) - mean).max() < 0.06 and 0.05 < noisy.std(0).mean() < 0.15
    assert np.abs(noisy).max() <= 1


def test_networks_train_only_inside_update() -> None:
    agent = make_agent()
    modes = []
    agent.encoder.register_forward_hook(lambda module, *_: modes.append(module.training))
    agent.act(make_batch().obs, 100, eval_mode=False)
    agent.update(make_batch(), 100)
    agent.act(make_batch().obs, 100, eval_mode=True)
    assert modes == [False, True, True, False]


def test_same_seed_same_updates_whatever_the_global_generators() -> None:
    results = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        agent = make_agent(seed=3)
        for step in range(3):
            metrics = agent.update(make_batch(seed=step), step)
        results.append((parameters(agent), metrics["critic_loss"], agent.act(make_batch().obs, 99, False)))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    assert np.array_equal(results[0][2], results[1][2])
    assert not torch.equal(results[0][0], parameters(make_agent(seed=4)))


def test_making_an_agent_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    make_agent().update(make_batch(), 0)
    assert torch.equal(torch.rand(1), expected)


def test_state_round_trip_continues_bitwise() -> None:
    first = make_agent(seed=1)
    first.update(make_batch(), 0)
    second = make_agent(seed=2)
    second.load_state_dict(first.state_dict())
    for agent in (first, second):
        agent.update(make_batch(seed=9), 1)
    assert torch.equal(parameters(first), parameters(second))
    assert np.array_equal(*(agent.act(make_batch().obs, 50, False) for agent in (first, second)))
    third = make_agent(seed=2)
    third.load_networks(first.state_dict()["networks"])
    assert torch.equal(parameters(first), parameters(third))


def test_metrics_are_detached_scalars() -> None:
    metrics = make_agent().update(make_batch(), 0)
    assert {"critic_loss", "actor_loss", "critic_target_q", "batch_reward"} <= metrics.keys()
    assert all(value.ndim == 0 and not value.requires_grad for value in metrics.values())


def test_schedules() -> None:
    linear = parse_schedule("linear(1.0, 0.1, 100)")
    assert [linear(step) for step in (0, 50, 100, 1000)] == pytest.approx([1.0, 0.55, 0.1, 0.1])
    pieces = parse_schedule("step_linear(1.0,0.5,10,0.1,20)")
    assert [pieces(step) for step in (0, 5, 10, 20, 30, 99)] == pytest.approx([1.0, 0.75, 0.5, 0.3, 0.1, 0.1])
    assert parse_schedule(0.2)(7) == parse_schedule("0.2")(7) == 0.2
    shapeless = ("cosine(1,2,3)", "linear(1,2)", "linear(1,2,0)", "linear(a,b,c)", "", "linear")
    for wrong in (*shapeless, "-1", "nan", "inf", "linear(1,-0.1,9)", "linear(1,nan,9)", "linear(1,0,-9)"):
        with pytest.raises(ConfigError, match="is not a schedule"):
            parse_schedule(wrong)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_updates_on_the_gpu_agree_with_the_cpu_in_shape_and_stay_finite() -> None:
    agent = make_agent(device="cuda")
    metrics = agent.update(make_batch().to("cuda"), 0)
    assert all(value.is_cuda and torch.isfinite(value) for value in metrics.values())
    assert agent.act(make_batch().obs, 100, eval_mode=True).shape == (6, 3)
