"""What ``visualize.py`` is asked for, and the picture, video and record it leaves."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from rich.console import Console
from rich.progress import track

from common.errors import ConfigError, unknown_choice
from common.files import write_json
from common.masking import MaskerInfo
from common.paths import PROJECT_ROOT, output_path
from evaluation.cli import PROTOCOLS, SOURCES, Parser, whole_number
from evaluation.footage import Footage
from evaluation.masker_choice import WITHOUT_REFERENCE, ReferenceFlags
from evaluation.pictures import Scene, scene_frame, strip_picture
from evaluation.run_directory import Background, RunDirectory, chosen_reference, has_reference
from evaluation.scenes import scene_record
from evaluation.videos import FRAMES_PER_SECOND, VideoFile

FRAMES, EVERY = 6, 20
IMAGES = 12  # at most in one strip
FOOTAGE = ("images", "video_file")
_NOT_WITH_FOOTAGE = (
    "task_name",
    "camera",
    "level",
    "background_source",
    "data_dir",
    "protocol",
    "key",
    "model_dir",
)


def parse_flags(argv: Sequence[str], manual: str, maskers: Sequence[str], levels: Sequence[str]) -> Any:
    """Parse the command line of ``visualize.py``; contradictions are refused.

    Args:
        argv: arguments without the program's name.
        manual: text of ``--help``.
        maskers: the known variants.
        levels: the known levels.

    Raises:
        ConfigError: a flag is unknown, or flags contradict each other.
    """
    flags = _parser(manual, maskers, levels).parse_flags(argv)
    given = [name for name in FOOTAGE if getattr(flags, name) is not None]
    if len(given) > 1:
        raise ConfigError("--images and --video_file were both given.", "Give one of them.")
    flags.footage = given[0] if given else None
    flags.run_masker, flags.masker = flags.masker, flags.masker or "tiny"
    if flags.masker not in maskers:
        raise unknown_choice("masker", flags.masker, maskers)
    if flags.footage:
        _check_footage(flags)
    if (flags.original_image is None) != (flags.masked_image is None):
        raise ConfigError("--original_image and --masked_image belong together.", "Give both or none.")
    if reference_flags(flags).given and flags.original_image is None and flags.model_dir is None:
        raise ConfigError(
            "Points and parts of a reference were given without the reference.",
            "Add --original_image and --masked_image, to whose pixels they belong.",
        )
    if flags.model_dir and flags.camera:
        raise ConfigError("The agent of --model_dir has cameras of its own.", "Leave --camera out.")
    if flags.model_dir and flags.masker_options:
        raise ConfigError(
            "--masker_options change the masker that the agent of --model_dir was trained with.",
            "Leave one of them out.",
        )
    images = flags.footage == "images"
    flags.every = flags.every or (1 if images else EVERY)
    flags.frames = flags.frames or (IMAGES if images else FRAMES)
    return flags


def _check_footage(flags: argparse.Namespace) -> None:
    what = f"--{flags.footage}"
    for name in _NOT_WITH_FOOTAGE:
        if getattr(flags, name) is not None:
            raise ConfigError(f"{what} and --{name} were both given.", "Footage has no task, level or agent.")
    if flags.masker == "groundtruth":
        raise ConfigError(
            f"{what} has no simulator whose mask --masker groundtruth could show.", "Name another."
        )
    if flags.masker not in WITHOUT_REFERENCE and flags.original_image is None:
        raise ConfigError(
            f"{what} needs --original_image and --masked_image: what to keep.", "annotate.py makes them."
        )


def _parser(manual: str, maskers: Sequence[str], levels: Sequence[str]) -> Parser:
    parser = Parser("visualize.py", manual)
    what = parser.add_argument_group("what to look at")
    what.add_argument("--task_name", metavar="TASK", help="default walker_walk, or the run's")
    what.add_argument(
        "--level", metavar="LEVEL", help=f"{', '.join(levels)}; several joined by + (default train)"
    )
    what.add_argument("--background_source", metavar="|".join(SOURCES), help="default dmcgb")
    what.add_argument("--data_dir", metavar="DIR", help="benchmark data (default: SAMG_DATA, then the cache)")
    what.add_argument("--protocol", metavar="|".join(PROTOCOLS))
    what.add_argument("--key", metavar="green|black|segmentation", help="how video pixels are chosen")
    what.add_argument(
        "--camera", nargs="+", metavar="NAME", help="adroit: one or several; default the task's"
    )
    what.add_argument("--model_dir", metavar="RUN", help="let the agent of a run act, with its masker")
    what.add_argument("--images", metavar="DIR", help="a folder of pictures instead of a simulator")
    what.add_argument("--video_file", metavar="FILE", help="a video instead of a simulator")

    masker = parser.add_argument_group("the masker")
    masker.add_argument("--masker", metavar="|".join(maskers), help="default tiny, or the run's")
    masker.add_argument(
        "--masker_options",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="such as passes=1 mask_from=map; all stand in cfgs/masker",
    )
    masker.add_argument("--original_image", metavar="FILE", help="reference frame (default: the task's)")
    masker.add_argument("--masked_image", metavar="FILE", help="its mask")
    masker.add_argument("--extra_points_list", nargs="*", metavar="X Y")
    masker.add_argument("--extra_masked_images_list", nargs="*", metavar="FILE")

    how = parser.add_argument_group("how")
    positive = whole_number(1)
    how.add_argument(
        "--frames", type=positive, help=f"in the strip (default {FRAMES}; images: up to {IMAGES})"
    )
    how.add_argument(
        "--every", type=positive, help=f"frames from one to the next (default {EVERY}; images: 1)"
    )
    how.add_argument("--length", type=positive, help="frames of the video (default: what the strip spans)")
    how.add_argument("--no_video", action="store_true", help="only the strip and the record")
    how.add_argument("--seed", type=whole_number(0), default=0)
    how.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    how.add_argument("--out", metavar="PNG", help="default: runs/pictures/TASK-LEVEL-MASKER.png")
    how.add_argument("--debug", action="store_true", help="tracebacks instead of two-line errors")
    return parser


def open_run(flags: Any) -> RunDirectory | None:
    """Return the run of ``--model_dir``, checked against ``--task_name``; None without one."""
    if flags.model_dir is None:
        return None
    run = RunDirectory.open(flags.model_dir)
    run.check_task(None, flags.task_name)
    return run


def choose_background(flags: Any, own: Background | None) -> Background:
    """Return the level and its rules: those of the flags, else the run's, else the clean scene.

    Args:
        flags: from ``parse_flags``.
        own: the run's; None without a run.
    """
    base = own or Background(("train",), SOURCES[0], None, PROTOCOLS[0], None, None)
    changes = {
        "levels": None if flags.level is None else (flags.level,),
        "source": flags.background_source,
        "data_dir": flags.data_dir,
        "protocol": flags.protocol,
        "key": flags.key,
    }
    return dataclasses.replace(base, **{k: value for k, value in changes.items() if value is not None})


def reference_flags(flags: Any) -> ReferenceFlags:
    """Return the reference that the flags name."""
    return ReferenceFlags(
        flags.original_image, flags.masked_image, flags.extra_points_list, flags.extra_masked_images_list
    )


def task_config(flags: Any, task: str) -> list[str]:
    """Return the overrides that bring a task's reference and cameras; none where it has no file of them."""
    name = task.removeprefix("adroit_")
    own = flags.original_image is None and flags.masker not in WITHOUT_REFERENCE
    known = (PROJECT_ROOT / "cfgs" / "task" / f"{name}.yaml").is_file()
    cameras = [f"camera=[{','.join(flags.camera)}]"] if flags.camera else []
    return [*([f"task={name}"] if own or known else []), *cameras]


def masker_settings(flags: Any, config: Any) -> dict[str, Any]:
    """Return the arguments of ``samg.build_masker``: the configured ones, changed by ``--masker_options``."""
    options: Any = OmegaConf.to_container(OmegaConf.from_dotlist(list(flags.masker_options)))
    return {**config.masker, **options}


def masker_reference(flags: Any, config: Any) -> dict[str, Any] | list[dict[str, Any]] | None:
    """Return what ``samg.load_reference`` reads: the flags' reference, else the configured task's.

    Returns:
        None where the masker needs no reference.

    Raises:
        ConfigError: it does, and the task has none.
    """
    if flags.masker in WITHOUT_REFERENCE:
        return None
    if flags.original_image is not None:
        named = vars(reference_flags(flags))
        return {name: () if value is None else value for name, value in named.items()}
    chosen = chosen_reference(config)
    if not has_reference(chosen):
        raise ConfigError(
            f"{config.task_name} has no reference image.",
            "Give --original_image and --masked_image (annotate.py makes them), or --masker groundtruth.",
        )
    return chosen


@dataclass(frozen=True)
class Showing:
    """What to draw, and what is known of it.

    Attributes:
        out: the picture; video and record lie beside it.
        title: the first line.
        source: where the frames come from, in words.
        masker: who masks.
        frames: columns of the strip.
        every: frames from one column to the next.
        total: how many frames there are at most; None where nobody knows.
        fps: of the video; None for no video.
        facts: what the record says besides.
    """

    out: Path
    title: str
    source: str
    masker: MaskerInfo
    frames: int
    every: int
    total: int | None
    fps: float | None = FRAMES_PER_SECOND
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_task(
        cls, flags: Any, task: str, rules: Mapping[str, Any], actor: str, masker: MaskerInfo
    ) -> Showing:
        """Describe an episode.

        Args:
            flags: from ``parse_flags``.
            task: its name.
            rules: ``level`` and further arguments of the environment.
            actor: who acts, in words.
            masker: who masks.
        """
        level = str(rules["level"])
        drawn = "" if level == "train" else f"{rules['source']} data, protocol {rules['protocol']} · "
        span = 1 + (flags.frames - 1) * flags.every
        known = {key: value for key, value in rules.items() if key != "camera" or value is not None}
        return cls(
            out=_picture_path(flags.out, task, level, masker.variant),
            title=f"{task} · {level}",
            source=f"{drawn}{actor}, seed {flags.seed}",
            masker=masker,
            frames=flags.frames,
            every=flags.every,
            total=max(flags.length or 0, span),
            fps=None if flags.no_video else FRAMES_PER_SECOND,
            facts={"task": task, **known, "actor": actor, "seed": flags.seed},
        )

    @classmethod
    def of_footage(cls, flags: Any, footage: Footage, masker: MaskerInfo) -> Showing:
        """Describe pictures or a video: all of it is masked, unless ``--length`` says how much."""
        return cls(
            out=_picture_path(flags.out, footage.name, masker.variant),
            title=footage.name,
            source="your pictures" if flags.images else "your video",
            masker=masker,
            frames=flags.frames,
            every=flags.every,
            total=flags.length or footage.length,
            fps=None if flags.no_video else footage.fps,
            facts={"footage": footage.name},
        )

    def show(self, scenes: Iterable[Scene]) -> list[Path]:
        """Draw the scenes; return the files: picture, record, and video unless it failed, which only warns.

        Raises:
            ValueError: there is no scene.
        """
        kept: list[Scene] = []
        records: list[dict[str, Any]] = []
        video_path = self.out.with_suffix(".mp4")
        video = None if self.fps is None else VideoFile(video_path, self.fps)
        for number, scene in enumerate(_shown(scenes, self.total)):
            records.append(scene_record(scene))
            if number % self.every == 0 and len(kept) < self.frames:
                kept.append(scene)
            if video is not None:
                video.add(scene_frame(scene, self.title))
        if not kept:
            raise ValueError("there is no scene to show")
        strip_picture(self.out, kept, self.title, f"{self.source} · {self._summary(records)}")
        record = {"title": self.title, "about": self.source, **self.facts, "masker": self.masker.to_dict()}
        write_json(self.out.with_suffix(".json"), {**record, "mean": _means(records), "frames": records})
        files = [self.out, self.out.with_suffix(".json")]
        return [*files, video_path] if video is not None and video.close() else files

    def _summary(self, records: Sequence[dict[str, Any]]) -> str:
        words = f"masker {self.masker.variant} ({self.masker.fingerprint[:12]})"
        means = _means(records)
        if "iou" in means:
            plural = "" if len(records) == 1 else "s"
            words += f" · mean IoU {means['iou']:.2f} over {len(records)} frame{plural}"
        return words


def _shown(scenes: Iterable[Scene], total: int | None) -> Iterable[Scene]:
    console = Console(stderr=True)
    hidden = not console.is_terminal  # a log file wants no bar
    return track(
        scenes, "masking", total=total, console=console, transient=True, disable=hidden, show_speed=False
    )


def _means(records: Sequence[dict[str, Any]]) -> dict[str, float]:
    names = ("mask_area", "iou", "recall", "precision")
    return {
        name: float(np.mean([record[name] for record in records])) for name in names if name in records[0]
    }


def _picture_path(out: str | None, *parts: str) -> Path:
    """Return where the picture goes: ``out``, or a file named after ``parts`` in ``runs/pictures``."""
    if out is None:
        return PROJECT_ROOT / "runs" / "pictures" / f"{'-'.join(parts)}.png"
    path = output_path(out)
    return path if path.suffix.lower() == ".png" else path.with_name(f"{path.name}.png")
