"""How far a program is: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

Update = Callable[[float, str], None]
Item = TypeVar("Item")


class Display:
    """Shows lines and progress.

    Args:
        console: where; standard output by default.
        interval: seconds between progress lines where the console is not a terminal.
    """

    def __init__(self, console: Console | None = None, interval: float = 10.0) -> None:
        self.console = console or Console(highlight=False)
        self._interval = interval

    def say(self, text: str) -> None:
        """Show a line, at once and as it is."""
        self.console.print(text, markup=False, soft_wrap=True)

    def track(self, items: Sequence[Item], what: str) -> Iterator[Item]:
        """Yield ``items`` and show how many of them are done."""
        with self.progress(what) as update:
            for number, item in enumerate(items):
                yield item
                update((number + 1) / len(items), f"{number + 1} of {len(items)}")

    @contextlib.contextmanager
    def progress(self, what: str) -> Iterator[Update]:
        """Show ``what`` is done; yields ``update(share in [0, 1], note)``, cheap enough for every step."""
        if self.console.is_terminal:
            note = Column(ratio=1, no_wrap=True, overflow="ellipsis")
            columns = (
                TextColumn("{task.description}", table_column=Column(no_wrap=True)),
                BarColumn(20),
                TextColumn("{task.percentage:>5.1f} %", table_column=Column(no_wrap=True)),
                TimeRemainingColumn(table_column=Column(no_wrap=True)),
                # On a narrow terminal this one is cut, not the others.
                TextColumn("{task.fields[note]}", table_column=note, markup=False),
            )
            with Progress(*columns, console=self.console, refresh_per_second=2, expand=True) as bar:
                task = bar.add_task(what, total=1.0, note="")
                yield lambda share, note: bar.update(task, completed=share, note=note)
            return
        lines = _Lines(what, self.say, self._interval)
        try:
            yield lines.update
        finally:
            lines.finish()


class _Lines:
    """The newest state, now and then, and the last one at the end."""

    def __init__(self, what: str, say: Callable[[str], None], interval: float) -> None:
        self._what, self._say, self._interval = what, say, interval
        self._last, self._pending = time.monotonic(), ""

    def update(self, share: float, note: str) -> None:
        """Remember a state; show it if the last line is old."""
        self._pending = f"{self._what} {100 * share:5.1f} %  {note}"
        if time.monotonic() - self._last >= self._interval:
            self.finish()

    def finish(self) -> None:
        """Show the newest state unless it has been shown."""
        if self._pending:
            self._say(self._pending)
            self._last, self._pending = time.monotonic(), ""
