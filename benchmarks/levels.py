"""What every level changes in the picture of every domain, measured against the training scene.

    python -m benchmarks.levels --source procedural --out runs/levels

At the same states, per domain and level: which share of the agent's, the sky's and the floor's pixels
changed, told apart by the simulator's labels, not by colour. Edges are left out, for there the colours of two
regions blend, and so is what is not the same region in both pictures (a camera that moved shows other places;
the overlap of the two foreground masks says how far). Afterwards every training scene is drawn once more and
must not have changed. Writes `levels.json`, `levels.md` and `levels.png`; `--into FILE` also replaces the
table between the marks `<!-- levels -->` and `<!-- end -->` of a Markdown file.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("MUJOCO_GL", "egl")

import numpy as np
from PIL import Image, ImageDraw
from rich.progress import track

from benchmarks.mask_tables import table
from common.errors import InputError, run_script
from common.files import write_bytes, write_json
from common.paths import output_path
from common.seeding import counter_rng
from envs import episode_seed, make_env
from envs.level_names import PARTS, expand_levels, get_level, supported_groups
from envs.pixel_env import PixelEnv
from envs.video_background import background_pixels, ground_geoms

TASKS = {
    "walker": "walker_walk",
    "cartpole": "cartpole_swingup",
    "ball_in_cup": "cup_catch",
    "finger": "finger_spin",
    "cheetah": "cheetah_run",
    "hopper": "hopper_stand",
    "quadruped": "quadruped_walk",
}
REGIONS = ("agent", "sky", "floor")
THRESHOLD = 8  # of 255, in any channel: less is the mirror image on the floor, or rounding
SHOWN = (
    "train",
    "color_hard",
    "video_easy",
    "video_hard",
    "objects_color_hard",
    "light_position_hard",
    "light_color_hard",
    "moving_light_hard",
    "cam_pos_hard",
    "cam_id_1",
    "distracting_cs_0.1",
    "distracting_cs_0.5",
    "object_size_hard",
    "second_object",
)
_MARKS = ("<!-- levels -->", "<!-- end -->")


def parse() -> argparse.Namespace:
    """Read the command line."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--source", default="procedural", help="procedural or dmcgb")
    parser.add_argument("--data-dir", default=None)
    parser.add_argument("--domains", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--levels", nargs="+", default=None, help="levels or groups; default: all supported")
    parser.add_argument("--episodes", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40, help="agent steps before the picture")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="runs/levels", help="folder for the results")
    parser.add_argument("--into", default=None, metavar="FILE", help="Markdown file to put the table into")
    return parser.parse_args()


def columns_of(domain: str, levels: list[str] | None) -> list[tuple[str, str, dict[str, Any]]]:
    """Return (title, level, options) of what is measured: levels of two protocols appear once under each."""
    found: list[tuple[str, str, dict[str, Any]]] = []
    for name in expand_levels(levels or list(supported_groups(domain)), domain):
        level = get_level(name)
        if level.background_color is None and level.video is None:
            found.append((name, name, {}))
            continue
        found.append((f"{name} (dmcgb)", name, {"protocol": "dmcgb"}))
        found.append((f"{name} (samg)", name, {"protocol": "samg"}))
        if level.video is not None:
            found.append((f"{name} (segmentation)", name, {"key": "segmentation"}))
    return found


def moment(env: PixelEnv, seed: int, episode: int, steps: int) -> dict[str, Any]:
    """Go to one moment of an episode and return its picture and its regions.

    Returns:
        ``pixels`` uint8 (H, W, 3), ``qpos``, and for each of ``REGIONS`` bool (H, W).
    """
    shape = env.action_space.shape or ()
    actions = counter_rng(seed, "benchmark/levels", episode).uniform(-1, 1, (steps, *shape))
    env.state = {
        "episode": episode,
        "seed": episode_seed(seed, episode),
        "actions": actions.astype(np.float32),
    }
    observation, info = env.observe()
    labels = env.renderer.render_segmentation(env.data)
    sky = background_pixels(labels, np.empty(0, np.int32))
    behind = background_pixels(labels, ground_geoms(env.model))
    return {
        "pixels": observation["pixels"].copy(),
        "qpos": env.data.qpos.copy(),
        "agent": info["foreground"],
        "sky": sky,
        "floor": behind & ~sky & ~info["foreground"],
    }


def interior(region: np.ndarray) -> np.ndarray:
    """Return the pixels of a region, bool (H, W), whose eight neighbours belong to it too."""
    padded = np.pad(region, 1, mode="edge")
    height, width = region.shape
    inside = region.copy()
    for y in range(3):
        for x in range(3):
            inside &= padded[y : y + height, x : x + width]
    return inside


def compare(here: Mapping[str, Any], plain: Mapping[str, Any]) -> dict[str, float | None]:
    """Compare a picture with the training scene's at the same state.

    Returns:
        per region the share of its pixels that changed by more than ``THRESHOLD`` and, as ``*_at_all``, by
        anything; None where the region has no interior in common. ``overlap``: intersection over union of
        the two foreground masks. ``agent_pixels``: size of the own one.
    """
    difference = np.abs(here["pixels"].astype(int) - plain["pixels"]).max(axis=-1)
    found: dict[str, float | None] = {}
    for region in REGIONS:
        inside = interior(here[region]) & interior(plain[region])
        found[region] = float((difference[inside] > THRESHOLD).mean()) if inside.any() else None
        found[f"{region}_at_all"] = float((difference[inside] > 0).mean()) if inside.any() else None
    union = (here["agent"] | plain["agent"]).sum()
    found["overlap"] = float((here["agent"] & plain["agent"]).sum() / union) if union else None
    found["agent_pixels"] = float(here["agent"].sum())
    return found


def mean(rows: list[dict[str, float | None]]) -> dict[str, float | None]:
    """Take the mean of every entry over those rows that have it."""
    out: dict[str, float | None] = {}
    for key in rows[0]:
        values = [value for row in rows if (value := row[key]) is not None]
        out[key] = float(np.mean(values)) if values else None
    return out


def measure(args: argparse.Namespace, domain: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Measure every level of one domain; return the figures by title, and pictures by level."""
    common = {"seed": args.seed, "foreground": True}
    train: Any = make_env(TASKS[domain], **common)
    plain = [moment(train, args.seed, episode, args.steps) for episode in range(args.episodes)]
    figures, pictures = {}, {"train": plain[args.episodes // 2]["pixels"]}
    columns = columns_of(domain, args.levels)
    for title, level, options in track(columns, description=f"{domain:12}"):
        env: Any = make_env(TASKS[domain], level, args.source, args.data_dir, **common, **options)
        moments = [moment(env, args.seed, episode, args.steps) for episode in range(args.episodes)]
        env.close()
        pairs = list(zip(moments, plain, strict=True))
        figures[title] = mean([compare(*pair) for pair in pairs])
        figures[title]["same_physics"] = all(np.array_equal(a["qpos"], b["qpos"]) for a, b in pairs)
        pictures.setdefault(level, moments[args.episodes // 2]["pixels"])
    again = [moment(train, args.seed, episode, args.steps) for episode in range(args.episodes)]
    unchanged = all(np.array_equal(a["pixels"], b["pixels"]) for a, b in zip(again, plain, strict=True))
    train.close()
    return {"levels": figures, "training_scene_unchanged": unchanged}, pictures


def report(results: Mapping[str, Any]) -> str:
    """Return the table: a row per level, a column per domain, in percent: agent / sky / floor (overlap)."""
    domains = list(results["domains"])
    titles = {title for domain in domains for title in results["domains"][domain]["levels"]}

    def percent(value: float | None) -> str:
        return "–" if value is None else f"{100 * value:.0f}"

    def cell(domain: str, title: str) -> str:
        figures = results["domains"][domain]["levels"].get(title)
        if figures is None:
            return "not supported"
        shares = " / ".join(percent(figures[region]) for region in REGIONS)
        moved = figures["overlap"] is None or figures["overlap"] < 1
        return f"{shares} ({percent(figures['overlap'])})" if moved else shares

    rows = [
        [f"`{title}`", *(cell(domain, title) for domain in domains)] for title in sorted(titles, key=_order)
    ]
    return table(["level", *domains], rows) + "\n"


def _order(title: str) -> tuple[int, str]:
    """Return where a title stands in the table: as in names of combinations, ``train`` first."""
    ranks = [rank for rank, part in enumerate(PARTS) if title.startswith(part)]
    return (ranks[0] if ranks else -1, title)


def sheet(pictures: Mapping[str, Mapping[str, np.ndarray]], path: Path) -> None:
    """Save a picture: a row per domain, a column per level of ``SHOWN``, white where not supported."""
    size, head, side = 84, 14, 4
    shown = [level for level in SHOWN if any(level in of_domain for of_domain in pictures.values())]
    image = Image.new("RGB", (len(shown) * (size + side), head + len(pictures) * (size + side)), "white")
    draw = ImageDraw.Draw(image)
    for column, level in enumerate(shown):
        name = level.replace("distracting_cs", "distr_cs").replace("objects", "obj").replace("object", "obj")
        draw.text((column * (size + side), 1), name.replace("position", "pos"), fill="black", font_size=9)
        for row, of_domain in enumerate(pictures.values()):
            if level in of_domain:
                place = (column * (size + side), head + row * (size + side))
                image.paste(Image.fromarray(of_domain[level]), place)
    image.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def put_into(path: Path, text: str) -> None:
    """Replace what stands between the marks of a Markdown file.

    Raises:
        InputError: the file lacks the marks.
    """
    before, start, rest = path.read_text().partition(_MARKS[0])
    _, end, after = rest.partition(_MARKS[1])
    if not (start and end):
        raise InputError(
            f"{path} has no marks {_MARKS[0]} and {_MARKS[1]}.", "Add them where the table goes."
        )
    write_bytes(path, f"{before}{start}\n\n{text}\n{end}{after}".encode())


def main() -> None:
    """Measure, write the results, and print the table."""
    args = parse()
    results: dict[str, Any] = {
        "source": args.source,
        "seed": args.seed,
        "episodes": args.episodes,
        "steps": args.steps,
        "threshold": THRESHOLD,
        "domains": {},
    }
    out = output_path(args.out)
    pictures = {}
    for domain in args.domains:
        results["domains"][domain], pictures[domain] = measure(args, domain)
        write_json(out / "levels.json", results)
    text = report(results)
    write_bytes(out / "levels.md", text.encode())
    sheet(pictures, out / "levels.png")
    if args.into is not None:
        put_into(Path(args.into), text)
    print(text)


if __name__ == "__main__":
    run_script(main)
