"""How updates are computed changes their speed, not what they compute."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from algos import DrQV2Agent
from algos.numerics import AgentNumerics, centred
from common.errors import ConfigError
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

every_agent = pytest.mark.parametrize("name", AGENTS)
PLAIN = {"shift": "bilinear", "channels_last": False}


def learn(name: str, critic_only: bool = True, **numerics: Any) -> tuple[DrQV2Agent, dict[str, torch.Tensor]]:
    """Return an agent after its first update, and the metrics.

    The first step of Adam goes by the signs of the gradients alone, so that what follows the critic's step
    depends on roundings; ``critic_only`` leaves that out.
    """
    agent = make_agent(name, numerics=numerics)
    agent.prepare()
    if critic_only:
        agent.update_actor = lambda features, step, taken=None: {}  # type: ignore[method-assign]
        agent.update_auxiliary = lambda batch, obs: {}  # type: ignore[method-assign]
    return agent, agent.update(make_batch(), 100)


def alignment(one: DrQV2Agent, other: DrQV2Agent) -> float:
    """Least cosine between the gradients that two agents have computed for a network."""
    found = []
    for name, network in one.networks().items():
        pairs = zip(network.parameters(), other.networks()[name].parameters(), strict=True)
        grads = [(a.grad.flatten(), b.grad.flatten()) for a, b in pairs if a.grad is not None]
        if grads:
            found.append(float(F.cosine_similarity(*map(torch.cat, zip(*grads, strict=True)), dim=0)))
    assert len(found) >= 2
    return min(found)


@every_agent
def test_layout_and_copied_shifts_change_the_last_bits_only(name: str) -> None:
    (fast, metrics), (plain, expected) = learn(name), learn(name, **PLAIN)
    assert 0.9999 < alignment(fast, plain) < 1.0001
    for key, value in expected.items():
        assert float(metrics[key]) == pytest.approx(float(value), rel=1e-3, abs=1e-4), key


@every_agent
def test_bfloat16_learns_the_same_with_float32_parameters(name: str) -> None:
    (rounded, metrics), (exact, expected) = learn(name, precision="bfloat16"), learn(name)
    # SGQN's salient pixels are others; networks this small that see noise have gradients that nearly cancel.
    assert (0.5 if name == "sgqn" else 0.9) < alignment(rounded, exact) < 1.01
    for key, value in expected.items():
        assert metrics[key].dtype == torch.float32
        assert float(metrics[key]) == pytest.approx(float(value), rel=0.1, abs=0.05), key
    whole, _ = learn(name, critic_only=False, precision="bfloat16")
    assert moved(whole, snapshot(make_agent(name))) == MOVED[name]
    assert all(p.dtype == torch.float32 for net in whole.networks().values() for p in net.parameters())


@every_agent
def test_in_bfloat16_too_the_actor_asks_the_critic_of_after_its_step(name: str) -> None:
    agent = make_agent(name, lr=0.1, numerics={"precision": "bfloat16"})
    agent.prepare()
    inner, asked = agent.update_actor, []

    def update_actor(features: torch.Tensor, *rest: Any) -> Any:
        values = agent.critic(features, make_batch().action)
        asked.append((features, [value.detach().clone() for value in values]))
        return inner(features, *rest)

    agent.update_actor = update_actor
    agent.update(make_batch(), 100)
    features, values = asked[0]
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        anew = agent.critic(features, make_batch().action)
    for value, again in zip(values, anew, strict=True):
        torch.testing.assert_close(value, again, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("one_thread")
def test_bfloat16_learns_the_bars(tmp_path: Path) -> None:
    agent = train_on_bars("drqv2", tmp_path, 900, numerics={"precision": "bfloat16"})
    assert returns(agent, size=48) > 2.0 * returns(None, size=48)


def test_acting_is_float32_whatever_updates_are() -> None:
    agents = [make_agent("drqv2", numerics={"precision": kind}) for kind in ("float32", "bfloat16")]
    actions = [agent.act(make_batch().obs, 100, eval_mode=True) for agent in agents]
    assert (actions[0] == actions[1]).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_centred_is_the_published_scaling_bit_by_bit(dtype: torch.dtype) -> None:
    obs = make_batch().obs.to(dtype)
    kept = obs.clone()
    for channels_last in (False, True):
        found = centred(obs, channels_last)
        assert torch.equal(found, obs.float() / 255.0 - 0.5) and found.shape == obs.shape
        assert found.is_contiguous(memory_format=torch.channels_last) == channels_last
    assert torch.equal(obs, kept)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("one_thread")
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="needs a C++ compiler")
@pytest.mark.parametrize("name", ["drqv2", "sgqn", "pieg"])
def test_compiled_networks_learn_the_same(name: str) -> None:
    (compiled, metrics), (eager, expected) = learn(name, compile=True), learn(name)
    assert alignment(compiled, eager) > 0.999
    assert float(metrics["critic_loss"]) == pytest.approx(float(expected["critic_loss"]), rel=1e-2)
    assert compiled.act(make_batch().obs, 100, eval_mode=True).shape == (5, 3)


def test_without_a_compiler_it_goes_on_and_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    agent = make_agent("drqv2", numerics={"compile": True})
    assert not agent.numerics.compile and "no C++ compiler" in caplog.text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"precission": "bfloat16"}, ["precission", "Did you mean precision?"]),
        ({"precision": "float16"}, ["precision", "bfloat16"]),
        ({"shift": "bilinaer"}, ["Did you mean bilinear?"]),
        ({"channels_last": "yes"}, ["channels_last=yes", "true or false"]),
        ({"cuda_graph": True}, ["CUDA", "device is cpu", "cuda_graph=false"]),
    ],
)
def test_impossible_choices_are_refused(options: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        make_agent("drqv2", numerics=options)
    assert all(word in str(caught.value) for word in words)


def test_numerics_are_taken_as_they_are() -> None:
    chosen = AgentNumerics(shift="bilinear")
    assert AgentNumerics.of(chosen) is chosen and AgentNumerics.of(None) == AgentNumerics()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every_agent
def test_recorded_updates_are_the_updates(name: str) -> None:
    agents = [make_agent(name, device="cuda", numerics={"cuda_graph": graph}) for graph in (False, True)]
    for number in range(8):
        batch = make_batch(seed=number).to("cuda")
        metrics = [agent.update(batch, 100 * number) for agent in agents]
        for key, value in metrics[0].items():
            assert float(metrics[1][key]) == pytest.approx(float(value), rel=1e-3, abs=1e-4), (number, key)
    assert alignment(*agents) > 0.999
    assert torch.equal(*(agent.generators["update"].get_state() for agent in agents))
