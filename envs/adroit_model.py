"""The Adroit scenes: gymnasium-robotics' models, seen as the papers' environments show them.

Joints, masses and actuators of the package's scenes are those of the papers; what is drawn is not. Missing
cameras are added, pen and target become opaque, and relocate gets what RL-ViGen's public scene has: a red
ball, a stronger target, no table, no shadows and a purple sky. Nothing that the physics reads is changed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import DependencyError
from envs.colors import SKYBOX
from envs.renderer import load_mujoco

if TYPE_CHECKING:
    import mujoco

PACKAGE = "gymnasium-robotics==1.4.2"
PURPLE = (0.42137, 0.20392, 0.50196)  # RL-ViGen's sky of relocate, and of all tasks where a video is shown
_SKY_SIDE = 64  # texels
_DRAWING_BUFFER = (480, 640)  # the scenes ask for 1680 x 3024 with 8 samples: 0.3 GB for one small picture
_WRIST, _FINGERS = ("A_WRJ1", "A_WRJ0"), ("A_FFJ3", "A_THJ0")  # first and last actuator of each


def compile_model(domain: str) -> mujoco.MjModel:
    """Return the model of ``door``, ``hammer``, ``pen`` or ``relocate``, compiled anew.

    Raises:
        DependencyError: the package that holds the scenes is not installed, or another release of it.
    """
    library = load_mujoco()
    spec = library.MjSpec.from_file(str(_scene_file(domain)))
    height, width = _DRAWING_BUFFER
    spec.visual.global_.offheight, spec.visual.global_.offwidth = height, width
    _add_sky(spec)
    _EDITS[domain](spec)
    model = spec.compile()
    _set_gains(model)
    return model


def _scene_file(domain: str) -> Path:
    # Located, not imported: the package would register its environments and print notes about them.
    found = importlib.util.find_spec("gymnasium_robotics")
    if found is not None and found.submodule_search_locations:
        folder = Path(found.submodule_search_locations[0]) / "envs" / "assets" / "adroit_hand"
        path = folder / f"adroit_{domain}.xml"
        if path.is_file():
            return path
    raise DependencyError(
        f"The scene of adroit_{domain} is not installed: it comes with the package {PACKAGE}.",
        f"pip install {PACKAGE}",
    )


def _add_sky(spec: mujoco.MjSpec, rgb: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> None:
    """Add a sky of one colour; a black one looks as none does, and levels can repaint it."""
    library = load_mujoco()
    spec.add_texture(
        name=SKYBOX,
        type=library.mjtTexture.mjTEXTURE_SKYBOX,
        builtin=library.mjtBuiltin.mjBUILTIN_FLAT,
        rgb1=rgb,
        rgb2=rgb,
        width=_SKY_SIDE,
        height=_SKY_SIDE,
    )


def _add_camera(
    spec: mujoco.MjSpec, name: str, position: tuple[float, ...], euler: tuple[float, ...]
) -> None:
    camera = spec.worldbody.add_camera(name=name, pos=position)
    camera.alt.type = load_mujoco().mjtOrientation.mjORIENTATION_EULER
    camera.alt.euler = euler


def _edit_door(spec: mujoco.MjSpec) -> None:
    _add_camera(spec, "top", (0.0, 0.0, 1.5), (0.0, 0.0, 3.14))


def _edit_hammer(spec: mujoco.MjSpec) -> None:
    _add_camera(spec, "top", (0.0, 0.0, 1.1), (0.0, 0.0, 3.14))


def _edit_pen(spec: mujoco.MjSpec) -> None:
    spec.camera("vil_camera").pos = (0.0, -0.8, 0.8)
    for name in ("pen", "target"):
        spec.geom(name).rgba = (0.6, 0.6, 0.6, 1.0)


def _edit_relocate(spec: mujoco.MjSpec) -> None:
    _add_camera(spec, "cam1", (0.0, -0.04, -1.0), (-3.14, 0.0, 3.14))
    _add_camera(spec, "cam2", (0.0, 0.8, 0.2), (-1.57, 0.0, 3.14))
    _add_camera(spec, "cam3", (0.8, 0.0, 0.2), (0.0, 1.57, 1.57))
    sky = spec.texture(SKYBOX)
    sky.rgb1 = sky.rgb2 = PURPLE
    spec.lights[0].castshadow = False
    for geom in spec.body("table").geoms:
        geom.rgba = (0.0, 0.0, 0.0, 0.0)  # cam1 looks from below
    ball = spec.geom("sphere")
    ball.material, ball.rgba = "", (1.0, 0.0, 0.0, 1.0)
    spec.site("target").rgba = (0.0, 1.0, 0.0, 0.3)


_EDITS: Mapping[str, Callable[[mujoco.MjSpec], None]] = {
    "door": _edit_door,
    "hammer": _edit_hammer,
    "pen": _edit_pen,
    "relocate": _edit_relocate,
}


def _set_gains(model: mujoco.MjModel) -> None:
    """Set the strength of wrist and fingers as the environments do when they are made."""
    for (first, last), gain in ((_WRIST, 10.0), (_FINGERS, 1.0)):
        actuators = slice(model.actuator(first).id, model.actuator(last).id + 1)
        model.actuator_gainprm[actuators, :3] = (gain, 0.0, 0.0)
        model.actuator_biasprm[actuators, :3] = (0.0, -gain, 0.0)
