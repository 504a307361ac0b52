"""The levels of the DMControl generalisation benchmark: what each perturbs, and how one environment wears it.

``train`` changes nothing. ``color_easy`` and ``color_hard`` give every episode another sky, floor and (in
protocol ``dmcgb``) agent; ``video_easy`` replaces the sky by a clip, ``video_hard`` sky and floor. Two
protocols exist in the literature: ``dmcgb`` (DMC-GB: agent recoloured too, green key) and ``samg`` (RL-ViGen
and SAM-G: agent untouched, black key). Their numbers are not comparable: every result names the protocol.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from typing import Any

from common.errors import unknown_choice
from envs.colors import ColorScene, Palette
from envs.data import ColourTable, clip_digests, find_clips, is_published, load_colours, warn_unless_whole
from envs.procedural import CLIP_COUNT, VERSION, ProceduralClips, procedural_colours
from envs.scene import NullScene, Scene
from envs.video_background import KEYS, ClipBank, VideoFiles, VideoScene

SOURCES = ("dmcgb", "procedural")


@dataclass(frozen=True)
class Level:
    """Everything a level perturbs.

    Attributes:
        name: as results and file names write it.
        background_color: difficulty (``easy``, ``hard``) of the colours of sky and floor; None leaves them.
        agent_color: difficulty of the agent's colour, where the protocol recolours it; None leaves it.
        video: difficulty of the clips; None shows none.
        video_floor: the clips replace the floor as well as the sky.
    """

    name: str
    background_color: str | None = None
    agent_color: str | None = None
    video: str | None = None
    video_floor: bool = False


@dataclass(frozen=True)
class LevelProtocol:
    """How a group of papers carries the levels out.

    Attributes:
        name: as results write it.
        recolour_agent: colour levels change the agent too.
        key: how video levels find the pixels to replace.
    """

    name: str
    recolour_agent: bool
    key: str


_LEVELS = {
    level.name: level
    for level in (
        Level("train"),
        Level("color_easy", background_color="easy", agent_color="easy"),
        Level("color_hard", background_color="hard", agent_color="hard"),
        Level("video_easy", video="easy"),
        Level("video_hard", video="hard", video_floor=True),
    )
}
_ALIASES = {"original": "train", "clean": "train"}
_PROTOCOLS = {
    "dmcgb": LevelProtocol("dmcgb", recolour_agent=True, key="green"),
    "samg": LevelProtocol("samg", recolour_agent=False, key="black"),
}
LEVELS = tuple(_LEVELS)
PROTOCOLS = tuple(_PROTOCOLS)


def get_level(name: str | Level) -> Level:
    """Return a level by name; hyphens and upper case are accepted, ``original`` means ``train``.

    Raises:
        ConfigError: there is no such level.
    """
    if isinstance(name, Level):
        return name
    plain = str(name).strip().lower().replace("-", "_")
    plain = _ALIASES.get(plain, plain)
    if plain not in _LEVELS:
        raise unknown_choice("level", name, LEVELS)
    return _LEVELS[plain]


def resolve_protocol(
    protocol: str = "dmcgb", key: str | None = None, colors: str | None = None
) -> LevelProtocol:
    """Return a protocol with its overrides applied.

    Args:
        protocol: ``dmcgb`` or ``samg``.
        key: another key for video levels: ``green``, ``black`` or ``segmentation``.
        colors: whose colour rule to follow instead: ``dmcgb`` recolours the agent, ``samg`` does not.

    Raises:
        ConfigError: one of them is unknown.
    """
    if protocol not in _PROTOCOLS:
        raise unknown_choice("protocol", protocol, PROTOCOLS)
    if key is not None and key not in KEYS:
        raise unknown_choice("video key", key, KEYS)
    if colors is not None and colors not in _PROTOCOLS:
        raise unknown_choice("colour scheme", colors, PROTOCOLS)
    base = _PROTOCOLS[protocol]
    return LevelProtocol(base.name, _PROTOCOLS[colors or protocol].recolour_agent, key or base.key)


def build_scene(
    level: str | Level,
    domain: str,
    *,
    source: str = "dmcgb",
    data_dir: str | os.PathLike[str] | None = None,
    seed: int = 0,
    protocol: str = "dmcgb",
    key: str | None = None,
    colors: str | None = None,
    image_size: int = 84,
) -> Scene:
    """Return the scene that makes one environment wear ``level``.

    All choices and files are checked here, before any episode.

    Args:
        level: one of ``LEVELS`` or an alias.
        domain: domain of the suite, for error messages.
        source: ``dmcgb`` (the benchmark's files) or ``procedural`` (generated, always there).
        data_dir: folder of the benchmark's files; see ``envs.data.data_directory``.
        seed: decides the order of the colours; clips follow the episode number alone.
        protocol: ``dmcgb`` or ``samg``.
        key: overrides the protocol's key for video levels.
        colors: overrides the protocol's rule for colour levels.
        image_size: side of the observation in pixels.

    Raises:
        ConfigError: an unknown level, source, protocol, key or colour scheme.
        InputError: missing or broken data; the message names them and the cures.
    """
    chosen, rules = get_level(level), resolve_protocol(protocol, key, colors)
    _check_source(source)
    if chosen.background_color is not None:
        recolour = rules.recolour_agent and chosen.agent_color is not None
        table = _colours(chosen.background_color, source, data_dir)
        return ColorScene(tuple(Palette.from_entry(e, recolour) for e in table.entries), domain, seed)
    if chosen.video is not None:
        bank = _clips(chosen.video, source, data_dir, image_size)
        return VideoScene(bank, domain, chosen.video_floor, rules.key)
    return NullScene()


def describe_level(
    level: str | Level,
    *,
    source: str = "dmcgb",
    data_dir: str | os.PathLike[str] | None = None,
    protocol: str = "dmcgb",
    key: str | None = None,
    colors: str | None = None,
) -> dict[str, Any]:
    """Return what a result must say about its level, ready for JSON; takes ``build_scene``'s arguments.

    Returns:
        ``level``; for all but ``train`` also ``source`` and ``protocol``; for colours ``colors`` (how many),
        ``agent_recoloured``, ``colors_name`` and ``colors_sha256``; for videos ``key``, ``clips`` (how many),
        ``clip_names``, ``clips_sha256`` (of names and contents) and ``published`` (they are all the
        clips of the benchmark and no others, byte for byte).
    """
    chosen, rules = get_level(level), resolve_protocol(protocol, key, colors)
    _check_source(source)
    if chosen.background_color is None and chosen.video is None:
        return {"level": chosen.name}
    facts: dict[str, Any] = {"level": chosen.name, "source": source, "protocol": rules.name}
    if chosen.background_color is not None:
        table = _colours(chosen.background_color, source, data_dir)
        facts["colors"] = len(table.entries)
        facts["agent_recoloured"] = rules.recolour_agent and chosen.agent_color is not None
        facts["colors_name"], facts["colors_sha256"] = table.name, table.digest
    if chosen.video is not None:
        facts["key"] = rules.key
        facts.update(_describe_clips(chosen.video, source, data_dir))
    return facts


def _describe_clips(difficulty: str, source: str, data_dir: str | os.PathLike[str] | None) -> dict[str, Any]:
    if source == "procedural":
        digests = {
            f"procedural-{difficulty}-v{VERSION}-{i}": str(VERSION) for i in range(CLIP_COUNT[difficulty])
        }
        published = False
    else:
        paths = find_clips(difficulty, data_dir)
        digests, published = clip_digests(paths), is_published(paths)
    return {
        "clips": len(digests),
        "clip_names": list(digests),
        "clips_sha256": hashlib.sha256(json.dumps(digests).encode()).hexdigest(),
        "published": published,
    }


def _check_source(source: str) -> None:
    if source not in SOURCES:
        raise unknown_choice("background source", source, SOURCES)


def _colours(difficulty: str, source: str, data_dir: str | os.PathLike[str] | None) -> ColourTable:
    return procedural_colours(difficulty) if source == "procedural" else load_colours(difficulty, data_dir)


def _clips(
    difficulty: str, source: str, data_dir: str | os.PathLike[str] | None, image_size: int
) -> ClipBank:
    if source == "procedural":
        return ProceduralClips(difficulty, image_size)
    clips = find_clips(difficulty, data_dir)
    warn_unless_whole(clips)
    return VideoFiles(clips, image_size)
