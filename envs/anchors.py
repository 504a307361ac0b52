"""Where the body points that a reference's points lie on are seen now.

Our references are pictures of a known pose (``envs.reference_scene``). A pixel of such a picture shows one
geom of one body; the anchor of the pixel is the middle of the line of sight's way through that geom, fixed to
it. In any other picture of the domain the anchor is projected through the camera with which the picture was
drawn. What was *drawn* is asked, not the physics: cameras that follow or have been moved, and objects drawn
at another size, are right without more ado.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from common.paths import PROJECT_ROOT
from envs.renderer import load_mujoco
from envs.tasks import DOMAIN_ALIASES

if TYPE_CHECKING:
    import mujoco


@dataclass(frozen=True)
class Anchor:
    """A point of a body.

    Attributes:
        body: the body's name.
        geom: number of the geom among those of the body.
        position: in the geom's frame, metres.
    """

    body: str
    geom: int
    position: tuple[float, float, float]


class Projection:
    """The camera with which a scene was drawn (the pinhole of MuJoCo's visualiser).

    Args:
        scene: what was drawn; the camera is read from it at once.
        size: height and width of the picture in pixels.
    """

    def __init__(self, scene: mujoco.MjvScene, size: int) -> None:
        left, right = scene.camera[0], scene.camera[1]  # the eyes, between which a flat picture is drawn
        self.eye = (np.array(left.pos, np.float64) + right.pos) / 2
        self.forward = np.array(left.forward, np.float64)
        self.up = np.array(left.up, np.float64)
        self.right = np.cross(self.forward, self.up)
        top, bottom = left.frustum_top, left.frustum_bottom
        half = left.frustum_width or (top - bottom) / 2
        centre = (left.frustum_center + right.frustum_center) / 2
        # Picture plane at distance `near`: from its upper left corner to its lower right one.
        self._near, self._size = left.frustum_near, size
        self._corner, self._extent = np.array((centre - half, top)), np.array((2 * half, bottom - top))

    def project(self, points: np.ndarray) -> np.ndarray:
        """Return where points are seen.

        Args:
            points: float (P, 3), world coordinates in metres.

        Returns:
            float64 (P, 2), (x, y) pixels, whole numbers at the centres of pixels; NaN behind the camera.
        """
        offset = np.asarray(points, np.float64) - self.eye
        depth = offset @ self.forward
        with np.errstate(divide="ignore", invalid="ignore"):
            plane = offset @ np.stack((self.right, self.up), 1) * (self._near / depth)[:, None]
        pixels = (plane - self._corner) / self._extent * self._size - 0.5
        return np.where(depth[:, None] > 0, pixels, np.nan)

    def direction(self, point: np.ndarray) -> np.ndarray:
        """Return the direction from the eye through (x, y) in pixels, a unit vector float64 (3,)."""
        x, y = self._corner + (np.asarray(point, np.float64) + 0.5) / self._size * self._extent
        way = x * self.right + y * self.up + self._near * self.forward
        return way / np.linalg.norm(way)


def reference_anchors(domain: str, image: np.ndarray, points: np.ndarray) -> tuple[Anchor | None, ...] | None:
    """Return the anchor of every point of a reference.

    Args:
        domain: of the task, such as ``walker``.
        image: uint8 (H, W, 3) RGB, the reference picture.
        points: float (P, 2), (x, y) pixels of it.

    Returns:
        one anchor per point, None for a point that shows nothing that moves; or None altogether where the
        picture is none of our references of the domain, for only their pose is known.
    """
    from envs.reference_scene import posing_env, references_of

    domain = DOMAIN_ALIASES.get(domain, domain)
    shown = next((name for name in references_of(domain) if np.array_equal(image, _shipped(name))), None)
    if shown is None:
        return None
    env = posing_env(shown)
    try:
        segmentation = env.renderer.render_segmentation(env.data)
        camera = Projection(env.renderer.scene, len(image))
        return tuple(_anchor(env.model, env.data, camera, segmentation, point) for point in points)
    finally:
        env.close()


def locate_anchors(
    anchors: Sequence[Anchor | None], model: mujoco.MjModel, scene: mujoco.MjvScene, segmentation: np.ndarray
) -> np.ndarray:
    """Return where anchors are seen in the picture that was drawn last.

    Args:
        anchors: as ``reference_anchors`` returns them.
        model: the compiled model.
        scene: what was drawn.
        segmentation: int32 (H, W, 2) of the same scene, as ``Renderer.render_segmentation`` returns it.

    Returns:
        float32 (P, 2), (x, y) pixels; NaN where an anchor is outside the picture or its pixel does not show
        its body, so that something else hides it.
    """
    kind = int(load_mujoco().mjtObj.mjOBJ_GEOM)
    drawn = {g.objid: g for g in (scene.geoms[i] for i in range(scene.ngeom)) if g.objtype == kind}
    size = len(segmentation)
    found = np.full((len(anchors), 2), np.nan, np.float32)
    camera = Projection(scene, size)
    for number, anchor in enumerate(anchors):
        body = -1 if anchor is None else _body(model, anchor.body)
        if anchor is None or body < 0 or anchor.geom >= model.body_geomnum[body]:
            continue
        geom = int(model.body_geomadr[body]) + anchor.geom
        if geom not in drawn:
            continue
        scale = drawn[geom].size[0] / model.geom_size[geom, 0]
        place = drawn[geom].pos + np.array(drawn[geom].mat).reshape(3, 3) @ np.array(anchor.position) * scale
        pixel = camera.project(place[None])[0]
        if _shows(segmentation, pixel, model, body):
            found[number] = pixel
    return found


def _anchor(
    model: mujoco.MjModel,
    data: mujoco.MjData,
    camera: Projection,
    segmentation: np.ndarray,
    point: np.ndarray,
) -> Anchor | None:
    """Return the anchor of one pixel, None where nothing that moves is seen there."""
    if not np.isfinite(point).all():  # of several cameras, some have fewer points than others
        return None
    column, row = (round(float(value)) for value in point)
    geom = _geom(segmentation[row, column])
    if geom < 0 or model.body_weldid[model.geom_bodyid[geom]] == 0:
        return None
    way = camera.direction(point)
    near, far = (
        _entry(model, data, geom, *line) for line in ((camera.eye, way), (camera.eye + 1e3 * way, -way))
    )
    if near < 0 or far < 0:
        return None
    place = camera.eye + way * (near + (1e3 - far)) / 2
    local = data.geom_xmat[geom].reshape(3, 3).T @ (place - data.geom_xpos[geom])
    body = int(model.geom_bodyid[geom])
    x, y, z = (float(value) for value in local)
    return Anchor(model.body(body).name, geom - int(model.body_geomadr[body]), (x, y, z))


def _entry(
    model: mujoco.MjModel, data: mujoco.MjData, geom: int, start: np.ndarray, way: np.ndarray
) -> float:
    """Return how far from ``start`` a line meets a geom, -1 where it does not."""
    mujoco = load_mujoco()
    if int(model.geom_type[geom]) == int(mujoco.mjtGeom.mjGEOM_MESH):
        return float(mujoco.mj_rayMesh(model, data, geom, start, way, None))
    place = data.geom_xpos[geom], data.geom_xmat[geom], model.geom_size[geom]
    return float(mujoco.mju_rayGeom(*place, start, way, int(model.geom_type[geom])))


def _shows(segmentation: np.ndarray, pixel: np.ndarray, model: mujoco.MjModel, body: int) -> bool:
    """Tell whether a pixel (x, y) lies in the picture and shows a body."""
    if not ((pixel > -0.5) & (pixel < len(segmentation) - 0.5)).all():
        return False
    geom = _geom(segmentation[round(float(pixel[1])), round(float(pixel[0]))])
    return geom >= 0 and int(model.geom_bodyid[geom]) == body


def _geom(shown: np.ndarray) -> int:
    """Return the number of the geom that a pixel of a segmentation shows, -1 where it shows none."""
    return int(shown[0]) if int(shown[1]) == int(load_mujoco().mjtObj.mjOBJ_GEOM) else -1


def _body(model: mujoco.MjModel, name: str) -> int:
    mujoco = load_mujoco()
    return int(mujoco.mj_name2id(model, int(mujoco.mjtObj.mjOBJ_BODY), name))


def _shipped(name: str) -> np.ndarray:
    """Return a reference picture that comes with the project."""
    with Image.open(PROJECT_ROOT / "reference_images" / f"{name}_0.png") as picture:
        return np.asarray(picture.convert("RGB"))
