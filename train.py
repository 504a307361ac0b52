"""Train an agent from masked pixels; the manual is the docstring of ``main``."""

from __future__ import annotations

import functools
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig, OmegaConf

from common.stopping import StopSignal, run_stoppable

# Every environment process imports this file again: what is slow to import is imported where it is used.
if TYPE_CHECKING:
    import torch

    from common.masking import ObservationMasker
    from evaluation.run_directory import RunDirectory


@hydra.main(version_base=None, config_path="cfgs", config_name="config")
def main(cfg: DictConfig) -> None:
    """Train one agent; the same command continues an interrupted run.

    python train.py task=walker_walk masker=tiny
    python train.py task=cup_catch masker=groundtruth seed=1 num_train_frames=500000

    Most used: task, masker (paper | fast | tiny | none | groundtruth), seed, num_train_frames, num_envs,
    device, resume, save_video, hydra.run.dir; all keys and their meaning stand in cfgs/config.yaml. The run
    directory gets config.yaml, masker/, snapshots/, replay/, tables; locoeval.py evaluates other levels.

    Many runs: --multirun task=walker_walk,cup_catch seed=0,1,2 +launcher=local|slurm|ray, or +suite=samg8;
    sweep.py plans, watches and evaluates them (docs/cluster.md).
    """
    from training.sweeps.job import run_job

    run_dir = Path(hydra.core.hydra_config.HydraConfig.get().runtime.output_dir)
    command = shlex.join(["python", *sys.argv])
    run_job(lambda: run_stoppable(lambda stop: train(cfg, run_dir, stop), command), cfg, run_dir)


def train(cfg: DictConfig, run_dir: Path, stop: StopSignal) -> None:
    """Assemble a run and train it; every input is checked before a network is loaded."""
    import envs
    from common.devices import resolve_device
    from common.seeding import seed_everything
    from envs.levels import build_scene
    from evaluation.plan import background_rules
    from evaluation.run_directory import RunDirectory
    from training.config import save_config, validate

    validate(cfg)
    device = resolve_device(cfg.device, cfg.num_threads)
    run = RunDirectory(run_dir, cfg)
    background = run.background()
    level, rules = background.levels[0], {"image_size": cfg.image_size, **background_rules(background)}
    build_scene(level, envs.find_task(cfg.task_name).domain, **rules)
    envs.check_rendering()
    make_masker = prepare_masker(run, device)
    save_config(cfg, run_dir)

    from training import factory, preflight
    from training.evaluator import Evaluator
    from training.workspace import Workspace
    from wrappers import MaskObservation

    seed_everything(cfg.seed)
    masker = make_masker()
    rules |= {key: cfg[key] for key in ("action_repeat", "fast_render", "render_device")}
    make_venv = functools.partial(envs.make_vector_env, cfg.task_name, level=level, learner=device, **rules)
    venv = make_venv(cfg.num_envs, seed=cfg.seed, foreground=run.masker_variant == "groundtruth")
    try:
        preflight.check_masker(masker, venv, device)
        config = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=False)
        Workspace(
            cfg,
            MaskObservation(venv, masker, device=device, keep_failed=run_dir / "masker_failures"),
            factory.make_agent(cfg, venv, device),
            masker.info,
            run_dir,
            evaluate=Evaluator(cfg, make_venv, masker, device, run.videos_dir),
            reset_episodes=envs.reset_episodes,
            resume_command=shlex.join(["python", *sys.argv]),
            config=config,
            wandb_options={"project": cfg.wandb_project, "group": cfg.wandb_group, "config": config},
        ).train(stop)
    finally:
        venv.close()


def prepare_masker(run: RunDirectory, device: torch.device) -> Callable[[], ObservationMasker]:
    """Check settings and reference; return what loads the run's masker, or fits it the first time."""
    from samg import Reference, build_masker, fit_once, load_masker
    from training.config import MASKERS_WITHOUT_REFERENCE
    from training.sweeps.job import shared_folder

    settings, reference = run.masker_settings(run.masker_variant), None
    builder = build_masker(run.masker_variant, device, **settings)
    if run.masker_variant not in MASKERS_WITHOUT_REFERENCE:
        reference = Reference.load(**run.reference(), image_size=int(run.config.image_size))

    def make() -> ObservationMasker:
        if run.masker_dir.exists():
            return load_masker(run.masker_dir, device, settings.get("weights"), settings)
        shared = shared_folder()
        masker = fit_once(builder, reference, shared / "maskers") if shared else builder.fit(reference)
        masker.save(run.masker_dir)
        return masker

    return make


if __name__ == "__main__":
    from training.sweeps.front import run_command

    run_command(main)
