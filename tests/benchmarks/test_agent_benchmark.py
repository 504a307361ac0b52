"""The benchmark of the agents: what it counts, and a short run of the real thing."""

import json

import pytest
import torch

from benchmarks import agents, rounds, update
from benchmarks.plain import as_published
from common.errors import ConfigError


def test_ratios_are_taken_round_by_round():
    # The machine becomes twice as slow in the middle; the ratio does not.
    spent = {
        "drqv2": {"update": [10.0, 20.0, 20.0], "act": [1.0, 1.0, 1.0]},
        "svea": {"update": [15.0, 30.0, 34.0], "act": [2.0, 3.0, 4.0]},
    }
    table = rounds.summarise(spent, "drqv2")
    assert table["svea"]["update_ratio"] == {"median": 1.5, "least": 1.5, "most": 1.7}
    assert table["svea"]["update_ms"] == 30
    assert table["svea"]["act_ratio"]["median"] == 3 and table["drqv2"]["update_ratio"]["median"] == 1
    text = rounds.markdown(table, {"device": "cpu", "threads": 3}, "drqv2", "agent")
    assert text.splitlines()[0] == "device cpu, threads 3"
    assert "| svea | 30.00 | 1.50 (1.50 to 1.70) | 3.00 | 3.00 (2.00 to 4.00) |" in text


def test_every_configured_agent_is_known_and_drqv2_is_always_measured():
    assert agents.agent_names()[0] == "drqv2"
    assert {"pieg", "svea", "sgqn", "srm", "curl", "drq"} <= set(agents.agent_names())
    assert agents.parse(["--agents", "svea"]).agents == ["drqv2", "svea"]
    with pytest.raises(ConfigError, match="svae") as caught:
        agents.parse(["--agents", "svae"])
    assert "Did you mean svea?" in caught.value.hint
    with pytest.raises(ConfigError, match="--rounds 0"):
        agents.parse(["--rounds", "0"])
    with pytest.raises(ConfigError, match="--image-size -1"):
        agents.parse(["--image-size", "-1"])
    with pytest.raises(ConfigError, match="too small"):
        agents.main(["--agents", "svea", "--image-size", "36"])


def test_a_short_run_writes_what_it_measured(tmp_path, capsys):
    flags = ["--agents", "curl", "--batch", "2", "--image-size", "36", "--rounds", "2", "--warmup", "1"]
    agents.main([*flags, "--acts", "1", "--out", str(tmp_path / "agents.json")])
    found = json.loads((tmp_path / "agents.json").read_text())
    assert found["setting"]["batch"] == 2 and found["setting"]["clock"] == "cpu"
    assert {"device", "threads", "precision", "torch"} <= found["setting"].keys()
    assert set(found["agents"]) == {"drqv2", "curl"}
    for row in found["agents"].values():
        assert len(row["update_rounds_ms"]) == 2 and row["update_ms"] > 0 and row["act_ms"] > 0
    assert (tmp_path / "agents.md").read_text() in capsys.readouterr().out


def test_rows_of_the_update_that_cannot_run_here_are_left_out(tmp_path, capsys):
    rows = ["--rows", "exact", "exact, CUDA graph", "bfloat16"]
    flags = ["--agent", "drq", "--batch", "2", "--image-size", "36", "--rounds", "2", "--acts", "1"]
    update.main([*flags, *rows, "--out", str(tmp_path / "update.json")])
    found = json.loads((tmp_path / "update.json").read_text())
    assert list(found["rows"]) == ["plain", "exact", "bfloat16"]
    assert all(row["update_ms"] > 0 for row in found["rows"].values())
    assert "Left out: exact, CUDA graph" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="exakt") as caught:
        update.parse(["--rows", "exakt"])
    assert "Did you mean exact?" in caught.value.hint


@pytest.mark.parametrize("name", ["drqv2", "curl"])
def test_plain_updates_differ_in_how_they_are_computed_and_not_in_what(name):
    def build(*choices):
        overrides = [f"agent={name}", *(f"agent.numerics.{choice}" for choice in choices)]
        return rounds.build(overrides, 36, torch.device("cpu"))

    exact, plain = build(), as_published(build(*update.ROWS["plain"]))
    batch = rounds.draw_batch(exact.obs_shape, 4, torch.device("cpu"))
    for agent in (exact, plain):
        agent.update(batch, 10_000)
    for network, theirs in zip(exact.networks().values(), plain.networks().values(), strict=True):
        for mine, other in zip(network.parameters(), theirs.parameters(), strict=True):
            # Adam's first step is the learning rate in each direction, whatever the gradient's size.
            torch.testing.assert_close(mine, other, rtol=0, atol=2.1 * exact.lr)
            assert torch.isclose(mine, other, rtol=0, atol=0.1 * exact.lr).float().mean() > 0.9
    assert not any(
        group["fused"] for optimizer in plain.optimizers().values() for group in optimizer.param_groups
    )
    assert all(
        group["fused"] for optimizer in exact.optimizers().values() for group in optimizer.param_groups
    )
    trunk = [agent.critic.trunk[0].weight for agent in (exact, plain)]
    fresh = [parameter.grad.clone() for parameter in trunk]
    for agent in (exact, plain):  # the actor's loss leaves its mark on the critic's gradients in one of them
        agent.update_actor(agent.features(batch.obs, None).detach(), 10_000)
    assert torch.equal(trunk[0].grad, fresh[0]) and not torch.equal(trunk[1].grad, fresh[1])
