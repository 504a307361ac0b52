"""Draw what a masker makes of a task's frames; see ``--help``."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from common.errors import run_script


def main(argv: Sequence[str]) -> None:
    """Draw frames of a task with similarity map, point prompts, mask, and what the agent would see.

    python visualize.py --task_name walker_walk --level video_hard --background_source procedural

    The frames come from one episode of random actions. The reference is the task's own unless
    --original_image and --masked_image are given.
    """
    import envs
    from common.devices import resolve_device
    from common.paths import PROJECT_ROOT
    from envs.levels import LEVELS, get_level
    from evaluation.cli import Parser, whole_number
    from evaluation.pictures import strip_picture
    from evaluation.run_directory import canonical_task
    from evaluation.scenes import random_scenes
    from samg import VARIANTS, Reference, build_masker
    from training.config import compose_config

    parser = Parser("visualize.py", inspect.cleandoc(main.__doc__ or ""))
    parser.add_argument("--task_name", default="walker_walk", metavar="TASK")
    parser.add_argument("--level", default="train", metavar="|".join(LEVELS))
    parser.add_argument("--masker", default="tiny", metavar="|".join(VARIANTS))
    parser.add_argument("--background_source", default="dmcgb", metavar="dmcgb|procedural")
    parser.add_argument("--data_dir", metavar="DIR")
    parser.add_argument("--protocol", default="dmcgb", metavar="dmcgb|samg")
    parser.add_argument("--key", metavar="green|black|segmentation")
    parser.add_argument("--original_image", metavar="FILE")
    parser.add_argument("--masked_image", metavar="FILE")
    parser.add_argument("--extra_points_list", nargs="*", metavar="X Y")
    parser.add_argument("--extra_masked_images_list", nargs="*", metavar="FILE")
    parser.add_argument("--frames", type=whole_number(1), default=6, help="how many frames")
    parser.add_argument("--every", type=whole_number(1), default=20, help="agent steps between frames")
    parser.add_argument("--seed", type=whole_number(0), default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", metavar="PNG", help="default: runs/pictures/TASK-LEVEL-MASKER.png")
    parser.add_argument("--debug", action="store_true", help="tracebacks instead of two-line errors")
    flags = parser.parse_flags(argv)

    task, level = canonical_task(envs.find_task(flags.task_name).name), get_level(flags.level).name
    config = compose_config([f"task={task}", f"masker={_known(flags.masker, VARIANTS)}"])
    settings = dict(config.masker)
    builder = build_masker(settings.pop("variant"), resolve_device(flags.device), **settings)
    own = config if flags.original_image is None else flags
    reference = None
    if flags.masker not in ("none", "groundtruth"):
        reference = Reference.load(
            own.original_image,
            own.masked_image,
            flags.extra_points_list or own.extra_points_list or (),
            flags.extra_masked_images_list or own.extra_masked_images_list or (),
        )
    env = envs.make_env(
        task,
        level,
        flags.background_source,
        flags.data_dir,
        flags.seed,
        foreground=True,
        protocol=flags.protocol,
        key=flags.key,
    )
    masker = builder.fit(reference)
    with closing(env):
        scenes = random_scenes(env, masker, flags.frames, flags.every, flags.seed)
    name = f"{task}-{level}-{flags.masker}.png"
    out = Path(flags.out).expanduser().absolute() if flags.out else PROJECT_ROOT / "runs" / "pictures" / name
    title = f"{task} · {level} · masker {flags.masker}"
    if level != "train":  # which shows no background of any source
        title += f" · {flags.background_source}"
    strip_picture(out, scenes, title)
    sys.stdout.write(f"picture  {out}\n")


def _known(name: str, choices: Sequence[str]) -> str:
    from common.errors import unknown_choice

    if name not in choices:
        raise unknown_choice("masker", name, choices)
    return name


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]), debug="--debug" in sys.argv)
