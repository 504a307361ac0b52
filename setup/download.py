"""Download what is too large for the repository: the benchmark's backgrounds and the released weights.

    python setup/download.py dmcgb                       # colours and clips of DMC-GB, about 80 MB
    python setup/download.py dmcgb --only color          # colours alone, 90 kB
    python setup/download.py dmcgb --dir /data/dmcgb     # then: export SAMG_DATA=/data/dmcgb
    python setup/download.py dmcgb --archive dmcgb.zip   # without a network
    python setup/download.py paper                       # EfficientViT-SAM L1 and DINOv2 ViT-B/14
    python setup/download.py fast                        # EfficientViT-SAM L0 and DINOv2 ViT-S/14

Backgrounds come from the public repository of DMC-GB at a pinned commit; each file is checked against its
hash before it gets its name, and files that are there already are not fetched again. The folder is ``--dir``,
else ``SAMG_DATA``, else ``dmcgb`` in the cache (``SAMG_CACHE``, ``~/.cache/samg``). A mirror: ``--base-url``
or ``SAMG_DATA_URL``. Exit codes: 0 done, 2 wrong arguments, 3 not to be had or not the published file, 5 disk
full or not writable.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from common.errors import run_script
from common.paths import resolve


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(
        prog="download.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="dmcgb|paper|fast")
    dmcgb = commands.add_parser("dmcgb", help="colours and clips of the generalisation benchmark")
    dmcgb.add_argument("--dir", type=Path, help="where to put them (default: SAMG_DATA or the cache)")
    dmcgb.add_argument(
        "--only",
        help="some parts, separated by commas: color,video_easy,video_hard (default: all)",
        default="color,video_easy,video_hard",
    )
    source = dmcgb.add_mutually_exclusive_group()
    source.add_argument("--base-url", help="folder on a mirror that holds color_easy.pt and the rest")
    source.add_argument("--archive", help="no network: a .zip or .tar of DMC-GB's repository or data folder")
    commands.add_parser("paper", help="released weights of EfficientViT-SAM L1 and DINOv2 ViT-B/14")
    commands.add_parser("fast", help="released weights of EfficientViT-SAM L0 and DINOv2 ViT-S/14")
    return parser.parse_args(arguments)


def download_dmcgb(options: argparse.Namespace) -> None:
    """Fetch the benchmark's data and say where they are."""
    from envs.archive import unpack_dmcgb
    from envs.data import DATA_VARIABLE, data_directory
    from envs.download import fetch_dmcgb

    directory = data_directory(resolve(options.dir) if options.dir else None)
    parts = [part.strip().replace("-", "_") for part in options.only.split(",") if part.strip()]
    if options.archive:
        fetched, how = unpack_dmcgb(options.archive, directory, parts), "unpacked"
    else:
        fetched, how = fetch_dmcgb(directory, parts, options.base_url, report=print), "downloaded"
    print(f"{fetched} files {how}; {directory} is complete for: {', '.join(parts)}.")
    if data_directory() != directory:
        print(f"To use them: export {DATA_VARIABLE}={directory}")


def download_released(variant: str) -> None:
    """Fetch the released weights, and say of each file where it is and which one it is."""
    from samg.weights import download_weights

    for path, file in download_weights(variant).items():
        origin = f", {file.repo} at revision {file.revision}" if file.revision else ""
        print(f"{path}\n  sha256 {file.sha256}{origin}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the chosen subcommand."""
    options = parse(arguments)
    if options.command == "dmcgb":
        download_dmcgb(options)
    else:
        download_released(options.command)


if __name__ == "__main__":
    run_script(main)
