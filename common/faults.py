"""Named places at which a test can break the program; in normal use they do nothing.

``SAMG_FAULT=<point>:<n>:<action>`` (several joined by commas) lets the ``n``-th visit of a point kill the
process (``kill``), send it a signal (``term``, ``usr2``, ``int``) or raise an error (``enospc``, a full disk;
``raise``). Tests enumerate ``POINTS``, and a point that is not listed there is refused, so that no new
place is forgotten.
"""

from __future__ import annotations

import errno
import os
import signal
from dataclasses import dataclass

from common.errors import ConfigError, unknown_choice

#: What is written in one piece, by kind: the name a file or directory has in the points of its writing.
FILES = {
    "file": "anything without a name of its own here, such as config.yaml",
    "replay": "an episode",
    "log": "a table written anew",
    "result": "the result of an evaluation, or what is done of one",
    "directory": "a masker",
    "snapshot": "a snapshot",
}
_MOMENTS = ("staged", "synced", "renamed")  # content is there; it is on the disk; it has its name
POINTS = (
    *(f"{kind}.{moment}" for kind in FILES for moment in _MOMENTS),
    "snapshot.file",  # one of its files is written
    "snapshot.prune",  # an old one is about to be removed
    "snapshot.pruned",
    "replay.array",  # one array of an episode is written
    "replay.moved",  # a file newer than the snapshot was put aside
    "replay.deleted",  # a file that nothing names was deleted
    "log.append",  # a row is about to be added
    "log.appended",
    "train.act",
    "train.update",
    "train.step",  # the environments have answered
    "train.reset",
    "evaluate.step",
    "masker.fit",
)
_SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "usr2": signal.SIGUSR2, "int": signal.SIGINT}
ACTIONS = (*_SIGNALS, "enospc", "raise")


class InjectedError(RuntimeError):
    """What the action ``raise`` raises."""


@dataclass
class _Fault:
    point: str
    visits: int  # until it happens
    action: str

    def visit(self) -> None:
        self.visits -= 1
        if self.visits:
            return
        if self.action in _SIGNALS:
            os.kill(os.getpid(), _SIGNALS[self.action])
        elif self.action == "enospc":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        else:
            raise InjectedError(f"fault injected at {self.point}")


_armed: list[_Fault] | None = None  # None until the environment variable has been read


def arm(text: str) -> None:
    """Replace the faults that will happen; ``text`` as in ``SAMG_FAULT``, empty for none.

    Raises:
        ConfigError: it cannot be read, or names an unknown point or action.
    """
    global _armed
    _armed = [_parse(part) for part in text.split(",") if part]


def _parse(text: str) -> _Fault:
    name, visits, action = (*text.split(":"), "", "")[:3]
    if name not in POINTS:
        raise unknown_choice("fault point", name, POINTS)
    if action not in ACTIONS:
        raise unknown_choice("action of a fault", action, ACTIONS)
    if not visits.isdigit() or int(visits) < 1:
        raise ConfigError(f"SAMG_FAULT={text}: '{visits}' is not a number of visits.", "Use point:1:action.")
    return _Fault(name, int(visits), action)


def point(name: str) -> None:
    """Break here if that was asked for."""
    if _armed is None:
        arm(os.environ.get("SAMG_FAULT", ""))
    for fault in _armed or ():
        if fault.point == name:
            fault.visit()
