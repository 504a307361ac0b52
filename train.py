"""Train an agent from masked pixels; the manual is the docstring of ``main``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from contextlib import closing
from functools import partial
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
    python train.py agent=vrl3 task=door masker=tiny demonstrations=door-v0_demos.pickle

    Most used: task, agent, masker, seed, num_train_frames, num_envs, device, resume, demonstrations and
    hydra.run.dir (all: cfgs/config.yaml). Its folder gets snapshots, tables, masker and replay.

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
    from evaluation.run_directory import RunDirectory, chosen_views
    from training.config import save_config, validate
    from training.demonstrations.run import RunDemonstrations

    validate(cfg)
    device = resolve_device(cfg.device, cfg.num_threads)
    run = RunDirectory(run_dir, cfg)
    background = run.background()
    level, rules = background.levels[0], {"image_size": cfg.image_size, **background_rules(background)}
    build_scene(level, envs.find_task(cfg.task_name).domain, **rules)
    envs.check_rendering()
    make_masker = prepare_masker(run, device)
    demonstrations = RunDemonstrations(run, level, rules)
    save_config(cfg, run_dir)

    from training import factory, preflight
    from training.evaluator import Evaluator
    from training.workspace import Workspace
    from wrappers import MaskObservation

    seed_everything(cfg.seed)
    masker = make_masker()
    rules |= {key: cfg[key] for key in ("seed", "action_repeat", "fast_render", "render_device")}
    rules |= {"level": level, "camera": run.camera, "foreground": run.masker_variant == "groundtruth"}
    make_venv = partial(envs.make_vector_env, cfg.task_name, learner=device, **rules)
    with closing(make_venv(cfg.num_envs)) as venv:
        preflight.check_masking(masker, venv.num_envs, chosen_views(cfg))
        Workspace(
            cfg,
            MaskObservation(venv, masker, device=device, keep_failed=run.failures_dir),
            factory.make_agent(cfg, venv, device),
            masker.info,
            run_dir,
            evaluate=Evaluator(cfg, make_venv, masker, device, run.videos_dir),
            reset_episodes=envs.reset_episodes,
            resume_command=shlex.join(["python", *sys.argv]),
            config=OmegaConf.to_container(cfg, resolve=True, throw_on_missing=False),
            demonstrations=partial(demonstrations.episodes, masker, make_venv, device),
        ).train(stop)


def prepare_masker(run: RunDirectory, device: torch.device) -> Callable[[], ObservationMasker]:
    """Check settings and reference; return what loads the run's masker, or fits it the first time."""
    from samg import build_masker, fit_once, load_masker, load_reference
    from training.config import MASKERS_WITHOUT_REFERENCE
    from training.sweeps.job import shared_folder

    settings, reference = run.masker_settings(run.masker_variant), None
    builder = build_masker(run.masker_variant, device, **settings)
    if run.masker_variant not in MASKERS_WITHOUT_REFERENCE:
        reference = load_reference(run.reference(), image_size=int(run.config.image_size))

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
