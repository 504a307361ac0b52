"""What a benchmark level may do to an environment: edit the model when an episode begins, edit each frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    import mujoco

    from envs.renderer import Renderer


class Scene(Protocol):
    """The perturbation of one environment; ``envs.levels.build_scene`` makes them."""

    def begin_episode(self, model: mujoco.MjModel, renderer: Renderer, episode: int) -> None:
        """Edit the live model for an episode (colours, lights, textures) and upload what OpenGL must know.

        Called after the simulator's own reset. What it does is a pure function of the scene's seed and
        ``episode``, and independent of the episodes before.
        """
        ...

    def compose(
        self, frame: np.ndarray, render_segmentation: Callable[[], np.ndarray], agent_step: int
    ) -> np.ndarray:
        """Return the frame as the camera of the perturbed world would see it.

        Args:
            frame: uint8 (H, W, 3) RGB in [0, 255], the simulator's picture.
            render_segmentation: gives int32 (H, W, 2), object id and type of each pixel, when called.
            agent_step: agent steps since the episode began; 0 for the first frame.

        Returns:
            uint8 (H, W, 3).
        """
        ...


class NullScene:
    """The training scene: nothing is changed."""

    def begin_episode(self, model: mujoco.MjModel, renderer: Renderer, episode: int) -> None:
        """Leave the model as it is."""

    def compose(
        self, frame: np.ndarray, render_segmentation: Callable[[], np.ndarray], agent_step: int
    ) -> np.ndarray:
        """Return ``frame`` itself, uint8 (H, W, 3)."""
        return frame
