"""Every agent's configuration composes, builds its agent and learns; the masker changes nothing in it."""

from __future__ import annotations

import inspect
import json
import types
from pathlib import Path
from typing import Any, cast

import gymnasium
import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf

import algos
from algos import Batch
from common.errors import ConfigError, InputError
from common.paths import PROJECT_ROOT
from evaluation.plan import Job
from evaluation.run_directory import RunDirectory
from samg import build_masker
from tests.support.fake_env import FakeVectorEnv
from training.config import (
    CONFIG_DIR,
    _group_choices,
    compose_config,
    prepare_overrides,
    save_config,
    validate,
)
from training.factory import check_same_agent, describe_agent, make_agent, prepare_agent
from training.judging import make_trained_agent
from training.snapshot import SnapshotStore, load_agent
from wrappers import MaskObservation

AGENTS = _group_choices("agent")
CPU = torch.device("cpu")
SMALL = ("feature_dim=8", "agent.hidden_dim=16", "data.overlay_images=8", "image_size=44")
every_agent = pytest.mark.parametrize("agent", AGENTS)


def offline(agent: str) -> list[str]:
    return ["agent.encoder_weights=random"] if agent == "pieg" else []


def compose(agent: str, *overrides: str, masker: str = "none") -> DictConfig:
    return compose_config([f"agent={agent}", f"masker={masker}", *offline(agent), *overrides])


def spaces(cfg: DictConfig, actions: int = 6) -> Any:
    """What ``make_agent`` asks of a vector environment, without a simulator."""
    pixels = gymnasium.spaces.Box(0, 255, (cfg.image_size, cfg.image_size, 3), np.uint8)
    return types.SimpleNamespace(
        single_observation_space=gymnasium.spaces.Dict({"pixels": pixels}),
        single_action_space=gymnasium.spaces.Box(-1, 1, (actions,), np.float32),
    )


def batch(size: int = 44, count: int = 4) -> Batch:
    g = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (2, count, 9, size, size), generator=g, dtype=torch.uint8)
    action = torch.rand(count, 6, generator=g) * 2 - 1
    return Batch(frames[0], action, torch.rand(count, 1, generator=g), torch.ones(count, 1), frames[1])


def test_there_are_the_seven_agents_of_the_comparison_and_vrl3() -> None:
    assert set(AGENTS) == {"drqv2", "pieg", "svea", "sgqn", "srm", "curl", "drq", "vrl3"}
    classes = {name for name in algos.__all__ if name.endswith("Agent") and name != "Agent"}
    targets = {OmegaConf.load(CONFIG_DIR / "agent" / f"{name}.yaml").agent._target_ for name in AGENTS}
    assert targets == {f"algos.{name}" for name in classes}


@every_agent
def test_it_composes_builds_prepares_learns_and_acts(agent: str) -> None:
    cfg = compose(agent, *SMALL)
    validate(cfg)
    learner = make_agent(cfg, spaces(cfg), CPU)
    record = prepare_agent(learner)
    assert record["class"] == type(learner).__name__ and json.loads(json.dumps(record)) == record
    metrics = learner.update(batch(), 3000)
    assert all(torch.isfinite(value) for value in metrics.values())
    assert learner.act(batch().obs.numpy(), 3000, eval_mode=False).shape == (4, 6)
    manual = (PROJECT_ROOT / "docs" / "algorithms.md").read_text()
    assert not [metric for metric in metrics if f"`{metric}`" not in manual]
    shared = set(compose("drqv2").agent) | {"overlay_dir", "overlay_images"}
    assert not [key for key in cfg.agent if key not in shared and f"`agent.{key}`" not in manual]


@every_agent
def test_the_config_names_every_option_of_the_agent(agent: str) -> None:
    cfg = compose(agent)
    kind = getattr(algos, cfg.agent._target_.rsplit(".", 1)[1])
    named = {
        name
        for base in kind.__mro__
        if "__init__" in vars(base) and base is not object
        for name, parameter in inspect.signature(base.__init__).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY) and name != "self"
    }
    # How many cameras there are is the environment's to say, and no choice.
    assert set(cfg.agent) == (named - {"views"}) | {"_target_"}


@every_agent
def test_config_name_is_the_choice_of_the_group(agent: str) -> None:
    by_name = compose_config(["masker=tiny", "task=cup_catch"], f"{agent}_config")
    assert by_name == compose_config(["masker=tiny", "task=cup_catch", f"agent={agent}"])
    command = ["--config-name", f"{agent}_config", "masker=tiny", *offline(agent)]
    assert prepare_overrides(command) == command
    # An explicit choice wins over the file's.
    assert compose_config(["agent=drqv2", "masker=none"], f"{agent}_config").agent._target_.endswith(
        "V2Agent"
    )


@every_agent
def test_the_masker_changes_nothing_in_the_agent(agent: str) -> None:
    found = []
    for masker in ("none", "groundtruth"):
        cfg = compose(agent, *SMALL, masker=masker)
        settings = dict(cfg.masker)
        builder = build_masker(settings.pop("variant"), CPU, **settings)
        venv = MaskObservation(FakeVectorEnv(2, size=44, foreground=True), builder.fit(None))
        learner = make_agent(cfg, venv, CPU)
        prepare_agent(learner)
        found.append((OmegaConf.to_container(cfg.agent), type(learner), learner.state_dict()["networks"]))
    (options, kind, networks), (masked_options, masked_kind, masked_networks) = found
    assert (options, kind) == (masked_options, masked_kind)
    assert sum(len(state) for state in networks.values()) > 10 and networks.keys() == masked_networks.keys()
    for name, state in networks.items():
        assert state.keys() == masked_networks[name].keys()
        assert all(torch.equal(value, masked_networks[name][key]) for key, value in state.items())


# What the tasks and algorithms of the comparison prescribe: n-step, batch, frames, end of the noise schedule.
EASY, MEDIUM = (1_100_000, 100_000), (3_100_000, 500_000)
TABLE = {
    "walker_walk": (1, 512, *EASY),
    "walker_stand": (1, 512, *EASY),
    "walker_run": (1, 512, *MEDIUM),
    "cartpole_swingup": (3, 256, *EASY),
    "cup_catch": (3, 256, *EASY),
    "finger_spin": (3, 256, *EASY),
    "cheetah_run": (3, 256, *MEDIUM),
    "hopper_stand": (3, 256, *EASY),
    "quadruped_walk": (3, 256, *MEDIUM),
}


@every_agent
@pytest.mark.parametrize("task", TABLE)
def test_budgets_and_steps_of_every_task(agent: str, task: str) -> None:
    cfg = compose(agent, f"task={task}")
    nstep, size, frames, noise = TABLE[task]
    assert (cfg.nstep, cfg.batch_size) == (1 if agent == "drq" else nstep, size)
    assert (cfg.num_train_frames, cfg.stddev_schedule) == (frames, f"linear(1.0,0.1,{noise})")
    assert cfg.agent.stddev_schedule == (0.01 if agent == "vrl3" else cfg.stddev_schedule)
    assert (cfg.agent.lr, cfg.agent.feature_dim, cfg.discount, cfg.action_repeat) == (1e-4, 50, 0.99, 2)


# What RL-ViGen's code or, where the agent's documentation says so, the paper prescribes.
SKELETON = {"hidden_dim": 1024, "critic_target_tau": 0.01, "num_expl_steps": 2000, "update_every_steps": 2}
SKELETON |= {"stddev_clip": 0.3, "lr": 1e-4, "feature_dim": 50}
PRESCRIBED: dict[str, dict[str, Any]] = {
    "drqv2": {},
    "svea": {"overlay_alpha": 0.5},
    "pieg": {"overlay_alpha": 0.5, "encoder_weights": "imagenet", "bn_eval": "running"},
    "srm": {"overlay_alpha": 0.5, "mask_probability": 0.5, "max_frequency": 0.5, "max_width": 0.05},
    "sgqn": {"overlay_alpha": 0.5, "sgqn_quantile": 0.93, "consistency_weight": 0.9}
    | {"aux_lr": 1e-4, "aux_beta": 0.99},
    "curl": {"aux_lr": 1e-4, "aux_beta": 0.99, "momentum_encoder": True, "encoder_tau": 0.05}
    | {"shared_optimizer": False},
    "vrl3": {"encoder_weights": "random", "encoder_lr_scale": 1.0, "offline_updates": 30_000}
    | {"offline_stddev": 0.1, "offline_update_encoder": True, "offline_bc_weight": 0.0}
    | {"cql_weight": 1.0, "cql_temp": 1.0, "cql_random_actions": 10, "bc_weight": 0.0, "bc_decay": 0.95}
    | {"safe_q_threshold": 200.0, "safe_q_exponent": 0.5}
    | {"pretanh_threshold": 5.0, "pretanh_penalty": 0.001, "num_expl_steps": 0, "stddev_schedule": 0.01},
    "drq": {"init_temperature": 0.1, "log_std_bounds": [-10, 2], "keep_original": False}
    | {"target_views": 2, "critic_views": 2},
}


@every_agent
def test_values_are_those_prescribed_and_the_class_has_the_same(agent: str) -> None:
    cfg = compose_config([f"agent={agent}"])
    found = {key: cfg.agent[key] for key in (*SKELETON, *PRESCRIBED[agent])}
    wanted = {**SKELETON, **PRESCRIBED[agent]}
    assert found == wanted
    assert (cfg.num_seed_frames, cfg.replay_buffer_size) == (0 if agent == "vrl3" else 4000, 10**6)
    assert (cfg.frame_stack, cfg.image_size) == (3, 84)
    kind = getattr(algos, cfg.agent._target_.rsplit(".", 1)[1])
    bases = [base for base in reversed(kind.__mro__) if base is not object]  # a class's own value counts
    parameters = [p for base in bases for p in inspect.signature(base).parameters.values()]
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    for key in wanted:
        default = defaults[key]
        assert (list(default) if isinstance(default, tuple) else default) == wanted[key], key


# Values of one agent on one task that are neither the agent's nor the task's: (feature_dim, others) by agent.
HAND = {"pieg": (256, {}), "svea": (256, {}), "srm": (256, {}), "vrl3": (50, {"encoder_lr_scale": 1.0})}
HAND |= {"sgqn": (256, {"sgqn_quantile": 0.9, "aux_lr": 8e-5}), "curl": (50, {"aux_lr": 1e-4})}
HAND |= {"drqv2": (50, {}), "drq": (50, {})}


@every_agent
@pytest.mark.parametrize("task", ["door", "hammer", "pen", "relocate"])
def test_an_agents_own_values_with_the_hand(agent: str, task: str) -> None:
    cfg = compose_config([f"task={task}"], f"{agent}_config")
    width, others = HAND[agent]
    if (agent, task) == ("vrl3", "relocate"):
        others = {"encoder_lr_scale": 0.01}
    assert (cfg.feature_dim, cfg.agent.feature_dim) == (width, width)
    assert {key: cfg.agent[key] for key in others} == others
    assert cfg.num_train_frames == (2_001_000 if task == "pen" else 1_001_000)
    assert (cfg.agent.lr, cfg.nstep, cfg.batch_size) == (1e-4, 1 if agent == "drq" else 3, 256)


def test_the_command_line_wins_over_an_agents_own_values_on_a_task() -> None:
    cfg = compose_config(["agent=vrl3", "task=relocate", "agent.encoder_lr_scale=0.5"])
    assert cfg.agent.encoder_lr_scale == 0.5
    assert compose_config(["agent=sgqn", "task=pen", "feature_dim=50"]).agent.feature_dim == 50
    combinations = [
        path.relative_to(CONFIG_DIR / "agent_on") for path in CONFIG_DIR.glob("agent_on/*/*.yaml")
    ]
    for agent, file in (path.parts for path in combinations):  # a name that is no choice is never composed
        assert agent == "base" or (agent in AGENTS and file[:-5] in _group_choices("task"))


def test_overlay_images_are_configured_in_one_place() -> None:
    users = set()
    for agent in AGENTS:
        cfg = compose(agent, "data.overlay_dir=/photos", "data.overlay_images=7")
        if "overlay_dir" in cfg.agent:
            users.add(agent)
            assert (cfg.agent.overlay_dir, cfg.agent.overlay_images) == ("/photos", 7)
    assert users == {"pieg", "svea", "srm", "sgqn"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["agent=piegg"], ["Unknown agent 'piegg'", "Did you mean pieg?"]),
        (["agent=drq_v2"], ["Did you mean drqv2?"]),
        (["--config-name", "pieg_confg"], ["pieg_confg", "Did you mean pieg_config?"]),
        (["--config-name=sveaconfig"], ["Did you mean svea_config?"]),
        (["agent=base/overlay"], ["Unknown agent"]),
        (["agent=pieg", "agent.encoder_weight=x"], ["Did you mean agent.encoder_weights?"]),
        (["agent=curl", "agent.encoder_weights=x"], ["agent.encoder_weights"]),
        (["data.overlay_dirs=x"], ["Did you mean data.overlay_dir?"]),
        (["-m", "agent=svea,sgqnn"], ["sgqnn", "sgqn"]),
    ],
)
def test_typos_name_the_nearest(arguments: list[str], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        prepare_overrides(arguments)
    assert all(word in str(caught.value) for word in words)


def test_a_sweep_may_set_what_only_some_agents_have() -> None:
    assert prepare_overrides(["-m", "agent=svea,sgqn", "agent.sgqn_quantile=0.95"])


@pytest.mark.parametrize(
    ("agent", "override"),
    [
        ("svea", "agent.overlay_alpha=2"),
        ("svea", "data.overlay_images=0"),
        ("srm", "agent.max_frequency=0.7"),
        ("srm", "agent.mask_probability=-1"),
        ("sgqn", "agent.sgqn_quantile=1"),
        ("sgqn", "agent.aux_beta=1"),
        ("curl", "agent.momentum_encoder=maybe"),
        ("curl", "agent.aux_lr=0"),
        ("drq", "agent.init_temperature=0"),
        ("drq", "agent.target_views=0"),
        ("vrl3", "agent.cql_temp=0"),
        ("vrl3", "agent.cql_random_actions=0"),
        ("vrl3", "agent.safe_q_exponent=2"),
        ("vrl3", "agent.offline_updates=-1"),
        ("pieg", "agent.bn_eval=batchh"),
        ("pieg", "agent.encoder_weights=null"),
        ("drqv2", "agent.hidden_dim=0"),
    ],
)
def test_impossible_values_of_agents_are_refused(agent: str, override: str) -> None:
    with pytest.raises(ConfigError, match=override.split("=")[0]):
        validate(compose(agent, override))


def test_what_the_agent_itself_refuses_is_one_error_too() -> None:
    cfg = compose("drq", *SMALL, "agent.log_std_bounds=[2,-10]")
    with pytest.raises(ConfigError, match="log_std_bounds"):
        make_agent(cfg, spaces(cfg), CPU)
    cfg = compose("drqv2", *SMALL, "+agent.wings=2")
    with pytest.raises(ConfigError, match="wings"):
        make_agent(cfg, spaces(cfg), CPU)


def test_missing_files_are_found_before_anything_is_built(tmp_path: Path) -> None:
    for folder, words in ((tmp_path / "none", "does not exist"), (tmp_path, "holds no images")):
        with pytest.raises(InputError, match=words):
            validate(compose("svea", f"data.overlay_dir={folder}"))
    for agent in ("pieg", "vrl3"):  # whose encoders are not the same network
        with pytest.raises(InputError, match=r"file of the encoder's weights.*encoder_weights=random"):
            validate(compose(agent, f"agent.encoder_weights={tmp_path / 'resnet.pth'}"))


# A run and its agent ----------------------------------------------------------------------------------------


def test_a_folder_trained_with_another_agent_is_refused(tmp_path: Path) -> None:
    save_config(compose("svea"), tmp_path)
    (tmp_path / "snapshots" / "step_0000000001").mkdir(parents=True)
    with pytest.raises(ConfigError) as caught:
        save_config(compose("pieg"), tmp_path)
    assert all(word in str(caught.value) for word in ("SVEAAgent", "PIEGAgent", "hydra.run.dir"))


def test_files_of_the_agent_may_move_but_not_appear_or_vanish(tmp_path: Path) -> None:
    save_config(compose("svea", "data.overlay_dir=/here"), tmp_path)
    (tmp_path / "snapshots" / "step_0000000001").mkdir(parents=True)
    save_config(compose("svea", "data.overlay_dir=/there"), tmp_path)
    with pytest.raises(ConfigError, match=r"overlay_dir: /there -> None"):
        save_config(compose("svea"), tmp_path)


def test_a_snapshot_of_another_agent_or_frozen_network_is_refused() -> None:
    drawn = {"class": "PIEGAgent", "encoder_weights": "random", "encoder_seed": 0}
    loaded = {"class": "PIEGAgent", "encoder_weights": "resnet18.pth", "encoder_sha256": "ab"}
    check_same_agent(None, drawn)  # a snapshot older than records
    check_same_agent(loaded, {**loaded, "encoder_weights": "copy.pth"})
    for saved, now in (
        (drawn, loaded),
        (loaded, {**loaded, "encoder_sha256": "cd"}),
        ({"class": "X"}, drawn),
    ):
        with pytest.raises(ConfigError) as caught:
            check_same_agent(saved, now)
        assert describe_agent(saved) in str(caught.value) and "hydra.run.dir" in str(caught.value)


@every_agent
def test_any_run_directory_builds_its_agent_without_the_files_of_learning(
    agent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = compose(agent, *SMALL)
    learner = make_agent(cfg, spaces(cfg), CPU)
    learner.update(batch(), 0)
    cfg.agent.numerics.cuda_graph = cfg.agent.numerics.compile = True  # of a run on another machine
    info = {"updates": 1, "agent": prepare_agent(learner)}
    state = learner.state_dict()["networks"]
    SnapshotStore(tmp_path / "snapshots").save(2, {"agent": state}, info)
    if "overlay_dir" in cfg.agent:
        cfg.agent.overlay_dir = "/nowhere/photos"
    if agent == "pieg":
        cfg.agent.encoder_weights = "/nowhere/resnet18.pth"
    OmegaConf.save(cfg, tmp_path / "config.yaml", resolve=True)

    run_directory = RunDirectory.open(tmp_path)
    assert run_directory.algorithm == agent
    networks, manifest = load_agent(tmp_path)
    assert manifest["agent"] == info["agent"]
    job = types.SimpleNamespace(run=run_directory, networks=networks)
    restored = make_trained_agent(cast(Job, job), CPU, spaces(cfg))
    obs = batch().obs.numpy()
    assert np.array_equal(learner.act(obs, 9999, eval_mode=True), restored.act(obs, 9999, eval_mode=True))


def test_an_evaluation_may_set_how_the_agent_acts(tmp_path: Path) -> None:
    OmegaConf.save(compose("pieg"), tmp_path / "config.yaml", resolve=True)
    (tmp_path / "snapshots" / "step_0000000002").mkdir(parents=True)
    chosen = RunDirectory.open(tmp_path, ["bn_eval=batch"])
    assert chosen.config.agent.bn_eval == "batch" and chosen.agent_options == {"bn_eval": "batch"}
    with pytest.raises(ConfigError, match="Did you mean bn_eval"):
        RunDirectory.open(tmp_path, ["bn_evil=batch"])
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        RunDirectory.open(tmp_path, ["bn_eval"])


# The real commands ------------------------------------------------------------------------------------------


# Eight frames to a decision make an episode of 125 decisions, a quarter of the usual work.
def test_thin_files_hold_the_choice_and_nothing_else() -> None:
    for agent in AGENTS:
        content = OmegaConf.load(PROJECT_ROOT / "cfgs" / f"{agent}_config.yaml")
        assert list(content) == ["defaults"]
