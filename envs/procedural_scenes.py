"""Pictures of made-up places, in layers that a camera can move through: landscapes, rooms, gardens.

They need not convince anyone; they share with real videos what matters to an agent that looks at them:
spectra that fall with frequency, natural palettes, straight edges, thin structures, uneven light.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Layer:
    """One plane of a scene.

    Attributes:
        image: float32 (C, C, 3) RGB in [0, 255].
        alpha: float32 (C, C) opacity in [0, 1]; None for the opaque background.
        nearness: how much faster than the background it moves past the camera; 1 for the background.
    """

    image: np.ndarray
    alpha: np.ndarray | None
    nearness: float


_PALETTE = {  # share, then ranges of hue (degrees), saturation, value
    "wood": (0.30, (12, 40), (0.30, 0.75), (0.25, 0.80)),
    "pale": (0.26, (25, 60), (0.02, 0.20), (0.65, 0.98)),
    "dark": (0.16, (0, 360), (0.05, 0.40), (0.05, 0.28)),
    "green": (0.10, (70, 130), (0.25, 0.60), (0.20, 0.60)),
    "blue": (0.10, (195, 235), (0.15, 0.60), (0.35, 0.85)),
    "accent": (0.08, (0, 360), (0.60, 0.95), (0.45, 0.90)),
}


def noise(rng: np.random.Generator, size: int, exponent: float, stretch: float = 1.0) -> np.ndarray:
    """Return tileable noise with spectrum 1/f^exponent: float32 (size, size), mean 0, deviation 1.

    ``stretch`` above 1 draws its structures out along x.
    """
    fy = np.fft.fftfreq(size)[:, None]
    fx = np.fft.rfftfreq(size)[None] * stretch
    radius = np.hypot(fx, fy)
    radius[0, 0] = np.inf
    field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((size, size))) / radius**exponent, s=(size, size))
    return ((field - field.mean()) / field.std()).astype(np.float32)


def _hsv(hue: float, saturation: float, value: float) -> np.ndarray:
    """Return float32 (3,) RGB in [0, 255]; hue in degrees."""
    pixel = np.array([[[hue % 360, saturation, value]]], np.float32)
    return cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0] * 255


def _colour(rng: np.random.Generator, *kinds: str) -> np.ndarray:
    """Return a colour of one of the palette's kinds, of all of them (by their shares) when none is named."""
    names = list(kinds or _PALETTE)
    shares = np.array([_PALETTE[name][0] for name in names])
    _, *ranges = _PALETTE[names[int(rng.choice(len(names), p=shares / shares.sum()))]]
    return _hsv(*(float(rng.uniform(low, high)) for low, high in ranges))


def _gradient(size: int, top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Return a vertical gradient: float32 (size, size, 3)."""
    ramp = np.linspace(0, 1, size, dtype=np.float32)[:, None, None]
    column = top * (1 - ramp) + bottom * ramp
    return np.repeat(column, size, axis=1).astype(np.float32)


def _lit(rng: np.random.Generator, image: np.ndarray, grain: float = 0.05) -> np.ndarray:
    """Return the picture under uneven light and with fine grain."""
    size = image.shape[0]
    light = 1 + 0.12 * noise(rng, size, 1.8) + grain * noise(rng, size, 0.6)
    return np.clip(image * light[..., None], 0, 255).astype(np.float32)


def _polygon(image: np.ndarray, points: list[tuple[float, float]], colour: np.ndarray) -> None:
    """Fill a polygon whose corners are (x, y) in shares of the picture."""
    corners = np.round(np.array(points) * image.shape[0] * 16).astype(np.int32)
    cv2.fillPoly(image, [corners], colour.tolist(), lineType=cv2.LINE_8, shift=4)


def _line(
    image: np.ndarray, start: tuple[float, float], end: tuple[float, float], colour: np.ndarray, width: float
) -> None:
    """Draw a line between (x, y) in shares of the picture; ``width`` is a share too."""
    size = image.shape[0]
    ends = [(round(x * size), round(y * size)) for x, y in (start, end)]
    cv2.line(image, ends[0], ends[1], colour.tolist(), max(1, round(width * size)))


def _box(
    rng: np.random.Generator, image: np.ndarray, x: float, y: float, w: float, h: float, colour: np.ndarray
) -> None:
    """Draw a piece of furniture: front with seams, lit top, dark side, often legs. (x, y): lower left."""
    depth = rng.uniform(0.1, 0.35) * h
    side = depth * rng.choice([-1.0, 1.0])
    if rng.random() < 0.4:
        legs = h * rng.uniform(0.2, 0.6)
        for position in (x + 0.02 * w, x + 0.98 * w):
            _line(image, (position, y), (position, y - legs), colour * 0.5, 0.008)
        y, h = y - legs, h - legs
    top = y - h
    _polygon(image, [(x, y), (x + w, y), (x + w, top), (x, top)], colour)
    lid = [(x, top), (x + w, top), (x + w + side, top - depth), (x + side, top - depth)]
    _polygon(image, lid, np.minimum(colour * 1.25 + 12, 255))
    edge = x + w if side > 0 else x
    _polygon(
        image, [(edge, y), (edge, top), (edge + side, top - depth), (edge + side, y - depth)], colour * 0.6
    )
    for cut in np.linspace(0, 1, int(rng.integers(1, 5)) + 1)[1:-1]:
        _line(image, (x + cut * w, y), (x + cut * w, top), colour * 0.55, 0.004)
        if rng.random() < 0.5:
            _line(image, (x, top + cut * h), (x + w, top + cut * h), colour * 0.55, 0.004)


def _framed(rng: np.random.Generator, image: np.ndarray, x: float, y: float, w: float, h: float) -> None:
    """Hang a window or a picture on the wall; (x, y) is its upper left."""
    frame = _colour(rng, "wood", "pale", "dark")
    _polygon(image, [(x, y), (x + w, y), (x + w, y + h), (x, y + h)], frame)
    rim = 0.012
    inner = (x + rim, y + rim, x + w - rim, y + h - rim)
    if rng.random() < 0.5:
        glass = _hsv(rng.uniform(190, 230), rng.uniform(0, 0.25), rng.uniform(0.9, 1))
    else:
        glass = _colour(rng)
    x0, y0, x1, y1 = inner
    _polygon(image, [(x0, y0), (x1, y0), (x1, y1), (x0, y1)], glass)
    if rng.random() < 0.6:
        _line(image, ((x0 + x1) / 2, y0), ((x0 + x1) / 2, y1), frame, 0.008)
        _line(image, (x0, (y0 + y1) / 2), (x1, (y0 + y1) / 2), frame, 0.008)
    else:
        _polygon(image, [(x0, y1), (x1, y1), (rng.uniform(x0, x1), rng.uniform(y0, y1))], _colour(rng))


def _room_shell(rng: np.random.Generator, size: int) -> np.ndarray:
    """Return walls, floor and ceiling: float32 (size, size, 3)."""
    wall = _colour(rng, "pale", "wood", "blue")
    image = _gradient(size, np.minimum(wall * 1.05, 255), wall * 0.85)
    horizon, ceiling = rng.uniform(0.55, 0.66), rng.uniform(0.2, 0.32)
    corner = rng.uniform(0.25, 0.75)
    slope = rng.uniform(0.05, 0.16)
    side = wall * rng.uniform(0.6, 0.85)
    _polygon(image, [(corner, 0), (1, 0), (1, 1), (corner, 1)], side)
    bright = _hsv(40, rng.uniform(0, 0.1), rng.uniform(0.8, 0.98))
    _polygon(image, [(0, 0), (1, 0), (1, ceiling - slope), (corner, ceiling), (0, ceiling - slope)], bright)
    floor = _colour(rng, "wood", "wood", "pale", "dark")
    _polygon(image, [(0, 1), (1, 1), (1, horizon + slope), (corner, horizon), (0, horizon + slope)], floor)
    for x in np.linspace(-1.5, 2.5, int(rng.integers(12, 40))):
        _line(image, (x, 1.0), (corner + (x - corner) * 0.25, horizon + slope), floor * 0.8, 0.003)
    for x in rng.uniform(0, 1, int(rng.integers(0, 5))):
        centre = (round(x * size), round(rng.uniform(0, ceiling - slope) * size))
        cv2.circle(image, centre, max(1, size // 70), (255, 250, 235), -1)
    return image


def room(rng: np.random.Generator, size: int) -> list[Layer]:
    """Return an interior: shell, windows and pictures, furniture, and a nearer layer that moves past it.

    Args:
        rng: decides everything.
        size: side of the canvas in pixels.
    """
    image = _room_shell(rng, size)
    for _ in range(int(rng.integers(3, 8))):
        w, h = rng.uniform(0.06, 0.2), rng.uniform(0.08, 0.24)
        _framed(rng, image, rng.uniform(0, 1 - w), rng.uniform(0.28, 0.42), w, h)
    for y in np.sort(rng.uniform(0.6, 0.95, int(rng.integers(5, 12)))):
        w, h = rng.uniform(0.07, 0.28), rng.uniform(0.08, 0.26)
        _box(rng, image, rng.uniform(-0.05, 0.95), y, w, h, _colour(rng))
    return [Layer(_lit(rng, image), None, 1.0), _near(rng, size, furniture=True)]


def _near(rng: np.random.Generator, size: int, furniture: bool) -> Layer:
    """Return the layer close to the camera: posts and furniture, or posts and foliage."""
    image = np.zeros((size, size, 3), np.float32)
    marker = np.full(3, -1.0, np.float32)
    image[:] = marker
    for _ in range(int(rng.integers(1, 4))):
        x, colour = rng.uniform(0, 1), _colour(rng, "wood", "pale", "dark")
        if furniture and rng.random() < 0.7:
            w, h = rng.uniform(0.1, 0.3), rng.uniform(0.1, 0.3)
            _box(rng, image, x, rng.uniform(0.8, 1.0), w, h, colour)
        else:
            lean = rng.uniform(-0.05, 0.05)
            _line(image, (x, 1.0), (x + lean, rng.uniform(0, 0.4)), colour, rng.uniform(0.005, 0.05))
    alpha = (image[..., 0] >= 0).astype(np.float32)
    return Layer(_lit(rng, np.maximum(image, 0)), alpha, rng.uniform(1.4, 2.0))


def garden(rng: np.random.Generator, size: int) -> list[Layer]:
    """Return an outdoor place: sky, foliage, a house, grass, trees with thin branches."""
    sky = _hsv(rng.uniform(200, 222), rng.uniform(0.1, 0.55), rng.uniform(0.75, 1.0))
    image = _gradient(size, sky, np.minimum(sky + 50, 255))
    rows = np.linspace(0, 1, size, dtype=np.float32)[:, None]
    hedge = rows + 0.07 * noise(rng, size, 1.3) > rng.uniform(0.35, 0.5)
    leaves = noise(rng, size, 0.9)[..., None]
    image = np.where(hedge[..., None], _colour(rng, "green") * (0.8 + 0.28 * leaves), image).astype(
        np.float32
    )
    for _ in range(int(rng.integers(0, 3))):
        x, y, w, h = (
            rng.uniform(0, 0.7),
            rng.uniform(0.6, 0.72),
            rng.uniform(0.2, 0.45),
            rng.uniform(0.15, 0.3),
        )
        wall, roof = _colour(rng, "pale", "wood", "blue"), _colour(rng, "dark", "wood")
        _polygon(image, [(x, y), (x + w, y), (x + w, y - h), (x, y - h)], wall)
        peak = (x + w * rng.uniform(0.3, 0.7), y - h - rng.uniform(0.08, 0.2))
        _polygon(image, [(x - 0.03, y - h), (x + w + 0.03, y - h), peak], roof)
        for column in np.linspace(x + 0.03, x + w - 0.08, int(rng.integers(1, 5))):
            _framed(rng, image, column, y - 0.75 * h, 0.05, 0.07)
    ground = _colour(rng, "green", "wood", "pale")
    lawn = rows + 0.012 * noise(rng, size, 1.2, stretch=3) > rng.uniform(0.6, 0.72)
    blades = noise(rng, size, 0.5, stretch=2)[..., None]
    image = np.where(lawn[..., None], ground * (0.85 + 0.14 * blades), image).astype(np.float32)
    trees = np.full((size, size, 3), -1.0, np.float32)
    for _ in range(int(rng.integers(1, 6))):
        _tree(rng, trees)
    for y in np.sort(rng.uniform(0.7, 0.95, int(rng.integers(0, 5)))):
        _box(
            rng, trees, rng.uniform(0, 0.9), y, rng.uniform(0.06, 0.2), rng.uniform(0.06, 0.14), _colour(rng)
        )
    alpha = (trees[..., 0] >= 0).astype(np.float32)
    middle = Layer(_lit(rng, np.maximum(trees, 0), 0.12), alpha, rng.uniform(1.1, 1.3))
    return [Layer(_lit(rng, np.clip(image, 0, 255)), None, 1.0), middle, _near(rng, size, furniture=False)]


def _tree(rng: np.random.Generator, image: np.ndarray) -> None:
    """Draw a trunk with branches and, mostly, tufts of leaves."""
    x, foot, height = rng.uniform(0, 1), rng.uniform(0.65, 0.9), rng.uniform(0.3, 0.6)
    bark, leaf = _hsv(30, rng.uniform(0.1, 0.4), rng.uniform(0.12, 0.4)), _colour(rng, "green")
    top = x + rng.uniform(-0.05, 0.05)
    _line(image, (x, foot), (top, foot - height), bark, rng.uniform(0.01, 0.03))
    leafy = rng.random() < 0.7
    for _ in range(int(rng.integers(5, 14))):
        share = rng.uniform(0.35, 1.0)
        root = (x + (top - x) * share, foot - height * share)
        tip = (root[0] + rng.uniform(-0.16, 0.16), root[1] - rng.uniform(0.02, 0.14))
        _line(image, root, tip, bark, 0.006)
        if leafy:
            centre = (round(tip[0] * image.shape[0]), round(tip[1] * image.shape[0]))
            axes = tuple(max(1, round(r * image.shape[0])) for r in rng.uniform(0.02, 0.08, 2))
            tint = leaf * rng.uniform(0.7, 1.25)
            cv2.ellipse(image, centre, axes, float(rng.uniform(0, 180)), 0, 360, tint.tolist(), -1)


def landscape(rng: np.random.Generator, size: int) -> list[Layer]:
    """Return a calm view: a sky by night, dusk or day, clouds or stars, and ridges one behind the other."""
    mood = int(rng.integers(3))
    top, bottom = (
        (_hsv(rng.uniform(190, 235), 0.7, 0.22), _hsv(rng.uniform(160, 200), 0.4, 0.35)),
        (_hsv(rng.uniform(240, 290), 0.4, 0.4), _hsv(rng.uniform(15, 45), 0.6, 0.95)),
        (_hsv(rng.uniform(205, 220), 0.6, 0.85), _hsv(rng.uniform(195, 215), 0.15, 0.98)),
    )[mood]
    sky = _gradient(size, top, bottom)
    if mood == 0:
        stars = rng.integers(0, size, (size, 2))
        sky[stars[:, 0], stars[:, 1]] = rng.uniform(120, 255, (size, 1))
    layers = [Layer(_lit(rng, sky, 0.02), None, 1.0)]
    clouds = np.clip(noise(rng, size, 1.5, stretch=2.0) * 0.5 - rng.uniform(-0.3, 0.5), 0, 0.9)
    white = _gradient(size, np.minimum(bottom + 40, 255), bottom)
    layers.append(Layer(white, clouds.astype(np.float32) * (0.3 if mood == 0 else 1.0), 1.25))
    base = _colour(rng, "green", "wood", "blue", "dark")
    rows = np.linspace(0, 1, size, dtype=np.float32)[:, None]
    ridges = int(rng.integers(2, 5))
    for number in range(ridges):
        share = (number + 1) / ridges
        line = noise(rng, size, 1.6)[0] * (0.06 - 0.035 * share) + 0.5 + 0.22 * share
        alpha = np.clip((rows - line[None]) * size, 0, 1).astype(np.float32)
        shade = (bottom * (1 - share) + base * share) * (0.35 if mood == 0 else 0.9)
        texture = 1 + 0.22 * noise(rng, size, 1.0, stretch=1.5)[..., None]
        layers.append(Layer(np.clip(shade * texture, 0, 255).astype(np.float32), alpha, 1 + 0.35 * share))
    return layers
