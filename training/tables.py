"""CSV tables that grow by rows, survive crashes and keep their columns in order."""

from __future__ import annotations

import csv
import itertools
import math
from pathlib import Path
from typing import Any

from common import faults
from common.files import atomic_path, fsync_file

STEP = "agent_steps"


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.9g}" if math.isfinite(value) else repr(value)
    return str(value)


class CsvTable:
    """A CSV file whose first column is ``agent_steps``.

    Args:
        path: the file; rows that are there already stay, up to ``resume_step``. With a ``resume_step`` of -1
            the table starts anew, and an old file is kept under another name.
        resume_step: rows of later steps are dropped, because a resumed run writes them anew; a row that was
            cut off by a crash is dropped too.
    """

    def __init__(self, path: Path, resume_step: int = -1) -> None:
        self.path = path
        self.columns: list[str] = []
        self.last_step = -1
        if path.exists() and resume_step < 0:
            path.rename(_free_name(path))
        if path.exists():
            kept = [row for row in self._rows() if self._is_kept(row, resume_step)]
            self.last_step = int(kept[-1][STEP] or -1) if kept else -1
            self._rewrite(kept)

    @staticmethod
    def _is_kept(row: dict[str, str | None], resume_step: int) -> bool:
        step = row.get(STEP) or ""
        return None not in row.values() and step.isdigit() and int(step) <= resume_step

    def _rows(self) -> list[dict[str, str | None]]:
        # A last line without its end was being written when the machine stopped.
        whole_lines = self.path.read_text().rpartition("\n")[0]
        reader = csv.DictReader(whole_lines.splitlines())
        rows: list[dict[str, str | None]] = list(reader)
        self.columns = list(reader.fieldnames or self.columns)
        return rows

    def append(self, row: dict[str, Any]) -> None:
        """Add a row; a column seen for the first time comes last, and the rows before leave it empty."""
        texts = {name: _text(value) for name, value in row.items()}
        self.last_step = int(row[STEP])
        new = [name for name in texts if name not in self.columns]
        if new or not self.path.exists():
            rows = self._rows() if self.path.exists() else []
            self.columns += new
            self._rewrite([*rows, texts])  # type: ignore[list-item]
            return
        faults.point("log.append")
        with self.path.open("a", newline="") as handle:
            csv.DictWriter(handle, self.columns, restval="").writerow(texts)
        faults.point("log.appended")

    def sync(self) -> None:
        """Flush the rows to disk, so that a snapshot never knows of more than the table."""
        if self.path.exists():
            fsync_file(self.path)

    def _rewrite(self, rows: list[dict[str, str | None]]) -> None:
        with atomic_path(self.path, kind="log") as temporary, temporary.open("w", newline="") as handle:
            writer = csv.DictWriter(handle, self.columns, restval="")
            writer.writeheader()
            writer.writerows(rows)


def _free_name(path: Path) -> Path:
    """Return a name beside ``path`` that nothing has: ``train.old-1.csv``, ``train.old-2.csv``, ..."""
    names = (path.with_name(f"{path.stem}.old-{number}{path.suffix}") for number in itertools.count(1))
    return next(name for name in names if not name.exists())
