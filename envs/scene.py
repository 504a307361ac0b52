"""What a benchmark level may do to an environment: edit the model, each moment, and each frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    import mujoco

    from envs.renderer import Renderer


class Scene(Protocol):
    """The perturbation of one environment; ``envs.levels.build_scene`` makes them.

    Nothing of it touches the physics, and everything is a pure function of the scene's seed, the episode and
    the step: no call depends on the ones before, so any moment can be drawn alone or again.
    """

    def begin_episode(self, model: mujoco.MjModel, renderer: Renderer, episode: int) -> None:
        """Edit the live model for an episode (colours, lights, textures) and upload what OpenGL must know.

        Called after the simulator's own reset. What it does is a pure function of the scene's seed and
        ``episode``, and independent of the episodes before.
        """
        ...

    def begin_frame(self, data: mujoco.MjData, agent_step: int, control_step: int) -> None:
        """Edit model and ``data`` for the picture that is drawn next; nothing that the physics reads.

        Args:
            data: the live state; whatever is written into it lasts until the next simulation step.
            agent_step: agent steps since the episode began; 0 for the first frame.
            control_step: control steps since then.
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


class BaseScene:
    """A scene that changes nothing; the others override what they do change."""

    def begin_episode(self, model: mujoco.MjModel, renderer: Renderer, episode: int) -> None:
        """Leave the model as it is."""

    def begin_frame(self, data: mujoco.MjData, agent_step: int, control_step: int) -> None:
        """Leave model and state as they are."""

    def compose(
        self, frame: np.ndarray, render_segmentation: Callable[[], np.ndarray], agent_step: int
    ) -> np.ndarray:
        """Return ``frame`` itself, uint8 (H, W, 3)."""
        return frame


class NullScene(BaseScene):
    """The training scene: nothing is changed."""


class ComposedScene(BaseScene):
    """Several perturbations at once, applied in the given order.

    Args:
        parts: the scenes; each must leave alone what the others edit.
    """

    def __init__(self, parts: Sequence[Scene]) -> None:
        self.parts = tuple(parts)

    def begin_episode(self, model: mujoco.MjModel, renderer: Renderer, episode: int) -> None:
        """Begin the episode in every part."""
        for part in self.parts:
            part.begin_episode(model, renderer, episode)

    def begin_frame(self, data: mujoco.MjData, agent_step: int, control_step: int) -> None:
        """Begin the frame in every part."""
        for part in self.parts:
            part.begin_frame(data, agent_step, control_step)

    def compose(
        self, frame: np.ndarray, render_segmentation: Callable[[], np.ndarray], agent_step: int
    ) -> np.ndarray:
        """Return uint8 (H, W, 3): ``frame`` after every part."""
        for part in self.parts:
            frame = part.compose(frame, render_segmentation, agent_step)
        return frame


class ModelMemory:
    """Remembers arrays of the first model it meets, so that every edit starts from the model's own values.

    Args:
        names: attributes of the model, such as ``light_pos``.
    """

    def __init__(self, *names: str) -> None:
        self._names = names
        self._model: mujoco.MjModel | None = None
        self._own: dict[str, np.ndarray] = {}

    def restore(self, model: mujoco.MjModel) -> None:
        """Give ``model`` its own values back, exactly; remember them first where it is a new one."""
        if self._model is not model:
            self._own = {name: np.array(getattr(model, name)) for name in self._names}
            self._model = model
        for name, values in self._own.items():
            getattr(model, name)[:] = values

    def own(self, name: str) -> np.ndarray:
        """Return the model's own values of one of the arrays."""
        return self._own[name]
