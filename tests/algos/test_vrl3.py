"""VRL3: its losses against plain loops, what each stage moves, where the encoder's weights come from."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from algos.resnet6 import MEAN, STD, ResNet6Encoder, over_frames, resnet6
from algos.vrl3 import conservative_loss, pretanh_loss, safe_target
from common.errors import ConfigError, InputError
from tests.support.agents import make_agent, make_batch, moved, snapshot
from tests.support.host_sync import HostSync


@pytest.mark.parametrize(("threshold", "exponent"), [(200.0, 0.5), (200.0, 1.0), (10.0, 0.0), (0.0, 0.25)])
def test_safe_targets(threshold: float, exponent: float) -> None:
    values = [-500.0, -1.0, 0.0, 9.9, 11.5, 199.0, 200.5, 201.0, 201.01, 204.0, 10_200.0]
    found = safe_target(torch.tensor(values).unsqueeze(1), threshold, exponent)
    for value, safe in zip(values, found[:, 0].tolist(), strict=True):
        wanted = threshold + (value - threshold) ** exponent if value > threshold + 1 else value
        assert safe == pytest.approx(wanted, rel=1e-6)
    assert safe_target(torch.tensor([[10_200.0]]), 200.0, 0.5).item() == 300.0


@pytest.mark.parametrize(
    ("size", "count", "temperature"), [(1, 1, 1.0), (4, 3, 1.0), (3, 12, 0.2), (2, 5, 7.0)]
)
def test_the_conservative_loss(size: int, count: int, temperature: float) -> None:
    g = torch.Generator().manual_seed(count)
    taken, proposed = torch.randn(size, 1, generator=g), 3 * torch.randn(size, count, generator=g)
    total = 0.0
    for row in range(size):
        every = [*proposed[row].tolist(), taken[row].item()]
        total += temperature * math.log(sum(math.exp(q / temperature) for q in every)) - taken[row].item()
    assert conservative_loss(taken, proposed, temperature).item() == pytest.approx(total / size, rel=1e-5)


@pytest.mark.parametrize(
    ("raw", "threshold"),
    [([[0.0, 5.0], [-5.0, 4.9]], 5.0), ([[7.0, -6.0], [0.0, 5.5]], 5.0), ([[1.0], [-2.0], [0.5]], 0.0)],
)
def test_the_pretanh_penalty(raw: list[list[float]], threshold: float) -> None:
    wanted = np.mean([max(abs(value) - threshold, 0.0) ** 2 for row in raw for value in row])
    assert pretanh_loss(torch.tensor(raw), threshold).item() == pytest.approx(float(wanted))


def rewind(agent):
    agent.generators["update"].manual_seed(5)


@pytest.mark.parametrize("options", [{}, {"cql_temp": 0.5, "cql_random_actions": 2}, {"cql_weight": 0.0}])
def test_the_offline_critic_minimises_the_sum(options: dict[str, float]) -> None:
    agent, batch = make_agent("vrl3", **options), make_batch(size=4)
    agent.offline = True
    agent.train(True)
    target = agent.target(batch, 0)
    features = agent.features(agent.augment(batch.obs), batch.state)
    rewind(agent)
    actions = agent.proposals(features)
    assert actions.shape == (4, agent.cql_random_actions + 2, 3) and not actions.requires_grad
    q1, q2 = agent.critic(features, batch.action)
    wanted, weight, temperature = 0.0, agent.cql_weight, agent.cql_temp
    for number, taken in enumerate((q1, q2)):
        wanted += sum((a - b).item() ** 2 for a, b in zip(taken, target, strict=True)) / 4
        for row in range(4):
            values = [agent.critic(features[row : row + 1], a[None])[number].item() for a in actions[row]]
            every = sum(math.exp(q / temperature) for q in [*values, taken[row].item()])
            wanted += weight * (temperature * math.log(every) - taken[row].item()) / 4
    rewind(agent)
    metrics = agent.update_critic(batch, batch.obs, features, target)
    assert metrics["critic_loss"].item() == pytest.approx(wanted, rel=1e-4)


def test_proposed_actions_are_uniform_and_the_policys_at_both_observations() -> None:
    agent, batch = make_agent("vrl3", cql_random_actions=400, offline_stddev=0.0), make_batch()
    agent.offline = True
    agent.train(True)
    agent.target(batch, 0)
    features = agent.features(agent.augment(batch.obs), batch.state)
    actions = agent.proposals(features)
    uniform = actions[:, :400]
    assert uniform.abs().max() <= 1 and abs(uniform.mean().item()) < 0.05
    assert uniform.var().item() == pytest.approx(1 / 3, abs=0.03)
    assert torch.allclose(actions[:, 400], agent.actor(features), atol=1e-5)
    assert torch.allclose(actions[:, 401], agent.actor(agent._next_features), atol=1e-5)
    assert not torch.allclose(actions[:, 400], actions[:, 401])


@pytest.mark.parametrize("offline", [True, False])
def test_the_actor_minimises_value_imitation_and_saturation(offline: bool) -> None:
    options = {"offline_bc_weight": 3.0, "bc_weight": 2.0, "pretanh_penalty": 0.5, "pretanh_threshold": 0.001}
    agent, batch, step = make_agent("vrl3", **options), make_batch(), 90_000
    seen = {}
    update = agent.update_actor
    agent.update_actor = lambda *inputs: (
        seen.update(features=inputs[0])
        or (seen.update(raw=agent.actor.before_tanh(inputs[0]).detach()) or update(*inputs))
    )
    metrics = agent.update_offline(batch) if offline else agent.update(batch, step)
    raw = seen["raw"]
    imitation = np.mean(
        [
            (math.tanh(r) - a) ** 2
            for r, a in zip(raw.flatten().tolist(), batch.action.flatten().tolist(), strict=True)
        ]
    )
    assert metrics["bc_loss"].item() == pytest.approx(float(imitation), rel=1e-4)
    assert metrics["pretanh_loss"].item() == pytest.approx(pretanh_loss(raw, 0.001).item(), rel=1e-4)
    weight = 3.0 if offline else 2.0 * 0.95**2
    value = metrics["actor_loss"] - weight * metrics["bc_loss"] - 0.5 * metrics["pretanh_loss"]
    agent.offline = offline
    noise = agent.offline_stddev if offline else 0.01
    action = (torch.tanh(raw) + noise * torch.randn(5, 3)).clamp(-1, 1)
    assert -value.item() == pytest.approx(
        torch.min(*agent.critic(seen["features"], action)).mean().item(), abs=0.05
    )


def test_each_stage_has_its_own_noise_and_acting_has_the_schedules() -> None:
    agent = make_agent("vrl3", stddev_schedule=0.07, offline_stddev=0.4)
    agent.offline = True
    assert agent.noise(0) == 0.07
    agent.train(True)
    assert agent.noise(0) == 0.4
    agent._noise = torch.ones(())
    assert agent.noise(0) is agent._noise
    agent._noise = None
    agent.offline = False
    assert agent.noise(0) == 0.07


def test_what_each_stage_moves() -> None:
    batch = make_batch(state_dim=4)
    agent = make_agent("vrl3", state_dim=4)
    before = snapshot(agent)
    metrics = agent.update_offline(batch)
    assert moved(agent, before) == set(agent.networks()) and metrics["conservative_loss"] > 0
    before = snapshot(agent)
    metrics = agent.update(batch, 0)
    assert moved(agent, before) == set(agent.networks()) and metrics["conservative_loss"] == 0

    still = make_agent("vrl3", state_dim=4, offline_update_encoder=False)
    before = {key: value.clone() for key, value in still.encoder.named_parameters()}
    still.update_offline(batch)
    assert all(torch.equal(value, before[key]) for key, value in still.encoder.named_parameters())
    still.update(batch, 0)
    assert not any(torch.equal(value, before[key]) for key, value in still.encoder.named_parameters())


def changed(agent, before) -> set[str]:
    """The parameters and buffers that differ, by network and name."""
    now = snapshot(agent)
    return {f"{n}.{k}" for n, state in now.items() for k, v in state.items() if not v.equal(before[n][k])}


def test_what_each_stage_moves_to_the_last_tensor(tmp_path: Path) -> None:
    file, batch = tmp_path / "encoder.safetensors", make_batch(state_dim=4)
    safetensors.torch.save_file(resnet6().state_dict(), file)
    options = {"state_dim": 4, "encoder_weights": str(file), "offline_update_encoder": False}
    agent = make_agent("vrl3", **options)
    before = snapshot(agent)
    every = {f"{name}.{key}" for name, state in before.items() for key in state}
    layers = [f"encoder.convnet.{part}" for part in ("stem", "layer1", "layer2", "layer3", "layer4")]
    statistics = {f"{layer}.bn.{key}" for layer in layers for key in ("running_mean", "running_var")}
    counted = {f"{layer}.bn.num_batches_tracked" for layer in layers}
    weights = {f"{layer}.{key}" for layer in layers for key in ("conv.weight", "bn.weight", "bn.bias")}

    agent.prepare()  # stage 1: convolutions are the file's; BatchNorm begins as a fresh one's does
    assert changed(agent, before) == {f"{layer}.conv.weight" for layer in layers}
    before = snapshot(agent)
    agent.update_offline(
        batch
    )  # stage 2 with a still encoder: its weights stay, its statistics follow the data
    assert changed(agent, before) == every - weights
    before, moments = snapshot(agent), agent.encoder_opt.state_dict()["state"]
    assert not moments
    agent.update(batch, 0)  # stage 3: everything
    assert changed(agent, before) == every and statistics | counted | weights < every


def test_the_conservative_loss_lowers_values_of_actions_nobody_took() -> None:
    left = []
    for weight in (0.0, 5.0):
        agent, batch = make_agent("vrl3", cql_weight=weight, lr=1e-3), make_batch(size=8)
        left.append([agent.update_offline(batch)["conservative_loss"].item() for _ in range(30)])
    assert left[0][0] == left[1][0] and left[1][-1] < left[0][-1] - 0.05


def test_the_encoders_learning_rate_is_scaled() -> None:
    agent = make_agent("vrl3", encoder_lr_scale=0.01, lr=1e-3)
    rates = {name: group["lr"] for name, o in agent.optimizers().items() for group in o.param_groups}
    assert rates == {"encoder": pytest.approx(1e-5), "actor": 1e-3, "critic": 1e-3}


def test_offline_updates_do_not_wait_for_the_device() -> None:
    agent, batch = make_agent("vrl3"), make_batch()
    agent._noise = torch.zeros(())  # as while an update is recorded
    agent.update_offline(batch)  # Adam makes its moments
    with HostSync():
        for offline in (True, False):
            agent.offline = offline
            agent.train(True)
            agent._learn(batch, 0)


def test_a_stack_of_one_picture_has_the_pictures_features() -> None:
    single, encoder = resnet6().eval(), ResNet6Encoder((9, 44, 44)).eval()
    encoder.load_single(single.state_dict())
    picture = torch.randint(0, 256, (2, 3, 44, 44), dtype=torch.uint8)
    colours = picture.double() / 255
    normal = (colours - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    with torch.no_grad():
        assert torch.allclose(encoder(picture.repeat(1, 3, 1, 1)), single(normal.float()), atol=1e-4)
    assert over_frames(single.state_dict(), 1)["stem.conv.weight"].equal(single.stem.conv.weight)


def test_weights_come_from_a_file_once_and_are_named(tmp_path: Path) -> None:
    torch.manual_seed(1)
    file = tmp_path / "encoder.safetensors"
    state = resnet6().state_dict()
    safetensors.torch.save_file(state, file)
    agent = make_agent("vrl3", encoder_weights=str(file))
    record = agent.prepare()
    assert record["encoder_weights"] == "encoder.safetensors" and len(record["encoder_sha256"]) == 64
    assert torch.allclose(agent.encoder.convnet.layer4.conv.weight, state["layer4.conv.weight"])
    agent.update(make_batch(), 0)
    before = snapshot(agent)
    assert agent.prepare() == record and not moved(agent, before)
    other = make_agent("vrl3", encoder_weights=str(file))
    other.load_networks(agent.state_dict()["networks"])
    other.prepare()
    assert not moved(other, before)


def test_files_that_will_not_do_are_one_error(tmp_path: Path) -> None:
    file = tmp_path / "encoder.safetensors"
    state = resnet6().state_dict()
    data = safetensors.torch.save(state)
    for content, words in (
        (data[: len(data) // 2], "damaged"),
        (safetensors.torch.save({k: v for k, v in state.items() if k != "layer2.bn.bias"}), "layer2.bn.bias"),
        (safetensors.torch.save({**state, "stem.conv.weight": torch.ones(32, 9, 3, 3)}), r"\(32, 9, 3, 3\)"),
    ):
        file.write_bytes(content)
        with pytest.raises(InputError, match=words):
            make_agent("vrl3", encoder_weights=str(file)).prepare()
    with pytest.raises(ConfigError, match="by name"):
        make_agent("vrl3", encoder_weights="imagenet")
