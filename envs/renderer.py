"""One renderer for every simulator: the only code of this project that touches OpenGL.

MuJoCo's own renderers disturb one another silently. Closing one while another context is current frees the
other's buffers; drawing or uploading while a foreign context is current paints into that one. ``Renderer``
therefore makes its own context current before every render, every upload and before it closes. Its pictures
equal those of dm_control's ``physics.render`` in every pixel.
"""

from __future__ import annotations

import atexit
import contextlib
import weakref
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

# torch must be loaded before MuJoCo's OpenGL libraries: the other order can crash (two copies of LLVM).
import torch  # noqa: F401

from common.errors import ConfigError, DependencyError
from envs.backends import INSTALL

if TYPE_CHECKING:
    import mujoco

FAST_SHADOW_SIZE = 512
_open_renderers: weakref.WeakSet[Renderer] = weakref.WeakSet()


@contextlib.contextmanager
def explain_missing_opengl(*others: type[Exception]) -> Iterator[None]:
    """Turn what a failing import or creation of OpenGL raises into a ``DependencyError`` with the cure."""
    failures: tuple[type[Exception], ...] = (ImportError, AttributeError, OSError, RuntimeError, *others)
    try:
        yield
    except failures as error:
        reason = " ".join(str(error).split())
        raise DependencyError(
            f"OpenGL rendering does not work on this machine ({reason}).", INSTALL
        ) from error


def load_mujoco() -> ModuleType:
    """Return the ``mujoco`` module.

    Raises:
        DependencyError: it, or the OpenGL library that ``MUJOCO_GL`` names, cannot be loaded.
    """
    with explain_missing_opengl():
        import mujoco
        import mujoco.rendering.classic.gl_context  # its import is where a missing libEGL shows
    return mujoco


class Renderer:
    """Draws one MuJoCo model through one camera at a time.

    Args:
        model: the compiled model; it may be edited while the renderer lives.
        height: image height in pixels.
        width: image width in pixels.
        camera: index of a camera of the model; -1 is MuJoCo's free camera.
        fast_render: draw shadows from a 512-pixel shadow map (about half the CPU time; some 0.1 % of the
            pixels change by more than 8 of 255; ``benchmarks.render``). It changes the model's visual
            quality for good.

    Raises:
        ConfigError: the image is larger than the model's off-screen buffer, or there is no such camera.
        DependencyError: no OpenGL context can be created.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        height: int = 84,
        width: int = 84,
        camera: int = 0,
        fast_render: bool = False,
    ) -> None:
        self._renderer: mujoco.Renderer | None = None
        self._mujoco = load_mujoco()
        self._model, self.camera = model, camera
        # Called in order with the list of what is drawn (mjvScene) before every drawing, labels included.
        self.scene_edits: list[Callable[[mujoco.MjvScene], None]] = []
        largest = (model.vis.global_.offheight, model.vis.global_.offwidth)
        if not (0 < height <= largest[0] and 0 < width <= largest[1]):
            raise ConfigError(
                f"The image size {height}x{width} does not fit the simulator's buffer of at most "
                f"{largest[0]}x{largest[1]}.",
                "Choose a smaller image_size.",
            )
        self.look_through(camera)
        if fast_render:
            model.vis.quality.shadowsize = FAST_SHADOW_SIZE  # read when the context is created, just below
        with explain_missing_opengl(self._mujoco.FatalError):
            self._renderer = self._mujoco.Renderer(model, height, width)
        if not _open_renderers:
            # Contexts still open when EGL shuts down print errors; this handler runs before EGL's own.
            atexit.unregister(_close_all)
            atexit.register(_close_all)
        _open_renderers.add(self)

    def _activate(self) -> mujoco.Renderer:
        """Make this renderer's context current and return MuJoCo's renderer."""
        if self._renderer is None:
            raise ValueError("the renderer has been closed")
        if self._renderer._gl_context is not None:
            self._renderer._gl_context.make_current()
        return self._renderer

    def look_through(self, camera: int) -> None:
        """Draw through another camera from now on.

        Raises:
            ConfigError: the model has no such camera.
        """
        if not -1 <= camera < self._model.ncam:
            raise ConfigError(
                f"Camera {camera} does not exist.",
                f"The model has cameras 0 to {self._model.ncam - 1}; -1 is free.",
            )
        self.camera = camera

    def render(self, data: mujoco.MjData) -> np.ndarray:
        """Return the picture of ``data``: uint8 (H, W, 3) RGB in [0, 255]."""
        return self._prepare(data).render()

    def render_segmentation(self, data: mujoco.MjData) -> np.ndarray:
        """Return what each pixel shows: int32 (H, W, 2), object id and ``mjtObj`` type, -1 for the sky."""
        renderer = self._prepare(data)
        renderer.enable_segmentation_rendering()
        try:
            return renderer.render()
        finally:
            renderer.disable_segmentation_rendering()

    def _prepare(self, data: mujoco.MjData) -> mujoco.Renderer:
        """Collect what is to be drawn and return MuJoCo's renderer."""
        renderer = self._activate()
        renderer.update_scene(data, self.camera)
        for edit in self.scene_edits:
            edit(renderer.scene)
        return renderer

    @property
    def scene(self) -> mujoco.MjvScene:
        """What was drawn last, edits included: geoms, lights and cameras; the next drawing changes it."""
        if self._renderer is None:
            raise ValueError("the renderer has been closed")
        return self._renderer.scene

    def upload_texture(self, texture: int) -> None:
        """Send texture number ``texture`` (``model.tex_data``, edited by the caller) to OpenGL."""
        self._mujoco.mjr_uploadTexture(self._model, self._activate()._mjr_context, texture)

    def upload_height_field(self, height_field: int) -> None:
        """Send height field number ``height_field`` of the model, edited by the caller, to OpenGL."""
        self._mujoco.mjr_uploadHField(self._model, self._activate()._mjr_context, height_field)

    def close(self) -> None:
        """Free the context; other renderers keep theirs. Closing twice is harmless."""
        if self._renderer is not None:
            renderer = self._activate()
            self._renderer = None
            renderer.close()
            _open_renderers.discard(self)

    def __del__(self) -> None:
        self.close()


def _close_all() -> None:
    for renderer in list(_open_renderers):
        renderer.close()
