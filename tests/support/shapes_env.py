"""Environments that give masks and need no simulator: a coloured shape on a ground, steered or drifting."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

GOOD = {"disc": "tests.support.shapes_env:Disc-v0", "bars": "tests.support.shapes_env:Bars-v0"}


class Shapes(gymnasium.Env[Any, Any]):
    """A disc, or two bars side by side.

    Args:
        colour: of the shape.
        bars: two bars instead of a disc; ``info["parts"]`` tells them apart.
        size: height and width of the picture.
        actions: ``box`` (two numbers) or ``discrete``.
        picture: ``pixels`` (in a dictionary), ``image`` (the observation) or ``render``.
        fault: one thing to do wrong; see ``_spoil``.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(
        self,
        colour: tuple[int, int, int] = (200, 60, 40),
        bars: bool = False,
        size: int = 84,
        actions: str = "box",
        picture: str = "pixels",
        fault: str = "",
        render_mode: str | None = None,
    ) -> None:
        if fault == "broken":
            raise OSError("no such robot")
        self.colour, self.bars, self.size, self.picture, self.fault = colour, bars, size, picture, fault
        self.render_mode = render_mode
        image = gymnasium.spaces.Box(0, 255, (size, size, 3), np.uint8)
        vector = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
        pixels = gymnasium.spaces.Dict({"pixels": image})
        self.observation_space = {"pixels": pixels, "image": image, "render": vector}[picture]
        unbounded = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(4) if actions == "discrete" else unbounded
        self.taken: list[Any] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.at = self.np_random.uniform(0.3, 0.7, 2)
        return self._observe()

    def step(self, action: Any) -> Any:
        self.taken.append(action)
        if self.fault == "raises":
            raise RuntimeError("the arm fell off")
        moves = np.array([[0.05, 0], [-0.05, 0], [0, 0.05], [0, -0.05]])
        move = moves[action] if isinstance(self.action_space, gymnasium.spaces.Discrete) else 0.05 * action
        self.at = np.clip(self.at + move, 0.1, 0.9)
        observation, info = self._observe()
        return observation, 0.0, False, len(self.taken) % 30 == 0, info

    def render(self) -> Any:
        return self._draw()[0] if self.fault != "dark" else None

    def masks(self) -> tuple[np.ndarray, np.ndarray]:
        """Return object and second part, bool (size, size)."""
        y, x = (np.mgrid[: self.size, : self.size] + 0.5) / self.size
        if not self.bars:
            disc = (x - self.at[0]) ** 2 + (y - self.at[1]) ** 2 < 0.15**2
            return disc, np.zeros_like(disc)
        tall = abs(y - self.at[1]) < 0.2
        second = tall & (abs(x - self.at[0] - 0.1) < 0.05)
        return (tall & (abs(x - self.at[0] + 0.1) < 0.05)) | second, second

    def _draw(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        whole, second = self.masks()
        frame = np.full((self.size, self.size, 3), 90, np.uint8)
        frame[whole] = self.colour
        frame[second] = self.colour[::-1]
        return frame, whole, second

    def _observe(self) -> Any:
        frame, whole, second = self._draw()
        info: dict[str, Any] = {"foreground": whole}
        if self.bars:
            info["parts"] = whole.astype(np.uint8) + second
        frame = self._spoil(frame, info)
        observation: Any = {"pixels": {"pixels": frame}, "image": frame, "render": self.at}[self.picture]
        return observation, info

    def _spoil(self, frame: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        mask = info["foreground"]
        if self.fault == "maskless":
            del info["foreground"]
        changed = {
            "bytes": mask.astype(np.uint8),
            "small": mask[::2, ::2],
            "unseen": np.zeros_like(mask),
            "list": mask.tolist(),
        }
        if self.fault in changed:
            info["foreground"] = changed[self.fault]
        if self.fault == "parts":
            info["parts"] = mask
        return {"float": frame / 255.0, "grey": frame[..., :1], "empty": frame[:0]}.get(self.fault, frame)


def register(name: str, **options: Any) -> None:
    """Make ``Shapes(**options)`` known as ``name``."""
    if name not in gymnasium.registry:
        gymnasium.register(name, entry_point=Shapes, kwargs=options)


register("Disc-v0")
register("Bars-v0", colour=(30, 90, 220), bars=True, size=126, actions="discrete", picture="image")
register("Rendered-v0", picture="render")
for fault in (
    "broken",
    "raises",
    "maskless",
    "bytes",
    "small",
    "unseen",
    "list",
    "parts",
    "float",
    "grey",
    "empty",
):
    register(f"Faulty-{fault}-v0", fault=fault)
register("Faulty-dark-v0", fault="dark", picture="render")
