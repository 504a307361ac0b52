"""Make tables, plots and one page out of result files; see ``--help``."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence

from common.errors import ConfigError, run_script


def main(argv: Sequence[str]) -> None:
    """Make tables, plots and one HTML page out of any number of result files.

    python report.py runs/none runs/tiny runs/groundtruth --baseline 'drqv2 + none' --out runs/report

    Each path is a result file of locoeval.py, a folder of such files, or a run directory of train.py, which
    gives its results, learning curves and pictures. Written to --out: report.html (open it in a browser, it
    needs nothing else), report.md, report.csv (one row per result file), scores.csv (one row per number of
    the tables), report.json, plots/ and pictures/.

    A method is an algorithm with a masker, such as 'drqv2 + tiny'; --label gives what lies at or below a path
    another name. The episodes of a training seed are averaged first; intervals are 95 % intervals of the
    bootstrap over training seeds, stratified by task; where there is one seed they are over its episodes,
    which is marked.

    Results of different protocols or level sources do not enter one table, nor do different maskers, budgets
    or agents under one name: --split protocol source gives tables of their own, --split fingerprint budget
    agent gives methods, and --split data gives levels names of their own.
    """
    from evaluation.cli import Parser, whole_number
    from evaluation.report.grouping import RULES

    parser = Parser("report.py", inspect.cleandoc(main.__doc__ or ""))
    parser.add_argument(
        "paths", nargs="*", metavar="PATH", help="result files, folders of them, run directories"
    )
    parser.add_argument("--out", metavar="DIR", help="where the report goes")
    parser.add_argument("--baseline", metavar="METHOD", help="compare the other methods with this one")
    parser.add_argument("--label", action="append", default=[], metavar="NAME=PATH", help="a method's name")
    parser.add_argument("--split", nargs="+", action="extend", default=[], metavar="|".join(RULES))
    parser.add_argument("--title", default="Results")
    parser.add_argument("--no_published", action="store_true", help="no figures of others")
    parser.add_argument("--pictures", type=whole_number(0), default=12, help="how many pictures at most")
    parser.add_argument("--replicates", type=whole_number(1), default=2000, help="resamples of a bootstrap")
    parser.add_argument("--seed", type=whole_number(0), default=0, help="of the bootstrap")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier report")
    parser.add_argument("--debug", action="store_true", help="tracebacks instead of two-line errors")
    flags = parser.parse_flags(argv)
    if not flags.paths and not flags.label:
        raise ConfigError("No results are named.", "Name result files, folders of them, or run directories.")
    if flags.out is None:
        raise ConfigError(
            "--out is missing.", "Name the folder that the report goes to, such as runs/report."
        )

    from common.paths import output_path
    from evaluation.report import ReportOptions, build_report, write_report
    from evaluation.report.build import check_output

    directory = output_path(flags.out)
    check_output(directory, flags.overwrite)
    options = ReportOptions(
        paths=tuple(flags.paths),
        labels=tuple(flags.label),
        baseline=flags.baseline,
        split=tuple(flags.split),
        title=flags.title,
        published=not flags.no_published,
        pictures=flags.pictures,
        replicates=flags.replicates,
        seed=flags.seed,
    )
    report = build_report(options)
    files = write_report(report, directory, flags.overwrite)
    sys.stdout.write(f"{len(report.entries)} results, {len(report.curves)} learning curves\n")
    for path in files:
        sys.stdout.write(f"report   {path}\n")


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]), debug="--debug" in sys.argv)
