"""The names of the levels: what each perturbs, how several combine, and what a domain supports.

Nothing here needs a simulator or data, so that a wrong name costs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace

from common.errors import ConfigError, nearest
from envs.distracting import GROUND_ALPHA, INTENSITIES
from envs.tasks import ADROIT_DOMAINS, DOMAIN_ALIASES, find_task

DIFFICULTIES = ("easy", "hard")


@dataclass(frozen=True)
class Level:
    """Everything a level perturbs.

    Attributes:
        name: as results and file names write it; parts joined by ``+`` in the order of ``PARTS``.
        background_color: difficulty (``easy``, ``hard``) of the colours of sky and floor; None leaves them.
        agent_color: difficulty of the agent's colour, where the protocol recolours it; None leaves it.
        video: difficulty of the clips; None shows none.
        video_floor: the clips replace the floor as well as the sky.
        distracting: intensity of the Distracting Control Suite, a key of ``INTENSITIES``; None is off.
        objects_color: difficulty of the agent's colour under every protocol; None leaves it.
        light_position: difficulty of where the lights stand; None leaves them.
        light_color: difficulty of the lights' colour; None leaves it.
        moving_light: difficulty of the lights' motion; None leaves them still.
        cam_pos: difficulty of where the cameras stand; None leaves them.
        cam_id: number of the camera that observes; None is the task's own.
        object_size: difficulty of the size at which the agent is drawn; None leaves it.
        second_object: an agent of another domain stands beside.
        light_intensity: difficulty of the lights' strength; None leaves it. This and the next exist on the
            Adroit hand only.
        cam_angle: difficulty of where the cameras look; None leaves them.
        cam_fov: difficulty of how far the cameras zoom; None leaves them.
        table_texture: difficulty of the table's pictures; None leaves it.
    """

    name: str
    background_color: str | None = None
    agent_color: str | None = None
    video: str | None = None
    video_floor: bool = False
    distracting: str | None = None
    objects_color: str | None = None
    light_position: str | None = None
    light_color: str | None = None
    moving_light: str | None = None
    cam_pos: str | None = None
    cam_id: int | None = None
    object_size: str | None = None
    second_object: bool = False
    light_intensity: str | None = None
    cam_angle: str | None = None
    cam_fov: str | None = None
    table_texture: str | None = None


_MAIN = (
    Level("train"),
    Level("color_easy", background_color="easy", agent_color="easy"),
    Level("color_hard", background_color="hard", agent_color="hard"),
    Level("video_easy", video="easy"),
    Level("video_hard", video="hard", video_floor=True),
)
LEVELS = tuple(level.name for level in _MAIN)
# RL-ViGen's axes for DMControl besides the background; cam_id takes a number instead of a difficulty.
AXES = ("objects_color", "light_position", "light_color", "moving_light", "cam_pos", "cam_id")
AXIS_LEVELS = tuple(f"{axis}_{how}" for axis in AXES if axis != "cam_id" for how in DIFFICULTIES)
# Those that only its Adroit part has.
HAND_AXES = ("light_intensity", "cam_angle", "cam_fov", "table_texture")
HAND_LEVELS = tuple(f"{axis}_{how}" for axis in HAND_AXES for how in DIFFICULTIES)
DISTRACTING_LEVELS = tuple(f"distracting_cs_{intensity}" for intensity in INTENSITIES)
OBJECT_LEVELS = (*(f"object_size_{how}" for how in DIFFICULTIES), "second_object")
GROUPS = ("all", "axes", "distracting", "objects")

# The order in which a combination names its parts, and the kind of each: two of one kind exclude each other.
PARTS = ("color", "video", "distracting_cs", *AXES, *HAND_AXES, "object_size", "second_object")
_KINDS = {"color": "background", "video": "background", "distracting_cs": "background"}
# distracting_cs moves the camera and recolours every material itself.
_WITHIN_DISTRACTING = ("objects_color", "cam_pos", "cam_id")
# Domain -> cameras; a test compares the table with the simulator.
_CAMERAS = {
    **{"dog": 2, "fish": 5, "humanoid": 3, "humanoid_CMU": 3, "quadruped": 4, "swimmer": 3},
    **{domain: len(find_task(f"adroit_{domain}").cameras) for domain in ADROIT_DOMAINS},
}
_FEWEST_CAMERAS = 2
_WITHOUT_TABLE = ("relocate",)  # transparent, because one of its cameras looks from below
_WITHOUT_AGENT_MATERIAL = ("dog",)  # and it wears a skin, which has no size of its own
_ALIASES = {"original": "train", "clean": "train"}

_SINGLE = {
    **{level.name: level for level in _MAIN},
    **{
        f"{axis}_{how}": replace(Level(f"{axis}_{how}"), **{axis: how})  # type: ignore[arg-type]
        for axis in (*AXES[:-1], *HAND_AXES, "object_size")
        for how in DIFFICULTIES
    },
    **{f"distracting_cs_{i}": Level(f"distracting_cs_{i}", distracting=i) for i in INTENSITIES},
    "second_object": Level("second_object", second_object=True),
}


def get_level(name: str | Level) -> Level:
    """Return a level by name; hyphens and upper case are accepted, ``original`` means ``train``.

    Parts joined by ``+`` are worn together, in whatever order they are named.

    Raises:
        ConfigError: there is no such level, or two of its parts exclude each other.
    """
    if isinstance(name, Level):
        return name
    parts = [_single(part, str(name)) for part in str(name).split("+")]
    parts = sorted({part for part in parts if part.name != "train"}, key=lambda p: (_rank(p), p.name))
    _refuse_contradictions(parts, str(name))
    if len(parts) < 2:
        return parts[0] if parts else _SINGLE["train"]
    changes = {
        field.name: getattr(part, field.name)
        for part in parts
        for field in fields(Level)
        if field.name != "name" and getattr(part, field.name) != field.default
    }
    return replace(Level("+".join(part.name for part in parts)), **changes)


def check_domain(level: Level, domain: str) -> None:
    """Raise ``ConfigError`` where a domain does not support a level; the message names what it supports."""
    domain = DOMAIN_ALIASES.get(domain, domain)
    fault = None
    if domain in ADROIT_DOMAINS and (reason := _fault_on_adroit(level, domain)):
        fault = reason
    elif domain not in ADROIT_DOMAINS and (only := next((a for a in HAND_AXES if getattr(level, a)), None)):
        fault = f"{only} exists on the Adroit hand only"
    elif level.distracting is not None and domain not in GROUND_ALPHA:
        fault = f"distracting_cs exists for the domains {', '.join(sorted(GROUND_ALPHA))}"
    elif level.cam_id is not None and level.cam_id >= camera_count(domain):
        fault = f"it has the cameras 0 to {camera_count(domain) - 1}"
    elif level.objects_color is not None and domain in _WITHOUT_AGENT_MATERIAL:
        fault = "nothing of its agent wears the material 'self', which objects_color changes"
    elif level.object_size is not None and domain in _WITHOUT_AGENT_MATERIAL:
        fault = "its agent wears a skin, which cannot be drawn at another size"
    if fault is not None:
        supported = ", ".join(expand_levels(supported_groups(domain), domain))
        message = f"The domain '{domain}' does not support the level '{level.name}': {fault}."
        raise ConfigError(message, f"Supported, alone or joined by '+': {supported}.")


def camera_count(domain: str) -> int:
    """Return how many cameras every task of a domain has."""
    return _CAMERAS.get(domain, _FEWEST_CAMERAS)


def supported_groups(domain: str) -> tuple[str, ...]:
    """Return the groups of ``GROUPS`` that a domain has."""
    domain = DOMAIN_ALIASES.get(domain, domain)
    if domain in ADROIT_DOMAINS:
        return ("all", "axes")
    return tuple(group for group in GROUPS if group != "distracting" or domain in GROUND_ALPHA)


def expand_levels(
    names: Sequence[str], domain: str | None = None, one_camera: bool = True
) -> tuple[str, ...]:
    """Return the canonical names of levels, groups replaced by their levels, without repetition.

    Args:
        names: levels, combinations and groups: ``all`` (the five main ones), ``axes`` (RL-ViGen's axes, each
            camera included), ``distracting`` (all intensities), ``objects`` (other size, a second agent). A
            group may be part of a combination: ``video_hard+axes``.
        domain: the task's; what it does not support is left out of groups, and an error where it was named.
            None checks nothing and lists no cameras.
        one_camera: whether one camera observes, which a level may then replace; several stay what they are.

    Raises:
        ConfigError: a name is unknown, a combination impossible, or the domain does not support it.
    """
    domain = None if domain is None else DOMAIN_ALIASES.get(domain, domain)
    found: dict[str, None] = {}
    for name in names:
        expanded, grouped = [""], False
        for part in str(name).split("+"):
            choices = _members(_plain(part), domain, one_camera) or (part,)
            grouped = grouped or len(choices) > 1
            expanded = [f"{one}+{choice}" if one else choice for one in expanded for choice in choices]
        levels = [get_level(one) for one in expanded]
        if grouped and domain in ADROIT_DOMAINS:
            levels = [level for level in levels if not _fault_on_adroit(level, domain)] or levels
        for level in levels:
            if domain is not None:
                check_domain(level, domain)
            if level.cam_id is not None and not one_camera:
                raise ConfigError(
                    f"The level '{level.name}' chooses one camera, but the agent sees several at once.",
                    "Leave the cam_id levels out.",
                )
            found[level.name] = None
    return tuple(found)


def _members(group: str, domain: str | None, one_camera: bool = True) -> tuple[str, ...]:
    """Return the levels of a group that a domain supports; nothing where there is no such group."""
    bare = domain in _WITHOUT_AGENT_MATERIAL
    if group == "all":
        return LEVELS
    if group == "axes":
        cameras = range(camera_count(domain)) if domain is not None and one_camera else ()
        known = (*AXIS_LEVELS, *HAND_LEVELS) if domain in ADROIT_DOMAINS else AXIS_LEVELS
        axes = (name for name in known if not (bare and name.startswith("objects_color")))
        return (*axes, *(f"cam_id_{camera}" for camera in cameras))
    if group == "objects" and domain not in ADROIT_DOMAINS:
        return ("second_object",) if bare else OBJECT_LEVELS
    return DISTRACTING_LEVELS if group == "distracting" and domain not in ADROIT_DOMAINS else ()


def _fault_on_adroit(level: Level, domain: str) -> str | None:
    """Return why a level does not exist on an Adroit scene, or None."""
    foreign = [name for name in ("distracting", "object_size", "second_object") if getattr(level, name)]
    if foreign:
        return f"{foreign[0]} is not part of it on the Adroit hand"
    dressed = "color_*" if level.background_color else "video_*" if level.video else ""
    for axis in ("objects_color", "table_texture"):
        if dressed and getattr(level, axis):
            return f"{axis} is part of {dressed} already on the Adroit hand"
    if level.video and level.moving_light:
        return "video_* move the light already on the Adroit hand"
    if level.table_texture and domain in _WITHOUT_TABLE:
        return "its table is not drawn"
    return None


def _plain(name: str) -> str:
    plain = name.strip().lower().replace("-", "_")
    return _ALIASES.get(plain, plain)


def _single(name: str, whole: str) -> Level:
    """Return the level of one part of a name."""
    plain = _plain(name)
    if plain in _SINGLE:
        return _SINGLE[plain]
    camera = re.fullmatch(r"cam_id_(\d{1,2})", plain)
    if camera is not None:
        return Level(f"cam_id_{int(camera.group(1))}", cam_id=int(camera.group(1)))
    raise _unknown(plain, name if name == whole else f"{name}' in '{whole}")


def _unknown(plain: str, shown: str) -> ConfigError:
    cure = (
        f"{nearest(plain, [*_SINGLE, 'cam_id_0'])}Choose one of: {', '.join(_SHORT)}; join several with '+'."
    )
    return ConfigError(f"Unknown level '{shown}'.", cure)


_SHORT = (
    *LEVELS,
    *(f"{axis}_easy|hard" for axis in (*AXES[:-1], *HAND_AXES, "object_size")),
    "cam_id_N",
    "second_object",
    f"distracting_cs_{'|'.join(INTENSITIES)}",
)


def _part(level: Level) -> str:
    """Return which of ``PARTS`` a single level is."""
    return next(part for part in PARTS if level.name == part or level.name.startswith(f"{part}_"))


def _rank(level: Level) -> int:
    return PARTS.index(_part(level))


def _refuse_contradictions(parts: Iterable[Level], name: str) -> None:
    """Raise where two parts change the same thing."""
    taken: dict[str, Level] = {}
    for level in parts:
        part = _part(level)
        kind = _KINDS.get(part, part)
        if kind in taken:
            what = "two backgrounds" if kind == "background" else f"{kind} twice"
            raise _impossible(name, f"{taken[kind].name} and {level.name} are {what}")
        if "background" in taken and taken["background"].distracting and kind in _WITHIN_DISTRACTING:
            raise _impossible(name, f"distracting_cs changes what {level.name} changes")
        taken[kind] = level


def _impossible(name: str, why: str) -> ConfigError:
    cure = (
        "Join at most one of color_*, video_* and distracting_cs_* with at most one level of each of "
        f"{', '.join((*AXES, *HAND_AXES))}, object_size and second_object; distracting_cs_* goes without "
        f"{', '.join(_WITHIN_DISTRACTING)}."
    )
    return ConfigError(f"The levels of '{name}' cannot be worn together: {why}.", cure)
