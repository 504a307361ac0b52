"""The losses of SVEA, SRM, SGQN, CURL and DrQ against independent computations of a few lines."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Normal, TanhTransform, TransformedDistribution

from algos.distributions import SquashedNormal
from algos.saliency import guided_saliency, saliency_mask
from common.errors import ConfigError
from tests.support.agents import make_agent, make_batch


def replay(agent, draw):
    """Return what ``draw(generator)`` takes from the update generator, and put the generator back."""
    generator = agent.generators["update"]
    state = generator.get_state()
    result = draw(generator)
    generator.set_state(state)
    return result


def mean_square(a, b) -> float:
    return float(np.mean([(x.item() - y.item()) ** 2 for x, y in zip(a, b, strict=True)]))


def prepared(name: str, **options):
    """Return an agent, a batch, its shifted observations, both values there, and a target."""
    agent, batch = make_agent(name, **options), make_batch()
    obs = agent.augment(batch.obs)
    return agent, batch, obs, agent.critic(agent.encoder(obs), batch.action), torch.rand(5, 1)


def overlaid(agent, obs, generator, alpha=0.5):
    index = torch.randint(0, 16, (5,), generator=generator)
    mirrored = torch.rand(5, 1, 1, 1, generator=generator) < 0.5
    out = np.empty(obs.shape, np.float64)
    for i in range(5):
        image = agent.overlays.bank[index[i]].numpy().astype(np.float64)
        image = image[:, :, ::-1] if mirrored[i] else image
        for channel in range(9):
            out[i, channel] = (1 - alpha) * obs[i, channel].numpy() + alpha * image[channel % 3]
    return torch.from_numpy(out).float()


@pytest.mark.parametrize("alpha", [0.5, 0.2])
def test_svea_fits_one_target_half_and_half(alpha: float) -> None:
    agent, batch, obs, values, target = prepared("svea", overlay_alpha=alpha)
    views = replay(agent, lambda generator: overlaid(agent, obs, generator, alpha))
    loss, metrics = agent.critic_loss(batch, obs, values, target)
    disturbed = agent.critic(agent.encoder(views), batch.action)
    clean = mean_square(values[0], target) + mean_square(values[1], target)
    overlay = mean_square(disturbed[0], target) + mean_square(disturbed[1], target)
    assert loss.item() == pytest.approx((clean + overlay) / 2, rel=1e-4)
    assert float(metrics["critic_loss_clean"]) == pytest.approx(clean, rel=1e-4)
    assert float(metrics["critic_loss_overlay"]) == pytest.approx(overlay, rel=1e-4)
    assert clean != pytest.approx(overlay, rel=1e-3)


def test_sveas_target_and_actor_see_no_overlay() -> None:
    agent, batch = make_agent("svea"), make_batch()
    target = replay(agent, lambda _: agent.target(batch, 100))
    plain = make_agent("svea", overlay_alpha=0.0)
    assert torch.equal(target, plain.target(batch, 100))
    seen = []
    agent.actor.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    obs = replay(agent, lambda _: agent.augment(batch.obs))
    features = agent.encoder(obs)
    agent.update(batch, 100)
    assert torch.allclose(seen[-1], features, atol=1e-5)  # the last call is the actor's own update


def test_srm_disturbs_overlays_by_the_ring_it_draws() -> None:
    agent, batch, obs, values, target = prepared("srm", mask_probability=1.0)

    def draw(generator):
        views = overlaid(agent, obs, generator)
        _, low, width = torch.rand(3, generator=generator).tolist()
        return views, round(low * 0.5, 2), round(width * 0.05, 2)

    views, low, width = replay(agent, draw)
    assert width > 0
    spectrum = np.fft.fftn(views.numpy().reshape(5, 3, 3, 44, 44), axes=(2, 3, 4))  # over colours, like SRM
    frequency = np.abs(np.fft.fftfreq(44)).astype(np.float32)
    for y in range(44):
        for x in range(44):
            if low <= max(frequency[y], frequency[x]) < low + width:
                spectrum[..., y, x] = 0
    wanted = np.fft.ifftn(spectrum, axes=(2, 3, 4)).real.reshape(5, 9, 44, 44)
    loss, _ = agent.critic_loss(batch, obs, values, target)
    disturbed = agent.critic(agent.encoder(torch.from_numpy(wanted).float()), batch.action)
    clean = mean_square(values[0], target) + mean_square(values[1], target)
    masked = mean_square(disturbed[0], target) + mean_square(disturbed[1], target)
    assert loss.item() == pytest.approx((clean + masked) / 2, rel=1e-3)


class TwoLayers(nn.Module):
    """A value of hand-made weights, with two ReLUs (one in place, like DrQ-v2's)."""

    def __init__(self) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(0)
        self.first, self.second = nn.Linear(12, 7), nn.Linear(9, 6)
        self.last = nn.Linear(6, 1)
        self.relu, self.relu_in_place = nn.ReLU(), nn.ReLU(inplace=True)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=g)

    def encode(self, obs):
        return self.relu(self.first(obs.flatten(1)))

    def forward(self, features, action):
        hidden = self.relu_in_place(self.second(torch.cat([features, action], 1)))
        return self.last(hidden), self.last(hidden)


def test_guided_backpropagation_against_plain_matrices() -> None:
    critic = TwoLayers()
    encoder = nn.Sequential(nn.Flatten(), critic.first, critic.relu)
    obs, action = torch.randn(4, 3, 2, 2), torch.randn(4, 2)
    found = guided_saliency(encoder, critic, obs, action)
    w1, w2, w3 = (layer.weight.detach().numpy() for layer in (critic.first, critic.second, critic.last))
    for i in range(4):
        h1 = w1 @ obs[i].flatten().numpy() + critic.first.bias.detach().numpy()
        h2 = w2 @ np.concatenate([np.maximum(h1, 0), action[i]]) + critic.second.bias.detach().numpy()
        g2 = np.maximum(w3[0], 0) * (h2 > 0)
        g1 = np.maximum((w2.T @ g2)[:7], 0) * (h1 > 0)
        assert np.allclose(found[i].flatten().numpy(), w1.T @ g1, atol=1e-4)
    assert found.abs().sum() > 0
    assert all(p.grad is None for p in critic.parameters())
    obs.requires_grad_()  # outside, gradients are ordinary again
    plain = torch.autograd.grad(critic(encoder(obs), action)[0].sum(), obs)[0]
    assert not torch.allclose(plain, found)


def test_saliency_masks_keep_the_top_pixels_of_every_frame() -> None:
    saliency = torch.randn(4, 9, 10, 12)
    mask = saliency_mask(saliency, 0.93)
    assert mask.shape == saliency.shape and mask.dtype == torch.bool
    for i in range(4):
        for frame in range(3):
            part = np.abs(saliency[i, 3 * frame : 3 * frame + 3].numpy()).max(0)
            wanted = part >= np.quantile(part, 0.93)
            assert 0 < wanted.sum() <= math.ceil(0.07 * 120)
            for channel in range(3):
                assert np.array_equal(mask[i, 3 * frame + channel].numpy(), wanted)


def test_sgqn_consistency_compares_values_with_those_of_salient_pixels() -> None:
    agent, batch, obs, values, target = prepared("sgqn", consistency_weight=0.7, sgqn_quantile=0.6)
    share = replay(agent, lambda generator: float(torch.rand((), generator=generator)))
    loss, metrics = agent.critic_loss(batch, obs, values, target)
    grey = float(obs.min()) + share * (float(obs.max()) - float(obs.min()))
    mask = saliency_mask(guided_saliency(agent.encoder, agent.critic, obs, batch.action), 0.6)
    masked = obs.clone()
    masked[~mask] = grey
    assert 0.55 < float((masked == grey).float().mean()) < 0.65
    other = agent.critic(agent.encoder(masked), batch.action)
    consistency = mean_square(values[0], other[0]) + mean_square(values[1], other[1])
    assert float(metrics["consistency_loss"]) == pytest.approx(consistency, rel=1e-3)
    bellman = mean_square(values[0], target) + mean_square(values[1], target)
    assert loss.item() == pytest.approx(bellman + 0.7 * consistency, rel=1e-4)
    # Gradients go through both sides.
    for side in (values, other):
        assert side[0].requires_grad
    gradient = torch.autograd.grad(loss, values[0])[0]
    wanted = 2 / 5 * (values[0] - target) + 0.7 * 2 / 5 * (values[0] - other[0])
    assert torch.allclose(gradient, wanted, rtol=1e-3, atol=1e-5)


def test_sgqns_decoder_predicts_salient_pixels_from_overlays() -> None:
    agent, batch, obs, _, _ = prepared("sgqn", sgqn_quantile=0.8)
    views = replay(agent, lambda generator: overlaid(agent, obs, generator))
    mask = agent.salient(obs, batch.action).numpy()
    with torch.no_grad():
        logits = agent.decoder(agent.encoder(views), batch.action).double().numpy()
    p = 1 / (1 + np.exp(-logits))
    wanted = -np.mean(mask * np.log(p) + (1 - mask) * np.log(1 - p))
    metrics = agent.update_auxiliary(batch, obs)
    assert float(metrics["aux_loss"]) == pytest.approx(wanted, rel=1e-4)
    assert float(metrics["aux_recall"]) == pytest.approx(((logits > 0) & mask).sum() / mask.sum(), abs=1e-3)


def test_the_decoder_is_the_published_one() -> None:
    decoder, g = make_agent("sgqn").decoder, torch.Generator().manual_seed(0)
    features, action = torch.randn(2, 512, generator=g), torch.randn(2, 3, generator=g)
    x = F.relu(decoder.proj(torch.cat([features, action], 1)).view(2, 32, 11, 11))
    x = F.relu(decoder.conv1(x).repeat_interleave(2, 2).repeat_interleave(2, 3))
    x = F.relu(decoder.conv2(x).repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert torch.allclose(decoder(features, action), decoder.conv3(x), atol=1e-6)
    assert (decoder.conv1.out_channels, decoder.conv2.out_channels) == (128, 64)
    odd = make_agent("sgqn", shape=(9, 45, 45)).decoder  # not a multiple of four
    assert odd(features, action).shape == (2, 9, 45, 45)


@pytest.mark.parametrize("name", ["curl", "curl-rlvigen"])
def test_curls_contrast_and_its_keys(name: str) -> None:
    agent, batch = make_agent(name), make_batch()
    if name == "curl":  # let the encoder of the keys differ from the encoder
        agent.update(batch, 0)
    first, second = replay(agent, lambda _: (agent.shift(batch.obs), agent.shift(batch.obs)))
    encoder_of_keys = agent.key_encoder if name == "curl" else agent.encoder
    with torch.no_grad():
        queries = agent.encoder(first).double().numpy()
        keys = encoder_of_keys(second).double().numpy()
        if name == "curl":
            assert not np.allclose(keys, agent.encoder(second).double().numpy(), atol=1e-3)
    weight = agent.similarity.W.detach().double().numpy().copy()
    assert weight.shape == (512, 512) and 0 <= make_agent(name).similarity.W.min() < 0.01
    logits = np.array([[q @ weight @ k for k in keys] for q in queries])
    highest = logits.max(1, keepdims=True)
    log_softmax = logits - highest - np.log(np.exp(logits - highest).sum(1, keepdims=True))
    old = [p.clone() for p in encoder_of_keys.parameters()]
    metrics = agent.update_auxiliary(batch, batch.obs)
    assert float(metrics["curl_loss"]) == pytest.approx(-np.diag(log_softmax).mean(), rel=1e-3)
    assert float(metrics["curl_accuracy"]) == pytest.approx((logits.argmax(1) == np.arange(5)).mean())
    if name == "curl":
        for before, after, live in zip(
            old, agent.key_encoder.parameters(), agent.encoder.parameters(), strict=True
        ):
            assert torch.allclose(after, 0.95 * before + 0.05 * live, atol=1e-6)
    else:
        assert "key_encoder" not in agent.networks()


@pytest.mark.parametrize("shared", [False, True])
def test_curl_keeps_the_moments_of_its_two_losses_apart_unless_told(shared: bool) -> None:
    agent, batch = make_agent("curl", shared_optimizer=shared), make_batch()
    agent.update(batch, 0)
    weight = next(agent.encoder.parameters())
    steps = int(agent.encoder_opt.state[weight]["step"])
    agent.update_auxiliary(batch, batch.obs)
    assert int(agent.encoder_opt.state[weight]["step"]) == steps + shared
    assert (weight in agent.curl_opt.state) != shared


def squashed(mean, std) -> TransformedDistribution:
    return TransformedDistribution(Normal(mean.double(), std.double()), [TanhTransform(cache_size=1)])


def test_squashed_normal_against_torch() -> None:
    mean, std = torch.randn(50, 3) * 2, torch.rand(50, 3) + 0.05
    action, log_prob = SquashedNormal(mean, std).sample_with_log_prob(torch.Generator().manual_seed(0))
    noise = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    wanted = squashed(mean, std)
    raw = (mean + std * noise).double()
    density = wanted.base_dist.log_prob(raw) - torch.log1p(-torch.tanh(raw).square())
    inside = raw.abs().amax(1) < 4  # beyond, 1 - tanh^2 has too few digits even in double precision
    assert inside.sum() > 20 and torch.allclose(action, torch.tanh(raw).float(), atol=1e-6)
    assert torch.allclose(log_prob[inside], density.sum(1, keepdim=True)[inside].float(), atol=1e-3)
    assert torch.isfinite(SquashedNormal(mean * 100, std).sample_with_log_prob()[1]).all()


@pytest.mark.parametrize(("name", "views"), [("drq", 2), ("drq-original", 3)])
def test_drqs_target_is_the_mean_over_views_each_with_its_own_action(name: str, views: int) -> None:
    agent, batch = make_agent(name), make_batch()

    def draw(generator):
        shifted = [agent.augment(batch.next_obs)]
        shifted += [agent.shift(batch.next_obs) for _ in range(views - 1)]
        return shifted, [torch.randn(5, 3, generator=generator) for _ in range(views)]

    seen, noises = replay(agent, draw)
    assert torch.equal(seen[0], batch.next_obs.float()) == (name == "drq-original")
    assert not torch.equal(seen[1], batch.next_obs.float())
    total = torch.zeros(5, 1)
    for obs, noise in zip(seen, noises, strict=True):
        features = agent.encoder(obs).detach()
        mean, std = (value.detach() for value in agent.actor(features))
        action = torch.tanh(mean + std * noise)
        raw = (mean + std * noise).double()
        density = Normal(mean.double(), std.double()).log_prob(raw) - torch.log1p(-(torch.tanh(raw) ** 2))
        value = torch.min(*agent.critic_target(features, action)) - 0.1 * density.sum(1, keepdim=True).float()
        total += batch.reward + batch.discount * value
    assert torch.allclose(agent.target(batch, 0), total / views, atol=1e-4)


def test_drqs_critic_fits_every_view_to_one_target() -> None:
    agent, batch, obs, values, target = prepared("drq", critic_views=3)
    others = replay(agent, lambda _: [agent.shift(batch.obs) for _ in range(2)])
    loss, _ = agent.critic_loss(batch, obs, values, target)
    wanted = 0.0
    for view in (values, *(agent.critic(agent.encoder(other), batch.action) for other in others)):
        wanted += mean_square(view[0], target) + mean_square(view[1], target)
    assert loss.item() == pytest.approx(wanted, rel=1e-4)


def test_drqs_actor_weighs_value_and_entropy_and_learns_the_weight() -> None:
    agent, batch = make_agent("drq", init_temperature=0.3), make_batch()
    features = agent.encoder(batch.obs).detach()
    noise = replay(agent, lambda generator: torch.randn(5, 3, generator=generator))
    mean, std = (found.detach() for found in agent.actor(features))
    assert math.exp(-10) <= float(std.min()) and float(std.max()) <= math.exp(2)
    raw = (mean + std * noise).double()
    density = Normal(mean.double(), std.double()).log_prob(raw) - torch.log1p(-(torch.tanh(raw) ** 2))
    density = density.sum(1, keepdim=True).float()
    value = torch.min(*agent.critic(features, torch.tanh(raw).float()))
    metrics = agent.update_actor(features, 0)
    assert float(metrics["actor_loss"]) == pytest.approx((0.3 * density - value).mean().item(), abs=1e-4)
    assert float(metrics["alpha"]) == pytest.approx(0.3)
    # Target entropy minus three: too little entropy raises the weight.
    surplus = float((-density - -3.0).mean())
    assert float(metrics["alpha_loss"]) == pytest.approx(0.3 * surplus, rel=1e-3)
    assert (agent.temperature().item() > 0.3) == (surplus < 0)


def test_the_spread_of_drqs_policy_runs_between_its_bounds() -> None:
    agent = make_agent("drq", log_std_bounds=[-1.0, 0.5])
    with torch.no_grad():
        agent.actor.policy[-1].weight.zero_()
        for raw, wanted in ((-50.0, -1.0), (0.0, -0.25), (50.0, 0.5)):
            agent.actor.policy[-1].bias.fill_(raw)
            _, std = agent.actor(torch.zeros(1, agent.encoder.repr_dim))
            assert float(std[0, 0].log()) == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("svea", {"overlay_alpha": 1.5}),
        ("svea", {"overlay_images": 0}),
        ("srm", {"max_width": -0.1}),
        ("srm", {"mask_probability": 2}),
        ("sgqn", {"sgqn_quantile": 1.0}),
        ("sgqn", {"aux_beta": 1.0}),
        ("curl", {"encoder_tau": 0.0}),
        ("drq", {"target_views": 0}),
        ("drq", {"init_temperature": 0}),
        ("drq", {"log_std_bounds": [2, -10]}),
        ("drq", {"log_std_bounds": ["a", "b"]}),
        ("drq", {"log_std_bounds": [-10]}),
        ("drq", {"log_std_bounds": 3}),
        ("drq", {"log_std_bounds": [math.nan, 2]}),
    ],
)
def test_impossible_options_are_one_error(name: str, options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(options))}.* is not possible"):
        make_agent(name, **options)
