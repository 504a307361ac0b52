"""Self-made background pictures with the statistics of real scenes: rooms, streets, foliage, clutter.

The study behind this masker found that the background generator decides everything for video levels: noise,
gradients and stripes are not enough, objects in natural palettes under soft light are. All pictures are drawn
from random numbers alone.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import cv2
import numpy as np
from numpy.random import Generator

from common.seeding import counter_rng

CANVAS = 224  # pictures are drawn at this size and reduced, so that edges are antialiased
SIZE = 112  # stored size; training takes crops of it

Colour = tuple[float, float, float]


def background(seed: int, index: int) -> np.ndarray:
    """Return picture ``index``: uint8 (112, 112, 3) RGB."""
    rng = counter_rng(seed, "backgrounds", index)
    palette = _palette(rng)
    picture = np.ascontiguousarray(_BASES[int(rng.integers(len(_BASES)))](rng, palette), np.float32)
    for _ in range(int(rng.integers(0, 4))):
        _CLUTTER[int(rng.integers(len(_CLUTTER)))](picture, rng, palette)
    picture = _light(picture, rng)
    size = int(rng.choice([SIZE, SIZE, 80, 150]))  # some softer, some sharper than the rest
    small = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
    small = cv2.resize(small, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR if size < SIZE else cv2.INTER_AREA)
    if rng.random() < 0.3:
        small = small + rng.normal(0, rng.uniform(1, 9), small.shape)
    return np.clip(small, 0, 255).astype(np.uint8)


def background_bank(seed: int, count: int) -> np.ndarray:
    """Return pictures 0 to ``count`` - 1: uint8 (count, 112, 112, 3)."""
    return np.stack([background(seed, index) for index in range(count)])


def _palette(rng: Generator) -> list[Colour]:
    """Draw 4 to 7 colours that belong together; most families are earthy, grey or green, few are vivid."""
    family = rng.random()
    hue = rng.random()
    colours = []
    for _ in range(int(rng.integers(4, 8))):
        if family < 0.3:  # wood, skin, sand, brick
            h, s, v = rng.normal(0.075, 0.03), rng.uniform(0.15, 0.75), rng.uniform(0.12, 0.95)
        elif family < 0.5:  # walls, concrete, overcast
            h, s, v = rng.random(), rng.uniform(0.0, 0.15), rng.uniform(0.08, 1.0)
        elif family < 0.68:  # plants and sky
            h, s, v = rng.choice([0.25, 0.33, 0.57, 0.1]), rng.uniform(0.1, 0.7), rng.uniform(0.12, 0.9)
            h = h + rng.normal(0, 0.025)
        elif family < 0.82:  # one dominant hue
            h, s, v = hue + rng.normal(0, 0.03), rng.uniform(0.1, 0.8), rng.uniform(0.1, 0.95)
        elif family < 0.92:  # muted mix
            h, s, v = rng.random(), rng.uniform(0.05, 0.45), rng.uniform(0.1, 0.95)
        else:  # vivid
            h, s, v = rng.random(), rng.uniform(0.4, 1.0), rng.uniform(0.3, 1.0)
        red, green, blue = colorsys.hsv_to_rgb(float(h) % 1.0, float(s), float(v))
        colours.append((255 * red, 255 * green, 255 * blue))
    return colours


def _pick(rng: Generator, palette: list[Colour], jitter: float = 18.0) -> Colour:
    base = np.asarray(palette[int(rng.integers(len(palette)))]) + rng.normal(0, jitter) + rng.normal(0, 5, 3)
    red, green, blue = np.clip(base, 0, 255)
    return float(red), float(green), float(blue)


def noise(rng: Generator, octaves: tuple[int, ...] = (4, 8, 16, 32, 64), falloff: float = 0.6) -> np.ndarray:
    """Return smooth noise of several scales, float32 (CANVAS, CANVAS) in [0, 1]."""
    total = np.zeros((CANVAS, CANVAS), np.float32)
    stretch = rng.choice([1, 1, 2, 4])
    for level, cells in enumerate(octaves):
        across = max(2, cells // stretch)
        grid = rng.random((cells, across) if rng.random() < 0.5 else (across, cells)).astype(np.float32)
        total += falloff**level * cv2.resize(grid, (CANVAS, CANVAS), interpolation=cv2.INTER_CUBIC)
    total -= total.min()
    return total / max(float(total.max()), 1e-6)


def _mix(first: Colour, second: Colour, share: np.ndarray) -> np.ndarray:
    share = share[..., None].astype(np.float32)
    return np.asarray(first, np.float32) * (1 - share) + np.asarray(second, np.float32) * share


def _gradient(rng: Generator) -> np.ndarray:
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0:CANVAS, 0:CANVAS].astype(np.float32) / CANVAS - 0.5
    return np.clip(0.5 + np.cos(angle) * x + np.sin(angle) * y, 0, 1)


def _texture(rng: Generator, palette: list[Colour]) -> np.ndarray:
    """Rock, sand, water, cloth: layered noise between two or three colours."""
    picture = _mix(_pick(rng, palette), _pick(rng, palette), noise(rng))
    if rng.random() < 0.6:
        fine = noise(rng, (32, 64, 112), 0.9)
        picture = picture * (0.75 + 0.5 * fine[..., None])
    return picture


def _room(rng: Generator, palette: list[Colour]) -> np.ndarray:
    """A wall, a floor in perspective with boards or tiles, a skirting line, openings with light."""
    horizon = int(rng.uniform(0.35, 0.8) * CANVAS)
    picture = _mix(_pick(rng, palette), _pick(rng, palette), 0.6 * _gradient(rng))
    y, x = np.mgrid[0:CANVAS, 0:CANVAS].astype(np.float32)
    depth = 1.0 / np.maximum(y - horizon + 6, 1e-3)
    across = (x - rng.uniform(0, CANVAS)) * depth * rng.uniform(3, 14)
    along = depth * rng.uniform(60, 400)
    tiles = (np.floor(across) + np.floor(along) * rng.integers(0, 2)) % 2
    floor = _mix(_pick(rng, palette), _pick(rng, palette), tiles * rng.uniform(0.05, 0.6))
    grain = noise(rng, (8, 32, 112), 0.9)[..., None]
    picture = np.where((y > horizon)[..., None], floor * (0.8 + 0.4 * grain), picture)
    if rng.random() < 0.7:
        cv2.line(picture, (0, horizon), (CANVAS, horizon), _pick(rng, palette), int(rng.integers(1, 7)))
    for _ in range(int(rng.integers(1, 5))):
        _frame(picture, rng, palette)
    return picture


def _landscape(rng: Generator, palette: list[Colour]) -> np.ndarray:
    """Layered ridges under a sky with clouds."""
    picture = _mix(_pick(rng, palette), _pick(rng, palette), 0.6 * _gradient(rng) + 0.4 * noise(rng))
    for layer in range(int(rng.integers(1, 5))):
        walk = np.cumsum(rng.normal(0, 2.0, CANVAS)).reshape(1, -1)
        height = cv2.GaussianBlur(walk, (0, 0), float(rng.uniform(1, 6))).ravel()
        top = (0.3 + 0.18 * layer + rng.uniform(-0.05, 0.1)) * CANVAS + height - height.mean()
        y = np.arange(CANVAS)[:, None]
        ground = _mix(_pick(rng, palette), _pick(rng, palette), noise(rng, (8, 16, 48, 112), 0.8))
        picture = np.where((y > top[None])[..., None], ground, picture)
    return picture


def _boards(rng: Generator, palette: list[Colour]) -> np.ndarray:
    """Planks, bricks or tiles with grain and joints."""
    picture = _mix(_pick(rng, palette), _pick(rng, palette), noise(rng, (4, 112, 112), 0.8))
    step = int(rng.integers(8, 50))
    brick = rng.random() < 0.5
    joint = _pick(rng, palette, 40)
    for row, y in enumerate(range(0, CANVAS, step)):
        shade = rng.uniform(0.8, 1.2)
        picture[y : y + step] *= shade
        cv2.line(picture, (0, y), (CANVAS, y), joint, 1 + int(rng.integers(0, 2)))
        if brick:
            for x in range((row % 2) * step, CANVAS, 2 * step):
                cv2.line(picture, (x, y), (x, y + step), joint, 1)
    if rng.random() < 0.5:
        return np.ascontiguousarray(picture.transpose(1, 0, 2))
    return picture


def _leaves(rng: Generator, palette: list[Colour]) -> np.ndarray:
    """A picture full of overlapping shaded ellipses or polygons: foliage, crowds, pebbles."""
    picture = _texture(rng, palette)
    largest = float(rng.uniform(5, 40))
    for _ in range(int(rng.integers(60, 260))):
        _blob(picture, rng, palette, largest)
    return picture


def _blob(picture: np.ndarray, rng: Generator, palette: list[Colour], largest: float = 40.0) -> None:
    centre = tuple(int(value) for value in rng.integers(-10, CANVAS + 10, 2))
    axes = np.maximum(rng.exponential(largest / 2, 2), 1.5)
    colour = _pick(rng, palette)
    angle = float(rng.uniform(0, 180))
    size = (int(axes[0]) + 1, int(axes[1]) + 1)
    if rng.random() < 0.7:
        cv2.ellipse(picture, centre, size, angle, 0, 360, colour, -1, cv2.LINE_AA)
        light = tuple(min(255.0, value * 1.25 + 8) for value in colour)
        inner = (max(1, size[0] // 2), max(1, size[1] // 2))
        offset = (centre[0] - size[0] // 5, centre[1] - size[1] // 5)
        cv2.ellipse(picture, offset, inner, angle, 0, 360, light, -1, cv2.LINE_AA)
    else:
        corners = np.asarray(centre) + rng.normal(0, 1, (int(rng.integers(3, 7)), 2)) * axes
        cv2.fillPoly(picture, [corners.astype(np.int32)], colour, cv2.LINE_AA)


def _blobs(picture: np.ndarray, rng: Generator, palette: list[Colour]) -> None:
    for _ in range(int(rng.integers(2, 25))):
        _blob(picture, rng, palette, float(rng.uniform(6, 60)))


def _frame(picture: np.ndarray, rng: Generator, palette: list[Colour]) -> None:
    """Furniture, windows, pictures: shaded rectangles with borders, bars and a cast shadow."""
    x, y = (int(value) for value in rng.integers(-20, CANVAS, 2))
    w, h = (int(value) for value in rng.integers(8, 120, 2))
    if rng.random() < 0.4:
        cv2.rectangle(picture, (x + 4, y + 4), (x + w + 5, y + h + 5), _pick(rng, [(20.0, 18.0, 16.0)]), -1)
    cv2.rectangle(picture, (x, y), (x + w, y + h), _pick(rng, palette), -1)
    patch = picture[max(0, y) : y + h, max(0, x) : x + w]
    if patch.size and rng.random() < 0.6:
        ramp = np.linspace(rng.uniform(0.6, 1), rng.uniform(1, 1.4), patch.shape[1])[None, :, None]
        patch *= ramp if rng.random() < 0.5 else ramp.mean()
    border = _pick(rng, palette, 40)
    if rng.random() < 0.6:
        cv2.rectangle(picture, (x, y), (x + w, y + h), border, int(rng.integers(1, 6)))
    if rng.random() < 0.35:
        for bar in range(x, x + w, int(rng.integers(6, 40))):
            cv2.line(picture, (bar, y), (bar, y + h), border, int(rng.integers(1, 4)))


def _frames(picture: np.ndarray, rng: Generator, palette: list[Colour]) -> None:
    for _ in range(int(rng.integers(1, 9))):
        _frame(picture, rng, palette)


def _bars(picture: np.ndarray, rng: Generator, palette: list[Colour]) -> None:
    """Banisters, fences, trunks, cables: bundles of nearly parallel lines."""
    angle, colour = rng.uniform(0, np.pi), _pick(rng, palette)
    thickness = int(rng.integers(1, 12))
    for _ in range(int(rng.integers(2, 14))):
        start = rng.uniform(-50, CANVAS + 50, 2)
        tilt = angle + rng.normal(0, 0.04)
        reach = rng.uniform(30, 300) * np.asarray([np.cos(tilt), np.sin(tilt)])
        ends = [tuple(int(v) for v in start - reach / 2), tuple(int(v) for v in start + reach / 2)]
        cv2.line(picture, ends[0], ends[1], colour, thickness, cv2.LINE_AA)
        if thickness > 4:
            lit = tuple(min(255.0, v * 1.3 + 10) for v in colour)
            cv2.line(picture, ends[0], ends[1], lit, thickness // 3, cv2.LINE_AA)


def _curves(picture: np.ndarray, rng: Generator, palette: list[Colour]) -> None:
    for _ in range(int(rng.integers(1, 8))):
        steps = rng.normal(0, 1, (60, 2))
        walk = np.cumsum(np.cumsum(steps, 0) * 0.12, 0) * rng.uniform(1, 5) + rng.uniform(0, CANVAS, 2)
        thick = int(rng.integers(1, 8))
        cv2.polylines(picture, [walk.astype(np.int32)], False, _pick(rng, palette), thick, cv2.LINE_AA)


def _text(picture: np.ndarray, rng: Generator, palette: list[Colour]) -> None:
    letters = "".join(chr(int(c)) for c in rng.integers(65, 91, int(rng.integers(2, 9))))
    where = tuple(int(v) for v in rng.integers(0, CANVAS, 2))
    scale, thick = float(rng.uniform(0.4, 2.2)), int(rng.integers(1, 5))
    stencil = np.zeros((CANVAS, CANVAS), np.uint8)
    cv2.putText(stencil, letters, where, int(rng.integers(0, 4)), scale, 255, thick, cv2.LINE_AA)
    share = stencil[..., None].astype(np.float32) / 255
    picture += share * (np.asarray(_pick(rng, palette, 60), np.float32) - picture)


def _figures(picture: np.ndarray, rng: Generator, palette: list[Colour]) -> None:
    """People and animals from afar: a body, a head, jointed limbs in cloth and skin colours."""
    for _ in range(int(rng.integers(1, 4))):
        x, y = rng.uniform(20, CANVAS - 20, 2)
        scale = float(rng.uniform(8, 40))
        cloth, skin = _pick(rng, palette), _pick(rng, [(200.0, 150.0, 120.0), (110.0, 75.0, 55.0)])
        axes = (int(scale * 0.55) + 1, int(scale) + 1)
        cv2.ellipse(picture, (int(x), int(y)), axes, float(rng.normal(0, 15)), 0, 360, cloth, -1)
        cv2.circle(picture, (int(x), int(y - 1.4 * scale)), int(scale * 0.45) + 1, skin, -1, cv2.LINE_AA)
        for _ in range(4):
            angle = rng.uniform(0, np.pi)
            knee = np.asarray([x + rng.normal(0, 0.4) * scale, y + 0.6 * scale])
            foot = knee + 1.3 * scale * np.asarray([np.cos(angle) * 0.6, abs(np.sin(angle))])
            width = max(1, int(scale * 0.3))
            path = np.asarray([[x, y], knee, foot]).astype(np.int32)
            cv2.polylines(picture, [path], False, cloth if rng.random() < 0.6 else skin, width, cv2.LINE_AA)


def _light(picture: np.ndarray, rng: Generator) -> np.ndarray:
    """Soft light: a lamp or window glow, a shadow across, vignetting, a warm or cool cast, blur by depth."""
    if rng.random() < 0.5:
        y, x = np.mgrid[0:CANVAS, 0:CANVAS].astype(np.float32)
        cx, cy = rng.uniform(0, CANVAS, 2)
        fall = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * rng.uniform(30, 120) ** 2))
        picture = picture * (rng.uniform(0.5, 0.9) + rng.uniform(0.3, 0.9) * fall[..., None])
    if rng.random() < 0.25:
        picture = picture * (0.5 + 0.5 * (noise(rng, (3, 6)) > 0.45)[..., None])
    if rng.random() < 0.5:
        picture = picture * np.asarray(rng.normal(1, 0.08, 3), np.float32)
    if rng.random() < 0.3:
        picture = cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.8, 4)))
    contrast = rng.uniform(0.6, 1.25)
    return np.clip((picture - 128) * contrast + 128 + rng.normal(0, 15), 0, 255).astype(np.float32)


_BASES: tuple[Callable[[Generator, list[Colour]], np.ndarray], ...] = (
    _texture,
    _room,
    _room,
    _landscape,
    _boards,
    _leaves,
)
_CLUTTER: tuple[Callable[[np.ndarray, Generator, list[Colour]], None], ...] = (
    _blobs,
    _frames,
    _frames,
    _bars,
    _bars,
    _curves,
    _text,
    _figures,
)
