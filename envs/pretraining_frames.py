"""Frames with exact labels for pretraining the ``tiny`` masker: many poses of one domain, in several paints.

Each pose is drawn with its own colours, with random colours of sky, floor and agent (shaded by the renderer),
and before a random flat key colour, as chroma-keyed benchmarks do, so that thin edges mix with the key. No
colour table and no clip of any benchmark is used.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from common.errors import InputError, unknown_choice
from common.seeding import counter_rng
from envs.colors import RGB, Painter, Palette
from envs.renderer import Renderer, load_mujoco
from envs.tasks import find_task

# Domain -> the task whose initial states and actions make its poses.
POSE_TASKS = {
    "walker": "walker_walk",
    "cartpole": "cartpole_swingup",
    "ball_in_cup": "cup_catch",
    "finger": "finger_spin",
    "cheetah": "cheetah_run",
    "hopper": "hopper_stand",
    "quadruped": "quadruped_walk",
}
SKY, FLOOR, PART, OTHER = 0, 1, 2, 9  # labels; parts of the agent are PART, PART + 1
_POSES_PER_PALETTE = 5
SMALLEST = 12  # frames that show fewer pixels of the agent are dropped


def collect_domain(
    domain: str, count: int, seed: int, size: int = 84, paints: bool = True
) -> dict[str, np.ndarray]:
    """Render ``count`` poses of a domain.

    Args:
        domain: a key of ``POSE_TASKS``.
        count: how many poses.
        seed: of the poses and colours.
        size: height and width in pixels.
        paints: whether to draw the recoloured and keyed pictures, too.

    Returns:
        ``clean``, ``recoloured``, ``keyed``: uint8 (count, size, size, 3); ``key_mask``: bool, the pixels
        that a chroma key takes from ``keyed``; ``labels``: uint8 (count, size, size), 0 sky, 1 floor, 2 and 3
        the parts of the agent, 9 anything else.

    Raises:
        ConfigError: the domain is unknown.
        InputError: the agent is hardly ever in the picture.
    """
    if domain not in POSE_TASKS:
        raise unknown_choice("pretraining domain", domain, POSE_TASKS)
    load_mujoco()
    from dm_control import suite

    task = find_task(POSE_TASKS[domain])
    rng = counter_rng(seed, f"poses/{domain}")
    environment = suite.load(task.domain, task.task, task_kwargs={"random": int(rng.integers(2**31))})
    model, data = environment.physics.model.ptr, environment.physics.data.ptr
    renderer = Renderer(model, size, size, task.camera)
    try:
        states, labels = _visible_poses(domain, environment, renderer, _labeller(model), count, rng)
        painter = _Paints(domain, model, data, renderer, states)
        arrays = {"labels": labels}
        if paints:
            arrays["recoloured"] = painter.sweep(rng, _random_palette)
            arrays["keyed"] = painter.sweep(rng, _key_palette)
            pairs = zip(arrays["keyed"], painter.palettes, strict=True)
            arrays["key_mask"] = np.stack([key_pixels(f, palette.skybox_rgb) for f, palette in pairs])
        arrays["clean"] = painter.sweep(rng, lambda _: Palette())
    finally:
        renderer.close()
    return arrays


def key_pixels(frame: np.ndarray, key: RGB | None) -> np.ndarray:
    """Return which pixels of uint8 (H, W, 3) have the chroma of ``key``: bool (H, W)."""
    wanted = np.asarray(key or (0.0, 0.0, 0.0), np.float32)
    pixels = frame.astype(np.float32) / 255
    if wanted.max() < 0.05:
        return pixels.max(-1) < 0.02
    lengths = np.linalg.norm(pixels, axis=-1)
    cosine = pixels @ (wanted / np.linalg.norm(wanted)) / np.maximum(lengths, 1e-3)
    return (cosine > 0.975) & (lengths > 0.25)


class _Paints:
    """Draws the same poses once per paint."""

    def __init__(self, domain: str, model: Any, data: Any, renderer: Renderer, states: np.ndarray) -> None:
        self.model, self.data, self.renderer, self.states = model, data, renderer, states
        self.painter = Painter(domain)
        self.palettes: list[Palette] = []
        # Flat agent materials besides the one that the palette sets.
        moving = model.body_weldid[model.geom_bodyid] != 0
        self.materials = sorted(set(model.geom_matid[moving].tolist()) - {-1})

    def sweep(
        self, rng: np.random.Generator, draw_palette: Callable[[np.random.Generator], Palette]
    ) -> np.ndarray:
        """Return every pose, uint8 (P, H, W, 3), under palettes that change every few poses."""
        library = load_mujoco()
        frames, self.palettes = [], []
        own = self.model.mat_rgba.copy()
        palette = Palette()
        for index, state in enumerate(self.states):
            if index % _POSES_PER_PALETTE == 0:
                palette = draw_palette(rng)
                self.painter.paint(self.model, self.renderer, palette)
                own_now = self.model.mat_rgba.copy()
                if palette.self_rgb is not None and draw_palette is _random_palette:
                    for material in self.materials:
                        if rng.random() < 0.4:
                            own_now[material, :3] = random_rgb(rng)
                self.model.mat_rgba[:] = own_now
            _set_state(library, self.model, self.data, state)
            frames.append(self.renderer.render(self.data))
            self.palettes.append(palette)
        self.model.mat_rgba[:] = own
        self.painter.restore(self.model, self.renderer)
        return np.stack(frames)


def random_rgb(rng: np.random.Generator) -> RGB:
    """Draw a colour: any hue, from pale to saturated, from dark to bright."""
    hue, saturation, value = rng.random(), rng.random() ** 0.7, 0.15 + 0.85 * rng.random() ** 0.8
    return colorsys.hsv_to_rgb(float(hue), float(saturation), float(value))


def _random_palette(rng: np.random.Generator) -> Palette:
    floor = random_rgb(rng)
    step = float(rng.uniform(-0.3, 0.3))
    second = random_rgb(rng) if rng.random() < 0.3 else _clip(floor, step)
    return Palette(
        skybox_rgb=random_rgb(rng),
        skybox_rgb2=random_rgb(rng) if rng.random() < 0.5 else None,
        grid_rgb1=floor,
        grid_rgb2=second,
        grid_mark=random_rgb(rng) if rng.random() < 0.3 else None,
        self_rgb=random_rgb(rng),
    )


def _clip(rgb: RGB, step: float) -> RGB:
    red, green, blue = (min(1.0, max(0.0, value + step)) for value in rgb)
    return red, green, blue


def _key_palette(rng: np.random.Generator) -> Palette:
    if rng.random() < 0.25:
        return Palette.key_paint((0.0, 0.0, 0.0), floor=True)
    hue = rng.normal(1 / 3, 0.03) if rng.random() < 0.6 else rng.random()
    rgb = colorsys.hsv_to_rgb(float(hue) % 1.0, float(rng.uniform(0.65, 1.0)), float(rng.uniform(0.6, 1.0)))
    return Palette.key_paint(rgb, floor=True)


def _labeller(model: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function from segmentation int32 (H, W, 2) to labels uint8 (H, W)."""
    library = load_mujoco()
    moving = model.body_weldid[model.geom_bodyid] != 0
    plane = model.geom_type == int(library.mjtGeom.mjGEOM_PLANE)
    roots = model.body_rootid[model.geom_bodyid]
    order = {int(root): number for number, root in enumerate(dict.fromkeys(roots[moving].tolist()))}
    table = np.full(model.ngeom, OTHER, np.uint8)
    table[plane & ~moving] = FLOOR
    for geom in np.flatnonzero(moving):
        table[geom] = PART + min(order[int(roots[geom])], 1)
    return lambda segmentation: label_geoms(segmentation, table)


def label_geoms(segmentation: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Return the labels of a picture: each geom's own, ``SKY`` where nothing is, else ``OTHER``.

    Args:
        segmentation: int32 (H, W, 2), object id and type, as ``Renderer.render_segmentation`` returns it.
        table: uint8 (number of geoms,).

    Returns:
        uint8 (H, W).
    """
    kind = int(load_mujoco().mjtObj.mjOBJ_GEOM)
    identity, types = segmentation[..., 0], segmentation[..., 1]
    found = np.where(types == kind, table[np.clip(identity, 0, len(table) - 1)], OTHER)
    return np.where(identity < 0, SKY, found).astype(np.uint8)


def _visible_poses(
    domain: str,
    environment: Any,
    renderer: Renderer,
    label: Callable[[np.ndarray], np.ndarray],
    count: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    states: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    model, data = environment.physics.model.ptr, environment.physics.data.ptr
    library = load_mujoco()
    environment.reset()  # some tasks hide their marks here, and only here
    for tried, state in enumerate(poses(domain, environment, rng)):
        _set_state(library, model, data, state)
        found = label(renderer.render_segmentation(data))
        if ((found >= PART) & (found < OTHER)).sum() >= SMALLEST:
            states.append(state)
            labels.append(found)
        if len(states) == count:
            return np.stack(states), np.stack(labels)
        if tried > 20 * count + 100:
            raise InputError(
                f"The agent of domain '{domain}' is in view in only {len(states)} of {tried} poses.",
                "Check the camera of its task.",
            )
    raise AssertionError("poses never end")


def _set_state(library: Any, model: Any, data: Any, state: np.ndarray) -> None:
    data.qpos[:] = state
    library.mj_forward(model, data)


def poses(domain: str, environment: Any, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield joint positions without end: from rollouts of noise, and poses like those of a trained policy.

    Args:
        domain: a key of ``POSE_TASKS``.
        environment: the domain's dm_control environment; it is stepped and reset.
        rng: decides everything.
    """
    rollouts = _rollouts(environment, rng)
    settled = _settled(domain, environment, rng)
    while True:
        yield next(rollouts) if rng.random() < 0.35 else next(settled)


def _rollouts(environment: Any, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield every few steps of episodes under uniform or slowly drifting actions."""
    spec = environment.action_spec()
    while True:
        environment.reset()
        smooth = rng.random() < 0.6
        action = rng.uniform(spec.minimum, spec.maximum)
        for step in range(1, 13 * int(rng.integers(1, 9))):
            fresh = rng.uniform(spec.minimum, spec.maximum)
            action = 0.93 * action + 0.25 * fresh if smooth else fresh
            environment.step(np.clip(action, spec.minimum, spec.maximum))
            if step % 12 == 0:
                yield environment.physics.data.qpos.copy()


def _settled(domain: str, environment: Any, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield random poses about the model's rest pose, set down on the floor where the agent walks."""
    library = load_mujoco()
    model, data = environment.physics.model.ptr, environment.physics.data.ptr
    while True:
        qpos = model.qpos0.copy()
        spread = rng.choice([0.12, 0.3, 0.6])
        for joint in range(model.njnt):
            if not model.jnt_limited[joint] or model.jnt_type[joint] != int(library.mjtJoint.mjJNT_HINGE):
                continue
            low, high = model.jnt_range[joint]
            at = model.jnt_qposadr[joint]
            qpos[at] = np.clip(qpos[at] + spread * (high - low) * rng.normal(), low, high)
        _place(domain, model, qpos, rng)
        if domain in ("walker", "cheetah", "hopper", "quadruped"):
            _set_state(library, model, data, qpos)
            height = 2 if domain == "quadruped" else int(model.joint("rootz").qposadr[0])
            qpos[height] += rng.uniform(-0.01, 0.06) * (1 + 3 * (rng.random() < 0.15)) - _lowest(model, data)
        yield qpos


def _place(domain: str, model: Any, qpos: np.ndarray, rng: np.random.Generator) -> None:
    """Set the free coordinates of a pose in place: where the agent is and how it is turned."""
    if domain in ("walker", "cheetah", "hopper"):
        qpos[model.joint("rootx").qposadr] = rng.uniform(-12, 12)
        fallen = rng.random() < 0.12
        qpos[model.joint("rooty").qposadr] = rng.uniform(-np.pi, np.pi) if fallen else rng.normal(0, 0.22)
    elif domain == "quadruped":
        qpos[:2] = rng.uniform(-3, 3, 2)
        yaw, tilt = rng.uniform(-np.pi, np.pi), rng.normal(0, 0.1, 2)
        turn = np.array([np.cos(yaw / 2), *(tilt / 2), np.sin(yaw / 2)])
        qpos[3:7] = turn / np.linalg.norm(turn)
    elif domain == "cartpole":
        qpos[0] = rng.uniform(-1.8, 1.8)
        qpos[1] = rng.normal(0, 0.15) if rng.random() < 0.5 else rng.uniform(-np.pi, np.pi)
    elif domain == "finger":
        qpos[-1] = rng.uniform(-np.pi, np.pi)
    elif domain == "ball_in_cup":
        cup = rng.uniform(-0.2, 0.2, 2)
        # Both slide from where their bodies are drawn; the string is tied to a site in the cup.
        knot = model.body("cup").pos + model.site("cup").pos - model.body("ball").pos
        angle, reach = rng.uniform(-np.pi, np.pi), float(model.tendon_range[0, 1]) * np.sqrt(rng.random())
        caught = rng.random() < 0.35
        ball = rng.normal((0, 0.046), 0.01) if caught else reach * np.array([np.sin(angle), np.cos(angle)])
        qpos[:] = [*cup, *(cup + knot[[0, 2]] + ball)]


def _lowest(model: Any, data: Any) -> float:
    """Return the height of the lowest point of the agent's capsules and balls above the floor plane."""
    moving = np.flatnonzero(model.body_weldid[model.geom_bodyid] != 0)
    radius, half = model.geom_size[moving, 0], model.geom_size[moving, 1]
    capsule = model.geom_type[moving] == 3
    drop = np.abs(data.geom_xmat[moving, 8]) * np.where(capsule, half, 0.0) + radius
    return float((data.geom_xpos[moving, 2] - drop).min())
