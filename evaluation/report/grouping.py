"""Decide which results may stand in one table, and give separate tables or names to those that may not."""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import ConfigError, unknown_choice
from evaluation.report.loading import Entry

LEVEL_ORDER = ("train", "color_easy", "color_hard", "video_easy", "video_hard", "distracting_cs")
# What differs between training seeds of one agent: drawn encoders, and which crops of the images it kept.
HIDDEN_FACTS = ("encoder_seed", "sha256", "earlier_sha256")
SHOWN_FILES = 3
SHOWN_FACTS = 3
LONGEST_FACT = 24


def drawn_source(entry: Entry) -> str | None:
    """Return where the level's colours and clips came from; None where it draws from nowhere."""
    return entry.conditions.level_facts.get("source")


def _agent(entry: Entry) -> dict[str, Any]:
    return _plain_facts(entry.conditions.agent)


def _plain_facts(facts: dict[str, Any]) -> dict[str, Any]:
    """Return an agent's record, nested parts included, without what differs between seeds."""
    return {
        key: _plain_facts(value) if isinstance(value, dict) else value
        for key, value in facts.items()
        if key not in HIDDEN_FACTS
    }


def _masker(entry: Entry) -> dict[str, Any]:
    conditions = entry.conditions
    training = (conditions.training_masker or {}).get("fingerprint")
    return {"fingerprint": conditions.masker.get("fingerprint"), "training fingerprint": training}


def _masker_facts(entry: Entry) -> dict[str, Any]:
    """What can tell two maskers apart in words; the fingerprints, should the words not do."""
    masker = entry.conditions.masker
    return {**masker.get("method", {}), "weights": masker.get("weights", {}), **_masker(entry)}


def _budget(entry: Entry) -> dict[str, Any]:
    return {
        "decisions": entry.conditions.agent_steps,
        "action repeat": entry.conditions.action_repeat,
    }


@dataclass(frozen=True)
class Rule:
    """Something that must be the same within one table, method or level.

    Attributes:
        what: its name in errors.
        where: such as ``one table``.
        scope: of an entry: entries of equal scope are compared.
        value: of an entry: JSON value that must be equal; None is compared with nothing.
        words: of an entry: named facts that may tell the values apart; the first that differ become a name.
        splits: ``table``, ``method`` or ``level``: what is split where the user asks for it.
    """

    what: str
    where: str
    scope: Callable[[Entry], Hashable]
    value: Callable[[Entry], Any]
    words: Callable[[Entry], dict[str, Any]]
    splits: str


def _per_method(entry: Entry) -> Hashable:
    return entry.method, entry.conditions.task


RULES = {
    "protocol": Rule(
        "protocol",
        "one table",
        lambda entry: (),
        lambda entry: entry.conditions.protocol,
        lambda entry: {"protocol": entry.conditions.protocol},
        "table",
    ),
    "source": Rule(
        "level source",
        "one table",
        lambda entry: (),
        drawn_source,
        lambda entry: {"levels": drawn_source(entry)},
        "table",
    ),
    "data": Rule(
        "data of a level",
        "one table",
        lambda entry: (entry.level, entry.conditions.task, drawn_source(entry), entry.conditions.protocol),
        lambda entry: entry.conditions.level_facts,
        lambda entry: entry.conditions.level_facts,
        "level",
    ),
    "fingerprint": Rule("masker", "one method", _per_method, _masker, _masker_facts, "method"),
    "budget": Rule("training budget", "one method", _per_method, _budget, _budget, "method"),
    "agent": Rule("agent", "one method", _per_method, _agent, _agent, "method"),
}


@dataclass(frozen=True)
class Section:
    """Results that may stand in one table.

    Attributes:
        title: what sets it apart from the other sections; empty where there is only one.
        entries: its results; every evaluation occurs once.
    """

    title: str
    entries: list[Entry]

    @property
    def tasks(self) -> list[str]:
        """Tasks in alphabetical order."""
        return sorted({entry.conditions.task for entry in self.entries})

    @property
    def levels(self) -> list[str]:
        """Levels from easy to hard where that is known, then by name."""
        return sorted({entry.level for entry in self.entries}, key=level_key)


def level_key(level: str) -> tuple[int, str]:
    """Return the key that sorts levels: the training scene, colours, videos, everything else."""
    order = LEVEL_ORDER.index(level) if level in LEVEL_ORDER else len(LEVEL_ORDER)
    return order, level


def check_split(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names of rules without repetition.

    Raises:
        ConfigError: there is no such rule.
    """
    chosen = tuple(dict.fromkeys(names))
    for name in chosen:
        if name not in RULES:
            raise unknown_choice("value of --split", name, RULES)
    return chosen


def make_sections(entries: Sequence[Entry], split: Sequence[str] = ()) -> list[Section]:
    """Sort results into sections within which they may be compared.

    Args:
        entries: all results.
        split: names of ``RULES``: what differs in these gets tables, methods or levels of its own.

    Raises:
        ConfigError: results differ in something that is not split (everything is named at once), or two files
            hold the same evaluation.
    """
    chosen = check_split(split)
    entries = list(entries)
    for name in chosen:
        if RULES[name].splits != "table":
            entries = _rename(entries, RULES[name])
    conflicts = {
        name: text
        for name, rule in RULES.items()
        if name not in chosen and (text := _conflict(rule, entries)) is not None
    }
    if conflicts:
        raise ConfigError(
            "\n  ".join(["These results do not belong together:", *conflicts.values()]),
            f"Add --split {' '.join(conflicts)} to keep them apart, name methods yourself with --label "
            "NAME=PATH, or leave files out.",
        )
    sections = _split_tables(entries, [RULES[name] for name in chosen if RULES[name].splits == "table"])
    for section in sections:
        _refuse_duplicates(section.entries)
    return sections


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _by_scope(rule: Rule, entries: Sequence[Entry]) -> list[dict[str, list[Entry]]]:
    """Return, for every scope in which the rule's values differ, the entries of each value."""
    groups: dict[Hashable, dict[str, list[Entry]]] = defaultdict(lambda: defaultdict(list))
    for entry in entries:
        if rule.value(entry) is not None:
            groups[rule.scope(entry)][_text(rule.value(entry))].append(entry)
    return [dict(group) for group in groups.values() if len(group) > 1]


def _conflict(rule: Rule, entries: Sequence[Entry]) -> str | None:
    """Say in one line how the entries differ, and which files; None where they agree."""
    groups = _by_scope(rule, entries)
    if not groups:
        return None
    sides = list(groups[0].values())
    names = _differences([rule.words(side[0]) for side in sides])
    parts = [f"{name} in {_file_list(side)}" for name, side in zip(names, sides, strict=True)]
    first = sides[0][0]
    where = {
        "table": "",
        "level": f" ({first.conditions.task}, {first.level})",
        "method": f" ({first.conditions.task}, {first.method})",
    }[rule.splits]
    more = f"; likewise in {len(groups) - 1} more" if len(groups) > 1 else ""
    return f"another {rule.what} in {rule.where}{where}: {'; '.join(parts)}{more}."


def _file_list(entries: Sequence[Entry]) -> str:
    shown = ", ".join(str(entry.path) for entry in entries[:SHOWN_FILES])
    more = len(entries) - SHOWN_FILES
    return f"{shown} and {more} more" if more > 0 else shown


def _rename(entries: list[Entry], rule: Rule) -> list[Entry]:
    """Give methods or levels whose values differ a name that says how."""
    names: dict[tuple[Hashable, str], str] = {}
    for group in _by_scope(rule, entries):
        words = _differences([rule.words(side[0]) for side in group.values()])
        for (value, side), word in zip(group.items(), words, strict=True):
            names[rule.scope(side[0]), value] = word
    return [
        _renamed(entry, rule, names.get((rule.scope(entry), _text(rule.value(entry))))) for entry in entries
    ]


def _renamed(entry: Entry, rule: Rule, word: str | None) -> Entry:
    if word is None:
        return entry
    if rule.splits == "level":
        return dataclasses.replace(entry, level=f"{entry.level} [{word}]")
    return dataclasses.replace(entry, method=f"{entry.method} [{word}]")


def _differences(facts: Sequence[dict[str, Any]]) -> list[str]:
    """Return a short name for each of several dictionaries: the facts in which they differ."""
    flat = [_flatten(fact) for fact in facts]
    keys = [key for key in dict.fromkeys(k for f in flat for k in f) if len({f.get(key) for f in flat}) > 1]
    readable = [key for key in keys if all(len(f.get(key, "")) <= LONGEST_FACT for f in flat)]
    for chosen in (readable[:SHOWN_FACTS], keys[:SHOWN_FACTS], keys):
        names = [", ".join(f"{key} {_shorten(f.get(key, 'absent'))}" for key in chosen) for f in flat]
        if len(set(names)) == len(names):
            return names
    return [f"variant {index + 1}" for index in range(len(facts))]


def _flatten(fact: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in fact.items():
        if isinstance(value, dict):
            flat.update(_flatten(value, f"{prefix}{key} "))
        elif isinstance(value, int) and not isinstance(value, bool):
            flat[f"{prefix}{key}".replace("_", " ")] = f"{value:,}"
        else:
            text = value if isinstance(value, str) else _text(value)
            flat[f"{prefix}{key}".replace("_", " ")] = text
    return flat


def _shorten(text: str) -> str:
    return text if len(text) <= LONGEST_FACT else f"{text[:8]}…"


def _split_tables(entries: Sequence[Entry], rules: Sequence[Rule]) -> list[Section]:
    """Return one section for every combination of values; what has none stands in all it belongs to."""

    def key(entry: Entry) -> tuple[Any, ...]:
        return tuple(rule.value(entry) for rule in rules)

    def fits(entry: Entry, wanted: tuple[Any, ...]) -> bool:
        return all(own in (None, value) for own, value in zip(key(entry), wanted, strict=True))

    whole = sorted({key(entry) for entry in entries if None not in key(entry)}) or [key(entries[0])]
    sections = []
    for wanted in whole:
        kept = [entry for entry in entries if fits(entry, wanted)]
        runs = {_run(entry) for entry in kept if None not in key(entry)}
        kept = [entry for entry in kept if None not in key(entry) or _run(entry) in runs or not runs]
        words = [
            f"{rule.what} {value}" for rule, value in zip(rules, wanted, strict=True) if value is not None
        ]
        sections.append(Section(", ".join(words) if len(whole) > 1 else "", _own_first(kept, wanted, rules)))
    return sections


def _run(entry: Entry) -> Hashable:
    return entry.method, entry.conditions.task, entry.conditions.train_seed


def _evaluation(entry: Entry) -> Hashable:
    return (*_run(entry)[:3], entry.level, entry.conditions.seed)  # type: ignore[index]


def _own_first(entries: list[Entry], wanted: tuple[Any, ...], rules: Sequence[Rule]) -> list[Entry]:
    """Drop the training scene evaluated beside levels of another source where this source has its own."""
    sources = {value for rule, value in zip(rules, wanted, strict=True) if rule.what == "level source"}
    if not sources:
        return entries
    own = {_evaluation(e) for e in entries if e.conditions.source in sources}
    return [e for e in entries if e.conditions.source in sources or _evaluation(e) not in own]


def _refuse_duplicates(entries: Sequence[Entry]) -> None:
    seen: dict[Hashable, Path] = {}
    for entry in entries:
        key = _evaluation(entry)
        if key in seen:
            c = entry.conditions
            raise ConfigError(
                f"{seen[key]} and {entry.path} hold the same evaluation: {c.task}, {entry.level}, "
                f"{entry.method}, training seed {c.train_seed}, evaluation seed {c.seed}.",
                "Leave one out, or name the methods apart with --label NAME=PATH.",
            )
        seen[key] = entry.path
