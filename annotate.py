"""Make reference images: the picture, the mask and the points that tell SAM-G what the agent should see.

python annotate.py --from-simulator                  # all domains, into reference_images/
python annotate.py --from-simulator walker finger    # some of them
python annotate.py --name mytask --image frame.png --mask cutout.png --part ball.png --points 40 24 23 68
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch  # noqa: F401  (must be loaded before MuJoCo's OpenGL libraries)
from PIL import Image

from common.errors import ConfigError, run_script
from common.files import atomic_path, read_json, write_bytes
from common.paths import PROJECT_ROOT, output_path
from samg import Reference

POINTS_FILE = "points.json"


def main() -> None:
    """Write NAME_0.png (the picture), NAME_masked_0.png (its mask), NAME_masked_0_K.png (masks of parts).

    Masks are PNG with 255 on the object and 0 elsewhere. Points are (x, y) pixels, x to the right; they are
    filed in points.json beside the images and printed as YAML for a task's configuration.

    With --from-simulator everything is drawn anew, always the same. Otherwise --image and --mask name files
    that you made (a mask is a binary image or the object cut out on black; JPEG cut-outs are read, too); they
    are checked and written in the form above.
    """
    args = _parse(sys.argv[1:])
    directory = output_path(args.out)
    if args.from_simulator is not None:
        points = {domain: _from_simulator(domain, directory) for domain in args.from_simulator}
    else:
        points = {args.name: _from_files(args, directory)}
    _file_points(points, directory)
    for name, pairs in points.items():
        print(f"# {name}\nextra_points_list: {json.dumps(pairs)}")  # noqa: T201 (the result of the command)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=main.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--from-simulator", nargs="*", metavar="DOMAIN", help="draw these (none named: all)")
    parser.add_argument("--name", help="what the files are called by")
    parser.add_argument("--image", help="the plain picture, as the environment's camera sees it")
    parser.add_argument("--mask", help="binary mask or cut-out of everything that matters")
    parser.add_argument("--part", action="append", default=[], help="mask of a part; may be repeated")
    parser.add_argument("--points", nargs="*", type=int, default=[], metavar="X Y", help="pixels on the mask")
    parser.add_argument("--out", default=str(PROJECT_ROOT / "reference_images"), help="folder to write into")
    args = parser.parse_args(arguments)
    if args.from_simulator is None:
        missing = [flag for flag in ("name", "image", "mask") if not getattr(args, flag)]
        if missing:
            raise ConfigError(
                f"--{missing[0]} is missing.", "Give --name, --image and --mask, or use --from-simulator."
            )
    elif not args.from_simulator:
        from envs.reference_scene import POSES, VIEWS

        args.from_simulator = [*POSES, *VIEWS]
    return args


def _from_simulator(domain: str, directory: Path) -> list[list[int]]:
    from envs.reference_scene import draw_reference

    picture = draw_reference(domain)
    reference = Reference.from_arrays(picture.image, picture.mask, picture.points, list(picture.parts))
    return _write(domain, reference, directory)


def _from_files(args: argparse.Namespace, directory: Path) -> list[list[int]]:
    return _write(args.name, Reference.load(args.image, args.mask, args.points, args.part), directory)


def _write(name: str, reference: Reference, directory: Path) -> list[list[int]]:
    """Write the PNG files of one reference and return its points as whole numbers."""
    _write_png(directory / f"{name}_0.png", reference.image)
    _write_png(directory / f"{name}_masked_0.png", reference.mask)
    for index, part in enumerate(reference.part_masks, start=1):
        _write_png(directory / f"{name}_masked_0_{index}.png", part)
    return [[int(x), int(y)] for x, y in reference.points]


def _write_png(path: Path, pixels: np.ndarray) -> None:
    """Write uint8 (H, W, 3), or bool (H, W) as 0 and 255."""
    values = pixels.astype(np.uint8) * 255 if pixels.dtype == bool else pixels
    with atomic_path(path) as temporary:
        Image.fromarray(values).save(temporary, format="PNG")


def _file_points(points: dict[str, list[list[int]]], directory: Path) -> None:
    path = directory / POINTS_FILE
    filed = {**(read_json(path, "points file") if path.exists() else {}), **points}
    lines = [f"  {json.dumps(name)}: {json.dumps(filed[name])}" for name in sorted(filed)]
    write_bytes(path, ("{\n" + ",\n".join(lines) + "\n}\n").encode())


if __name__ == "__main__":
    run_script(main)
