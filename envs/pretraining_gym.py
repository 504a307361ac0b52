"""Frames with exact labels from a user's own gymnasium environment, for pretraining the ``tiny`` masker.

How labels reach the masks. Every ``step()`` of the environment returns, beside a picture, the mask of the
object that a policy needs to see::

    info["foreground"]   bool (H, W), true where the object is visible; needed
    info["parts"]        uint8 (H, W), 2 where the object's second part is visible; optional

H and W are the picture's. The picture is ``obs["pixels"]``, or the observation itself where that is an image,
or else ``env.render()`` of an environment made with ``render_mode="rgb_array"``: uint8 (H, W, 3), RGB. Both
are reduced to 84x84, the picture by area and the mask by majority. The labels become 2 for the object, 3 for
its second part and 0 for the rest, which training replaces by other backgrounds and covers by other objects.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import gymnasium
import numpy as np
from gymnasium import spaces

from common.errors import ConfigError, InputError, SamgError
from common.seeding import counter_rng, derive_seed
from envs.pretraining_frames import PART, SKY

_SMALLEST = 12  # frames that show fewer pixels of the object are dropped, as in ``pretraining_frames``
_KEPT = 0.2  # share of an episode's steps whose frames are kept
_HOPELESS = 200  # frames without the object, from the first on, after which no other is tried
_MASK_CURE = "Every step() must return info['foreground']: bool (H, W), true where the object is visible."


@dataclass(frozen=True)
class GymDomain:
    """A domain that a gymnasium environment makes.

    Attributes:
        name: short, for messages and records.
        env_id: as ``gymnasium.make`` takes it: ``module:id`` or ``id``.
    """

    name: str
    env_id: str

    @classmethod
    def parse(cls, entry: str) -> GymDomain:
        """Read ``id``, ``module:id`` or ``name=module:id``; without a name, the id is the name.

        Raises:
            ConfigError: the entry has another form.
        """
        name, equals, env_id = entry.rpartition("=")
        name = name if equals else env_id.rpartition(":")[2]
        module, colon, bare = env_id.rpartition(":")
        if not name or not bare or bool(module) != bool(colon) or ":" in module or "=" in name:
            raise ConfigError(
                f"'{entry}' names no environment.",
                "Write id, module:id or name=module:id, such as hand=my_package.envs:MyHand-v0.",
            )
        return cls(name, env_id)

    @property
    def stem(self) -> str:
        """What its files are called: safe in every file system, another one for every name and id."""
        digest = hashlib.sha256(f"{self.name}={self.env_id}".encode()).hexdigest()[:8]
        return f"{re.sub(r'[^A-Za-z0-9_.-]', '_', self.name).lstrip('.')}-{digest}"

    @property
    def body(self) -> str:
        """What it shares with no other domain."""
        return self.name

    def check(self) -> None:
        """Make the environment, take one step and look at picture and mask; see ``collect`` for errors."""
        with contextlib.closing(_Rollouts(self, 0, 84)) as rollouts:
            next(rollouts.views())

    def collect(self, count: int, seed: int, size: int = 84) -> dict[str, np.ndarray]:
        """Collect ``count`` frames in which the object is visible; see ``collect_gym``."""
        frames: list[np.ndarray] = []
        labels: list[np.ndarray] = []
        with contextlib.closing(_Rollouts(self, seed, size)) as rollouts:
            for tried, (frame, label) in enumerate(rollouts.views(), 1):
                if (label != SKY).sum() >= _SMALLEST:
                    frames.append(frame)
                    labels.append(label)
                if len(frames) == count:
                    break
                if tried > 20 * count + 100 or (tried >= _HOPELESS and not frames):
                    raise InputError(
                        f"Domain '{self.name}' shows at least {_SMALLEST} pixels of its object in only "
                        f"{len(frames)} of {tried} frames.",
                        "Check the camera and info['foreground'], which must be true on the object.",
                    )
        return {"clean": np.stack(frames), "labels": np.stack(labels)}


def collect_gym(entry: str, count: int, seed: int, size: int = 84) -> dict[str, np.ndarray]:
    """Collect frames of random behaviour: episodes of uniform and of slowly drifting actions.

    Args:
        entry: see ``GymDomain.parse``.
        count: how many frames, at least one.
        seed: of episodes and actions.
        size: height and width of the result.

    Returns:
        ``clean``: uint8 (count, size, size, 3); ``labels``: uint8 (count, size, size), see the module.

    Raises:
        ConfigError: the environment is unknown, or its module cannot be imported.
        InputError: it fails, gives no usable picture or mask, or hardly ever shows its object.
    """
    return GymDomain.parse(entry).collect(count, seed, size)


class _Rollouts:
    """One environment, its episodes and what is seen in them."""

    def __init__(self, domain: GymDomain, seed: int, size: int) -> None:
        self._domain, self._seed, self._size = domain, seed, size
        self._rng = counter_rng(seed, f"gym/{domain.name}")
        self._env = _make(domain)
        try:
            with _blame(domain, "reset()"):
                observation, _ = self._env.reset(seed=seed)
            self._rendered = _picture_in(observation) is None
            if self._rendered:
                self._env.close()
                self._env = _make(domain, render_mode="rgb_array")
            self._actions = _Actions(self._env.action_space, self._rng)
        except BaseException:
            self._env.close()
            raise

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    def views(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield frames uint8 (size, size, 3) and labels uint8 (size, size) without end."""
        name, rng = self._domain.name, self._rng
        for episode in itertools.count():
            with _blame(self._domain, "reset()"):
                self._env.reset(seed=derive_seed(self._seed, f"gym/{name}", episode))
            self._actions.begin()
            for step in range(12 * int(rng.integers(1, 9))):
                with _blame(self._domain, "step()"):
                    observation, _, terminated, truncated, info = self._env.step(self._actions.next())
                if step == 0 or rng.random() < _KEPT:
                    yield self._view(observation, info)
                if terminated or truncated:
                    break

    def _view(self, observation: Any, info: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        name = self._domain.name
        if "foreground" not in info:
            raise InputError(f"Domain '{name}' gives no masks: info has no 'foreground'.", _MASK_CURE)
        if self._rendered:
            with _blame(self._domain, "render()"):
                frame: Any = self._env.render()
        else:
            frame = _picture_in(observation)
        picture = isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and frame.shape[2:] == (3,)
        if not picture or frame.size == 0:
            raise InputError(
                f"Domain '{name}' shows {_what(frame)}, expected uint8 (H, W, 3).",
                "Return an RGB picture as obs['pixels'] or as the observation, or support "
                "render_mode='rgb_array'.",
            )
        mask, parts = info["foreground"], info.get("parts")
        _check_map(name, "foreground", mask, np.dtype(bool), frame)
        if parts is not None:
            _check_map(name, "parts", parts, np.dtype(np.uint8), frame)
        second = mask & (parts == 2) if parts is not None else np.zeros_like(mask)
        shares = [_resized(part.astype(np.float32), self._size) for part in (mask, second)]
        # A pixel belongs to the object when at least half of it does, and to the larger of the two parts.
        label = np.where(2 * shares[1] > shares[0], PART + 1, PART)
        labels = np.where(shares[0] >= 0.5, label, SKY).astype(np.uint8)
        return _resized(frame, self._size), labels


class _Actions:
    """Random actions of any space; every other episode, on average, they drift or are held for a while."""

    def __init__(self, space: spaces.Space[Any], rng: np.random.Generator) -> None:
        self._space, self._rng = space, rng
        space.seed(int(rng.integers(2**31)))
        self._smooth, self._held = False, 0
        self._last: Any = None
        if isinstance(space, spaces.Box):
            low, high = np.isfinite(space.low), np.isfinite(space.high)
            self._low = np.where(low, space.low, np.where(high, space.high - 2.0, -1.0))
            self._high = np.where(high, space.high, self._low + 2.0)

    def begin(self) -> None:
        """Begin an episode."""
        self._smooth, self._held, self._last = bool(self._rng.random() < 0.6), 0, None

    def next(self) -> Any:
        """Return the next action."""
        if isinstance(self._space, spaces.Box):
            return self._drift(self._space)
        if self._held == 0:
            self._last = self._space.sample()
            self._held = int(self._rng.integers(1, 13)) if self._smooth else 1
        self._held -= 1
        return self._last

    def _drift(self, space: spaces.Box) -> np.ndarray:
        fresh = self._rng.uniform(self._low, self._high)
        if self._smooth and self._last is not None:
            step = 0.15 * (self._high - self._low) * self._rng.normal(size=space.shape)
            fresh = np.clip(self._last + step, self._low, self._high)
        self._last = fresh
        whole = np.issubdtype(space.dtype, np.integer)
        return (np.rint(fresh) if whole else fresh).astype(space.dtype)


def _make(domain: GymDomain, **options: Any) -> gymnasium.Env[Any, Any]:
    module, _, env_id = domain.env_id.rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except Exception as error:  # whatever importing a user's module may raise
            raise ConfigError(
                f"Domain '{domain.name}': module '{module}' cannot be imported ({_say(error)}).",
                "Install it, or name the folder that holds it in PYTHONPATH.",
            ) from error
    try:
        gymnasium.spec(env_id)
    except gymnasium.error.Error as error:
        raise ConfigError(
            f"Domain '{domain.name}': {error}",
            "Write module:id, where importing the module registers the environment.",
        ) from error
    with _blame(domain, f"gymnasium.make('{env_id}'{''.join(f', {k}={v!r}' for k, v in options.items())})"):
        return gymnasium.make(env_id, disable_env_checker=True, **options)


@contextlib.contextmanager
def _blame(domain: GymDomain, what: str) -> Iterator[None]:
    """Turn whatever a user's environment raises into an error that names it."""
    try:
        yield
    except SamgError:
        raise
    except Exception as error:
        raise InputError(
            f"Domain '{domain.name}': {what} fails ({_say(error)}).",
            "Set SAMG_DEBUG=1 to see where; an environment is registered with all arguments that it needs.",
        ) from error


def _say(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _picture_in(observation: Any) -> Any:
    """Return what an observation shows: ``pixels``, or itself where it has an image's three axes, or None."""
    if isinstance(observation, Mapping):
        return observation.get("pixels")
    return observation if isinstance(observation, np.ndarray) and observation.ndim == 3 else None


def _what(value: Any) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"


def _check_map(name: str, key: str, value: Any, dtype: np.dtype[Any], frame: np.ndarray) -> None:
    if not isinstance(value, np.ndarray) or value.dtype != dtype or value.shape != frame.shape[:2]:
        raise InputError(
            f"info['{key}'] of domain '{name}' is {_what(value)}, expected {dtype} {frame.shape[:2]}, the "
            "height and width of its picture.",
            _MASK_CURE
            if key == "foreground"
            else "Give 2 where the second part is visible, or leave it out.",
        )


def _resized(image: np.ndarray, size: int) -> np.ndarray:
    if image.shape[:2] == (size, size):
        return image.copy()
    way = cv2.INTER_AREA if min(image.shape[:2]) >= size else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (size, size), interpolation=way))
