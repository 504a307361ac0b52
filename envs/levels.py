"""The levels of the DMControl generalisation benchmark: how one environment wears them.

``train`` changes nothing. ``color_easy`` and ``color_hard`` give every episode another sky, floor and (in
protocol ``dmcgb``) agent; ``video_easy`` replaces the sky by a clip, ``video_hard`` sky and floor. Two
protocols exist in the literature: ``dmcgb`` (DMC-GB: agent recoloured too, green key) and ``samg`` (RL-ViGen
and SAM-G: agent untouched, black key). Their numbers are not comparable: every result names the protocol.
``envs.level_names`` lists all levels and how they combine; docs/levels.md shows them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass
from typing import Any

from common.errors import unknown_choice
from envs.adroit_levels import adroit_parts, check_key, describe_adroit
from envs.camera_light import (
    CAM_POS,
    LIGHT_COLOR,
    LIGHT_POSITION,
    MOVING_LIGHT,
    CameraScene,
    LightScene,
)
from envs.colors import AgentColorScene, ColorScene, Palette
from envs.data import (
    ColourTable,
    clip_digests,
    find_clips,
    find_davis,
    is_published,
    load_colours,
    warn_unless_whole,
)
from envs.distracting import INTENSITIES, TEXTURE_SIDE, DistractingScene
from envs.frame_folders import FrameFolders, folders_digest
from envs.level_names import (
    AXES,
    AXIS_LEVELS,
    DISTRACTING_LEVELS,
    GROUPS,
    LEVELS,
    OBJECT_LEVELS,
    Level,
    check_domain,
    expand_levels,
    get_level,
)
from envs.object_size import OBJECT_SIZE, ObjectSizeScene
from envs.procedural import CLIP_COUNT, VERSION, ProceduralClips, procedural_colours
from envs.scene import ComposedScene, NullScene, Scene
from envs.second_object import RIVAL_DEPTH, RIVAL_SIDE, RIVAL_SIZE, RIVALS, SecondObjectScene
from envs.tasks import ADROIT_DOMAINS
from envs.video_background import KEYS, ClipBank, VideoFiles, VideoScene

__all__ = [
    "AXES",
    "AXIS_LEVELS",
    "DISTRACTING_LEVELS",
    "GROUPS",
    "LEVELS",
    "OBJECT_LEVELS",
    "PROTOCOLS",
    "SOURCES",
    "Level",
    "build_scene",
    "check_domain",
    "describe_level",
    "expand_levels",
    "get_level",
    "resolve_protocol",
]

SOURCES = ("dmcgb", "procedural")


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


_PROTOCOLS = {
    "dmcgb": LevelProtocol("dmcgb", recolour_agent=True, key="green"),
    "samg": LevelProtocol("samg", recolour_agent=False, key="black"),
}
PROTOCOLS = tuple(_PROTOCOLS)


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
        level: a name of ``envs.level_names``, an alias, or several joined by ``+``.
        domain: domain of the suite; decides what is supported.
        source: ``dmcgb`` (the benchmark's files) or ``procedural`` (generated, always there).
        data_dir: folder of the benchmark's files; see ``envs.data.data_directory``.
        seed: decides the order of the colours; clips follow the episode number alone.
        protocol: ``dmcgb`` or ``samg``.
        key: overrides the protocol's key for video levels (Adroit: ``purple``, ``segmentation``).
        colors: overrides the protocol's rule for colour levels.
        image_size: side of the observation in pixels.

    Raises:
        ConfigError: an unknown level, source, protocol, key or colour scheme, a combination that is
            impossible, or a level that the domain does not support.
        InputError: missing or broken data; the message names them and the cures.
    """
    hand = domain in ADROIT_DOMAINS
    chosen, rules = get_level(level), resolve_protocol(protocol, None if hand else key, colors)
    _check_source(source)
    check_domain(chosen, domain)
    parts: list[Scene] = []
    if hand:
        difficulty = chosen.background_color or chosen.video
        table = None if difficulty is None else _colours(difficulty, source, data_dir)
        bank = None if chosen.video is None else _clips(chosen.video, source, data_dir, image_size)
        tints = chosen.objects_color
        objects = None if tints is None else _colours(tints, source, data_dir)
        parts = adroit_parts(chosen, seed, check_key(key), table, bank, objects)
        return ComposedScene(parts) if parts else NullScene()
    if chosen.background_color is not None:
        recolour = rules.recolour_agent and chosen.agent_color is not None
        table = _colours(chosen.background_color, source, data_dir)
        parts.append(ColorScene(tuple(Palette.from_entry(e, recolour) for e in table.entries), domain, seed))
    if chosen.video is not None:
        bank = _clips(chosen.video, source, data_dir, image_size)
        parts.append(VideoScene(bank, domain, chosen.video_floor, rules.key))
    if chosen.objects_color is not None:
        table = _colours(chosen.objects_color, source, data_dir)
        parts.append(AgentColorScene(tuple(entry["self_rgb"] for entry in table.entries), seed))
    if chosen.light_position or chosen.light_color or chosen.moving_light:
        parts.append(LightScene(seed, chosen.light_position, chosen.light_color, chosen.moving_light))
    if chosen.cam_pos is not None:
        parts.append(CameraScene(seed, chosen.cam_pos))
    if chosen.object_size is not None:
        parts.append(ObjectSizeScene(domain, seed, chosen.object_size))
    if chosen.second_object:
        parts.append(SecondObjectScene(domain, seed))
    if chosen.distracting is not None:  # last: it moves the camera that the others may have asked for
        videos = _distracting_clips(chosen.distracting, source, data_dir)
        parts.append(DistractingScene(domain, seed, chosen.distracting, videos))
    return parts[0] if len(parts) == 1 else ComposedScene(parts) if parts else NullScene()


def describe_level(
    level: str | Level,
    *,
    domain: str | None = None,
    source: str = "dmcgb",
    data_dir: str | os.PathLike[str] | None = None,
    protocol: str = "dmcgb",
    key: str | None = None,
    colors: str | None = None,
) -> dict[str, Any]:
    """Return what a result must say about its level, ready for JSON; takes ``build_scene``'s arguments.

    ``domain`` None is any of the DeepMind Control suite.

    Returns:
        ``level``; where it draws colours or clips ``source`` and ``protocol``; for colours ``colors`` (how
        many), ``agent_recoloured``, ``colors_name`` and ``colors_sha256``; for videos ``key``, ``clips``
        (how many), ``clip_names``, ``clips_sha256`` (of names and contents) and ``published`` (they are all
        the clips of the benchmark and no others, byte for byte); for every other part the constants that it
        draws from, under its name, such as ``cam_pos``.
    """
    hand = domain in ADROIT_DOMAINS
    chosen, rules = get_level(level), resolve_protocol(protocol, None if hand else key, colors)
    _check_source(source)
    facts: dict[str, Any] = {"level": chosen.name}
    drawn = chosen.background_color or chosen.video or chosen.distracting or chosen.objects_color
    if drawn is not None:
        facts.update(source=source, protocol=rules.name)
    difficulty = chosen.background_color or (chosen.video if hand else None)
    if difficulty is not None:
        table = _colours(difficulty, source, data_dir)
        facts["colors"] = len(table.entries)
        facts["agent_recoloured"] = rules.recolour_agent and chosen.agent_color is not None
        facts["colors_name"], facts["colors_sha256"] = table.name, table.digest
    if chosen.video is not None:
        facts["key"] = rules.key
        facts.update(_describe_clips(chosen.video, source, data_dir))
    if chosen.distracting is not None:
        facts.update(_describe_distracting(chosen.distracting, source, data_dir))
    if chosen.objects_color is not None:
        table = _colours(chosen.objects_color, source, data_dir)
        facts["objects_color"] = {"colors": len(table.entries), "name": table.name, "sha256": table.digest}
    if hand:
        camera = {} if chosen.cam_id is None else {"cam_id": chosen.cam_id}
        return facts | camera | describe_adroit(chosen, key)
    return facts | _constants(chosen)


def _constants(level: Level) -> dict[str, Any]:
    """Return the constants of what a level draws from no data, under the names of its attributes."""
    facts: dict[str, Any] = {}
    if level.light_position is not None:
        facts["light_position"] = {"metres_added": list(LIGHT_POSITION[level.light_position])}
    if level.light_color is not None:
        facts["light_color"] = {"added_within": LIGHT_COLOR[level.light_color], "clipped_to": [0.0, 1.0]}
    if level.moving_light is not None:
        facts["moving_light"] = dataclasses.asdict(MOVING_LIGHT[level.moving_light])
    if level.cam_pos is not None:
        facts["cam_pos"] = {"metres_within": CAM_POS[level.cam_pos]}
    if level.cam_id is not None:
        facts["cam_id"] = level.cam_id
    if level.object_size is not None:
        facts["object_size"] = {"scales": list(OBJECT_SIZE[level.object_size])}
    if level.second_object:
        facts["second_object"] = {
            "rivals": list(RIVALS),
            "size": RIVAL_SIZE,
            "side": RIVAL_SIDE,
            "depth": RIVAL_DEPTH,
        }
    return facts


def _describe_distracting(
    intensity: str, source: str, data_dir: str | os.PathLike[str] | None
) -> dict[str, Any]:
    """Return intensity and videos of ``distracting_cs``."""
    count = INTENSITIES[intensity]
    if source == "procedural":
        names = _procedural_names("hard")[:count]
        digest = hashlib.sha256(json.dumps(names).encode()).hexdigest()
    else:
        folders = find_davis(count, data_dir)
        names, digest = [folder.name for folder in folders], folders_digest(folders)
    return {
        "distracting_cs": {"intensity": float(intensity), "texture_side": TEXTURE_SIDE},
        "clips": len(names),
        "clip_names": names,
        "clips_sha256": digest,
        "published": source != "procedural",
    }


def _distracting_clips(intensity: str, source: str, data_dir: str | os.PathLike[str] | None) -> ClipBank:
    count = INTENSITIES[intensity]
    if source == "procedural":
        return ProceduralClips("hard", TEXTURE_SIDE, count)
    return FrameFolders(find_davis(count, data_dir), TEXTURE_SIDE)


def _procedural_names(difficulty: str) -> list[str]:
    return [f"procedural-{difficulty}-v{VERSION}-{i}" for i in range(CLIP_COUNT[difficulty])]


def _describe_clips(difficulty: str, source: str, data_dir: str | os.PathLike[str] | None) -> dict[str, Any]:
    if source == "procedural":
        digests = dict.fromkeys(_procedural_names(difficulty), str(VERSION))
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
