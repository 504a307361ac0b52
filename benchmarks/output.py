"""How scripts here show and keep what they measured: JSON, and the same as Markdown beside it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from common.files import write_bytes, write_json
from common.paths import output_path


def setting_line(setting: Mapping[str, Any]) -> str:
    """Return how something was measured in one line: ``device cpu, threads 1``."""
    return ", ".join(
        f"{name} {' '.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in setting.items()
    )


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Compare two series of the same rounds: median, least and most of the ratios round by round."""
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    return {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}


def shown(found: Mapping[str, float]) -> str:
    """Return a ``ratio`` as text: ``1.69 (1.65 to 1.78)``."""
    return f"{found['median']:.2f} ({found['least']:.2f} to {found['most']:.2f})"


def finish(out: str | None, found: Mapping[str, Any], text: str) -> None:
    """Print the text; with ``out`` also write the figures there (JSON) and the text beside it (Markdown)."""
    print(text)
    if out:
        path = output_path(out)
        write_json(path, dict(found))
        write_bytes(path.with_suffix(".md"), text.encode())
        print(f"Written: {path}, {path.with_suffix('.md')}")
