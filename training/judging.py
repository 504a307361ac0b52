"""What ``locoeval.py`` evaluates: jobs from its flags, the environments of a job, and its trained agent."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

import envs
from common.cores import count_cores
from envs.anchors import reference_anchors
from envs.levels import build_scene, describe_level, expand_levels, get_level
from evaluation.cli import Options
from evaluation.masker_choice import check_masker, choose_maskers
from evaluation.plan import (
    Job,
    background_rules,
    choose_fast_render,
    choose_processes,
    plan_background,
    plan_benchmark,
    record_conditions,
)
from evaluation.run_directory import RunDirectory, chosen_views
from evaluation.work import check_outputs, open_levels
from training.factory import make_agent
from training.preflight import check_masking
from training.snapshot import load_agent


def plan_jobs(options: Options, device: torch.device, load_reference: Callable[[Any], Any]) -> list[Job]:
    """Return one job per run and masker; everything that can be checked without a network is checked.

    Args:
        options: the flags.
        device: where networks will be.
        load_reference: ``samg.load_reference``.
    """
    jobs = []
    for directory in options.model_dirs:
        run = RunDirectory.open(directory, options.agent)
        run.check_task(options.domain_name, options.task_name)
        run.check_algorithm(options.algorithm)
        domain, size = envs.find_task(run.task).domain, int(run.config.image_size)
        cameras = envs.find_cameras(envs.find_task(run.task), run.camera)
        expand = partial(expand_levels, domain=domain, one_camera=isinstance(cameras, int))
        background = plan_background(options, run, expand)
        for level in background.levels:
            build_scene(level, domain, image_size=size, **background_rules(background))
        fast = choose_fast_render(options, run)
        allow = options.allow_masker_mismatch
        for choice in choose_maskers(run, options.maskers, options.use_sam_g, options.reference, allow):
            benchmark = plan_benchmark(options, run, background, choice.variant, device.type == "cuda")
            jobs.append(Job(run, background, choice, benchmark, fast_render=fast))
    envs.check_rendering()
    for job in jobs:
        if job.choice.reference is not None:
            job.reference = load_reference(job.choice.reference)
            job.reference.check_resolution(int(job.run.config.image_size))
    check_outputs([job.benchmark for job in jobs])
    return jobs


def prepare_job(job: Job, options: Options, masker: Any) -> None:
    """Load the agent and find out what has been done already under the same conditions.

    Args:
        job: one of ``plan_jobs``.
        options: the flags.
        masker: made for the job's choice.
    """
    run, rules = job.run, background_rules(job.background)
    domain = envs.find_task(run.task).domain
    job.networks, manifest = load_agent(run.path)
    trained = run.trained_masker(manifest)
    check_masker(masker.info, trained, job.choice, options.allow_masker_mismatch)
    processes = choose_processes(options, count_cores())
    check_masking(masker, processes, chosen_views(run.config), evaluating=True)
    job.masker = masker
    if hasattr(masker, "reference_points"):
        job.anchors = _anchors(domain, masker, run.camera)

    def conditions(level: str) -> Any:
        facts = describe_level(level, domain=domain, **rules)
        if job.fast_render:  # results that do not say so were drawn as the benchmark draws
            facts["fast_render"] = True
        if (camera := observing_camera(run, level)) is not None:
            facts["camera"] = camera
        return record_conditions(run, job.benchmark, job.background, facts, masker.info, manifest)

    job.works = open_levels(job.benchmark, conditions, str(manifest.get("sha256")))


def observing_camera(run: RunDirectory, level: str) -> str | list[str] | None:
    """Return the camera that a run asks for; None where the level puts another in its place."""
    return run.camera if get_level(level).cam_id is None else None


def _anchors(domain: str, masker: Any, camera: Any) -> Any:
    """Return the anchors of a masker's points, of several cameras those of each; None where unknown."""
    several = isinstance(camera, list) and len(camera) > 1
    shared = getattr(masker.reference, "references", None)
    if shared is None:
        anchors = reference_anchors(domain, masker.reference.image, masker.reference_points)
        return (anchors,) * len(camera) if anchors and several else anchors
    pairs = zip(shared, masker.reference_points, strict=True)
    found = [reference_anchors(domain, one.image, points) for one, points in pairs]
    return None if None in found else tuple(found)


def make_job_venv(job: Job, options: Options, device: torch.device, level: str) -> Any:
    """Return the vector environment of one level, with no more environments than episodes.

    Where ``device``, on which the networks are, is a GPU, the environments draw on it.
    """
    venv = envs.make_vector_env(
        job.run.task,
        choose_processes(options, count_cores()),
        learner=device,
        level=level,
        seed=options.seed,
        image_size=int(job.run.config.image_size),
        action_repeat=int(job.run.config.action_repeat),
        foreground=True,
        fast_render=job.fast_render,
        camera=observing_camera(job.run, level),
        **background_rules(job.background),
    )
    if job.anchors:
        venv.set_attr("anchors", [job.anchors] * venv.num_envs)
    return venv


def make_trained_agent(job: Job, device: torch.device, venv: Any) -> Any:
    """Build the run's agent for the spaces of ``venv`` and load its trained networks.

    Of the choices that make updates faster only the layout concerns acting; the others, and what they need of
    a machine, are left out.
    """
    config = job.run.config.copy()
    layout = config.agent.get("numerics", {}).get("channels_last", True)
    config.agent.numerics = {"channels_last": layout}
    agent = make_agent(config, venv, device)
    agent.load_networks(job.networks)
    return agent
