"""What is done of an evaluation that has not finished: kept beside the result, whole after every episode.

An episode is a pure function of the conditions and its index, so an evaluation that was interrupted goes on
with the episodes that are missing and ends with the same result. The file says which conditions its episodes
belong to; under others it is refused.
"""

from __future__ import annotations

import base64
import dataclasses
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from common.errors import ConfigError, InputError
from common.files import read_json, write_json
from evaluation.evaluate import EpisodeResult, StepView
from evaluation.schema import field_problem

VERSION = 1
SUFFIX = ".partial"
_CURE = "Add --overwrite to begin this level anew, or choose another folder with --out."
_LONGEST = 40  # characters of a value in an error message


@dataclass(frozen=True)
class _Content:
    """The fields of the file."""

    version: int
    identity: dict[str, Any]
    episodes: list[dict[str, Any]]
    random_returns: dict[str, Any]
    view: dict[str, Any] | None


class Partial:
    """The finished episodes of one level.

    Args:
        path: of the file, which need not exist.
        identity: what the episodes belong to, as JSON values.

    Attributes:
        episodes: the results that are there, in the order in which they ended.
        random_returns: episode -> return of uniform random actions.
        view: the frame that was kept for the picture; None before there is one.
    """

    def __init__(self, path: Path, identity: dict[str, Any]) -> None:
        self.path = path
        self.episodes: list[EpisodeResult] = []
        self.random_returns: dict[int, float] = {}
        self.view: StepView | None = None
        self._identity = plain(identity)

    @classmethod
    def open(cls, path: Path, identity: dict[str, Any], overwrite: bool) -> Partial:
        """Read what is there for these conditions.

        Args:
            path: of the file; where there is none, nothing has been done yet.
            identity: of this evaluation.
            overwrite: begin anew where the file belongs to something else, or is damaged.

        Raises:
            ConfigError: the file belongs to something else, and ``overwrite`` is not set.
            InputError: it is damaged, and ``overwrite`` is not set.
        """
        partial = cls(path, identity)
        if not path.exists():
            return partial
        try:
            partial._read()
        except (ConfigError, InputError):
            if not overwrite:
                raise
            return cls(path, identity)
        return partial

    def add_episode(self, result: EpisodeResult, view: StepView | None = None) -> None:
        """Keep a finished episode, and the frame for the picture where it is known."""
        self.episodes.append(result)
        self.view = view or self.view
        self.save()

    def add_random(self, episode: int, value: float) -> None:
        """Keep the return of an episode of random actions."""
        self.random_returns[episode] = value
        self.save()

    def save(self) -> None:
        """Write the file; it is whole, or as it was before."""
        content = _Content(
            version=VERSION,
            identity=self._identity,
            episodes=[dataclasses.asdict(result) for result in self.episodes],
            random_returns={str(episode): value for episode, value in self.random_returns.items()},
            view=None if self.view is None else _pack(self.view),
        )
        write_json(self.path, dataclasses.asdict(content), kind="result")

    def remove(self) -> None:
        """Remove the file: the evaluation has ended."""
        self.path.unlink(missing_ok=True)

    def _read(self) -> None:
        content = read_json(self.path, "unfinished evaluation")
        problem = field_problem(content, _Content)
        if problem is None and content["version"] != VERSION:
            problem = f"version is {content['version']}, expected {VERSION}"
        if problem is not None:
            raise _damaged(self.path, problem)
        differing = differences(content["identity"], self._identity)
        if differing:
            raise ConfigError(
                f"{self.path} holds an unfinished evaluation under other conditions: {'; '.join(differing)}.",
                _CURE,
            )
        for record in content["episodes"]:
            problem = field_problem(record, EpisodeResult, "episodes.")
            if problem is not None:
                raise _damaged(self.path, problem)
            self.episodes.append(EpisodeResult(**record))
        try:
            self.random_returns = {int(key): float(value) for key, value in content["random_returns"].items()}
            self.view = None if content["view"] is None else _unpack(content["view"])
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise _damaged(self.path, f"random_returns or view cannot be read ({error})") from error


def plain(value: Any) -> Any:
    """Return ``value`` as JSON gives it back: tuples become lists, keys text."""
    return json.loads(json.dumps(value, allow_nan=False))


def differences(theirs: Any, ours: Any, name: str = "", most: int = 3) -> list[str]:
    """Say where two JSON values differ, at most ``most`` times, such as ``seed is 0 there and 1 here``."""
    return [text for text, _ in zip(_differences(theirs, ours, name), range(most), strict=False)]


def _differences(theirs: Any, ours: Any, name: str) -> Iterator[str]:
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in [*ours, *(key for key in theirs if key not in ours)]:
            yield from _differences(theirs.get(key), ours.get(key), f"{name}.{key}" if name else key)
    elif theirs != ours:
        yield f"{name} is {_short(theirs)} there and {_short(ours)} here"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 4]} ..."


def _damaged(path: Path, problem: str) -> InputError:
    return InputError(f"{path} is not a valid unfinished evaluation: {problem}.", _CURE)


def _pack(view: StepView) -> dict[str, Any]:
    """Return a frame as JSON values; its pictures as PNG in base64, several views in one column."""
    packed: dict[str, Any] = {"episode": view.episode, "step": view.step}
    several = view.mask.ndim == 3
    if several:
        packed["views"] = len(view.mask)
    for name in ("raw", "masked", "mask", "foreground"):
        array = getattr(view, name)
        packed[name] = None if array is None else _to_text(np.concatenate(array) if several else array)
    return packed


def _unpack(packed: dict[str, Any]) -> StepView:
    raw, masked, mask = (_to_views(packed, name) for name in ("raw", "masked", "mask"))
    foreground = None if packed["foreground"] is None else _to_views(packed, "foreground") > 0
    return StepView(int(packed["episode"]), int(packed["step"]), raw, masked, mask > 0, foreground)


def _to_views(packed: dict[str, Any], name: str) -> np.ndarray:
    array = _to_array(packed[name])
    return np.stack(np.split(array, int(packed["views"]))) if "views" in packed else array


def _to_text(array: np.ndarray) -> str:
    buffer = io.BytesIO()
    pixels = array.astype(np.uint8) * 255 if array.dtype == np.bool_ else array
    Image.fromarray(pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _to_array(text: str) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(text))) as picture:
        return np.asarray(picture)
