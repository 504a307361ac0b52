"""Train an agent from masked pixels; the manual is the docstring of ``main``."""

from __future__ import annotations

import functools
import shlex
import sys
from pathlib import Path

import torch  # first: the other order of torch and MuJoCo's OpenGL can crash

# isort: split
import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

import envs
from common.devices import resolve_device
from common.errors import run_script
from common.masking import ObservationMasker
from common.seeding import derive_seed, seed_everything
from envs.levels import build_scene
from evaluation.evaluate import fixed_batch
from evaluation.plan import background_rules
from evaluation.run_directory import RunDirectory
from samg import Reference, build_masker, load_masker
from training.config import MASKERS_WITHOUT_REFERENCE, prepare_overrides, save_config, validate
from training.evaluator import Evaluator
from training.factory import make_agent
from training.workspace import Workspace
from wrappers import MaskObservation


@hydra.main(version_base=None, config_path="cfgs", config_name="config")
def main(cfg: DictConfig) -> None:
    """Train one agent; the same command continues an interrupted run.

    python train.py task=walker_walk masker=tiny
    python train.py task=cup_catch masker=groundtruth seed=1 num_train_frames=500000

    Most used: task, masker (paper | tiny | none | groundtruth), seed, num_train_frames, num_envs, device,
    resume, save_video, use_wandb, hydra.run.dir; all keys and their meaning stand in cfgs/config.yaml. The
    run directory gets config.yaml, masker/, snapshots/, replay/, tables; locoeval.py evaluates other levels.
    """
    run_script(lambda: train(cfg, Path(HydraConfig.get().runtime.output_dir)), debug=cfg.debug)


def train(cfg: DictConfig, run_dir: Path) -> None:
    """Assemble a run and train it; every input is checked before a network is loaded."""
    validate(cfg)
    device = resolve_device(cfg.device)
    if cfg.num_threads:
        torch.set_num_threads(cfg.num_threads)
    run = RunDirectory(run_dir, cfg)
    background = run.background()
    rules = {"image_size": cfg.image_size, **background_rules(background)}
    build_scene(background.levels[0], envs.find_task(cfg.task_name).domain, **rules)
    reference = load_reference(run)
    save_config(cfg, run_dir)

    seed_everything(cfg.seed)
    masker = fit_masker(run, reference, device)
    rules |= {"level": background.levels[0], "action_repeat": cfg.action_repeat}
    make_venv = functools.partial(envs.make_vector_env, cfg.task_name, **rules)
    evaluator = make_evaluator(run, make_venv, masker, device)
    venv = make_venv(cfg.num_envs, seed=cfg.seed, foreground=run.masker_variant == "groundtruth")
    try:
        config = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=False)
        Workspace(
            cfg,
            MaskObservation(venv, masker, device=device),
            make_agent(cfg, venv, device),
            masker.info,
            run_dir,
            evaluate=evaluator,
            reset_episodes=envs.reset_episodes,
            resume_command=shlex.join(["python", *sys.argv]),
            wandb_options={"project": cfg.wandb_project, "group": cfg.wandb_group, "config": config},
        ).train()
    finally:
        venv.close()


def load_reference(run: RunDirectory) -> Reference | None:
    """Read and check the reference images, before anything slow happens."""
    if run.masker_variant in MASKERS_WITHOUT_REFERENCE:
        return None
    reference = Reference.load(**run.reference())
    reference.check_resolution(int(run.config.image_size))
    return reference


def fit_masker(run: RunDirectory, reference: Reference | None, device: torch.device) -> ObservationMasker:
    """Return the run's masker: fitted once, saved with the run, loaded when the run continues."""
    settings = run.masker_settings(run.masker_variant)
    if run.masker_dir.exists():
        return load_masker(run.masker_dir, device, settings.get("weights"))
    masker = build_masker(run.masker_variant, device, **settings).fit(reference)
    masker.save(run.masker_dir)
    return masker


def make_evaluator(
    run: RunDirectory, make_venv, masker: ObservationMasker, device: torch.device
) -> Evaluator:
    """Return the in-training evaluation: the training scene, other episodes, the same ones every time."""
    cfg, seed = run.config, derive_seed(run.config.seed, "evaluation")
    count = min(cfg.num_envs, max(cfg.num_eval_episodes, 1))
    make = functools.partial(make_venv, count, seed=seed, foreground=True)
    videos = run.videos_dir if cfg.save_video else None
    batch = fixed_batch(device.type == "cuda")
    return Evaluator(make, masker, cfg.num_eval_episodes, seed, cfg.frame_stack, batch, videos)


if __name__ == "__main__":
    run_script(lambda: sys.argv.__setitem__(slice(1, None), prepare_overrides(sys.argv[1:])))
    main()
