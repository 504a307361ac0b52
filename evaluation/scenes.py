"""Masked frames of a live environment, or of footage, with everything known about them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from common.masking import ObservationMasker, apply_mask
from common.seeding import counter_rng
from common.views import apart
from evaluation.evaluate import ActingAgent
from evaluation.mask_quality import view_quality
from evaluation.pictures import Scene, explain_frame, iou_note
from wrappers import FrameStack

# Masked frame, uint8 ([V,] H, W, 3), and proprioception, float32 (S,) or None, to action (A,).
Policy = Callable[[np.ndarray, np.ndarray | None], np.ndarray]


def random_policy(space: Any, seed: int) -> Policy:
    """Return a policy that draws uniformly from an action space, whatever it sees."""
    generator = counter_rng(seed, "visualize")

    def act(frame: np.ndarray, state: np.ndarray | None = None) -> np.ndarray:
        return generator.uniform(space.low, space.high).astype(np.float32)

    return act


def agent_policy(agent: ActingAgent, frame_stack: int, agent_step: int) -> Policy:
    """Return the policy of a trained agent: its mean action for the last ``frame_stack`` masked frames."""
    stacks: list[FrameStack] = []

    def act(frame: np.ndarray, state: np.ndarray | None = None) -> np.ndarray:
        batch = frame[None]
        if stacks:
            observation = stacks[0].push(batch)
        else:
            stacks.append(FrameStack(frame_stack, 1, frame.shape))
            observation = stacks[0].reset(batch)
        beside = None if state is None else state[None]
        return agent.act(observation, agent_step, eval_mode=True, state=beside)[0]

    return act


def as_vector(env: Any) -> SimpleNamespace:
    """Return what building an agent asks of a vector environment, for a single one: its spaces."""
    return SimpleNamespace(
        single_observation_space=env.observation_space, single_action_space=env.action_space
    )


def play(
    env: Any, masker: ObservationMasker, policy: Policy, count: int | None, seed: int
) -> Iterator[Scene]:
    """Mask the frames of one episode; nothing is simulated before a scene is asked for.

    Args:
        env: gives ``info["foreground"]``.
        masker: masks the frames.
        policy: acts on the masked frames.
        count: how many frames at most; None for the whole episode.
        seed: of the physics.
    """
    obs, info = env.reset(seed=seed)
    for step in itertools.count():
        scene = masked_scene(f"step {step}", masker, obs["pixels"], info["foreground"])
        yield scene
        if step + 1 == count:
            return
        obs, _, terminated, truncated, info = env.step(policy(scene.masked, obs.get("state")))
        if terminated or truncated:
            return


def footage_scenes(frames: Iterable[tuple[str, np.ndarray]], masker: ObservationMasker) -> Iterator[Scene]:
    """Mask titled frames, uint8 (H, W, 3), of which no simulator knows the truth."""
    for title, frame in frames:
        yield masked_scene(title, masker, frame, None)


def masked_scene(
    title: str, masker: ObservationMasker, frame: np.ndarray, foreground: np.ndarray | None
) -> Scene:
    """Return everything about a frame, uint8 ([V,] H, W, 3), its foreground, bool ([V,] H, W), if known."""
    several = frame.ndim == 4  # whose views are a batch already
    batch = torch.from_numpy(frame.copy() if several else frame[None].copy())
    exact = None if foreground is None else torch.from_numpy(foreground if several else foreground[None])
    found = masker.mask(batch, foreground=exact)
    masked, mask = apply_mask(batch, found).numpy(), found.numpy()
    masked, mask = (masked, mask) if several else (masked[0], mask[0])
    note = iou_note(mask >= 0.5, foreground)
    return Scene(title, frame, mask, masked, explain_frame(masker, frame), note, foreground)


def scene_record(scene: Scene) -> dict[str, Any]:
    """Return what can be said of a scene in numbers, as JSON values.

    Areas are shares of the frame in [0, 1]; points and boxes are (x, y) pixels of the frame. Of several
    cameras, areas and qualities are means over the views, and x counts along the views side by side.
    """
    known, truth = scene.explanation, scene.foreground
    mask = scene.mask >= 0.5
    record: dict[str, Any] = {"title": scene.title, "mask_area": float(mask.mean()), **_quality(mask, truth)}
    if known.similarity is not None:
        record["similarity"] = {
            "lowest": float(known.similarity.min()),
            "highest": float(known.similarity.max()),
        }
    if known.prompts is not None:
        points = zip(known.prompts.points.tolist(), known.prompts.labels.tolist(), strict=True)
        record["points"] = [{"x": x, "y": y, "label": label} for (x, y), label in points if label >= 0]
        record["box"] = None if known.prompts.box is None else known.prompts.box.tolist()
    if known.passes:
        record["passes"] = [
            {
                "mask_area": float(one.mask.mean()),
                "box": None if one.box is None else one.box.tolist(),
                **_quality(_split(one.mask, scene), truth),
            }
            for one in known.passes
        ]
    return record


def _quality(mask: np.ndarray, truth: np.ndarray | None) -> dict[str, float]:
    if truth is None:
        return {}
    return dict(zip(("iou", "recall", "precision"), view_quality(mask, truth), strict=True))


def _split(row: np.ndarray, scene: Scene) -> np.ndarray:
    """Return what lies side by side as views again, where a scene has several."""
    return row if scene.raw.ndim == 3 else apart(row, scene.views)
