"""Judge a trained network on a part of its own data, or on other labeled images."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from striate.core.errors import SettingError

if TYPE_CHECKING:
    from striate.run.run import Run

# Of a detection; without one they would change nothing.
OF_DETECTION = ("recall", "band", "by", "out", "overwrite")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the run, what to judge it on, and the class to be found."""
    parser.add_argument("run_folder", metavar="RUN", help="a run folder, or its name")
    parser.add_argument(
        "--part", choices=("train", "val", "test"), help="test where there is one"
    )
    parser.add_argument("--data", metavar="DATA", help="other images, laid out alike")
    parser.add_argument(
        "--operating-point",
        metavar="CLASS",
        help="find this class: threshold, calibration and an unsure band chosen on "
        "validation, judged on test, with a page",
    )
    parser.add_argument(
        "--recall",
        type=float,
        metavar="SHARE",
        help="of it, the share to be found (0.95)",
    )
    parser.add_argument(
        "--band",
        type=float,
        metavar="SHARE",
        help="of the answers outside the unsure band, the share to be right (0.98)",
    )
    parser.add_argument(
        "--by", metavar="COLUMN,…", help="also by the values of these columns of a CSV"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="the page's folder (runs/evaluate/RUN)"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace what is in --out"
    )


def run(options: argparse.Namespace) -> int:
    """Judge and print; with findings of unusable files the exit code is 1."""
    from striate.run.run import Run

    _check(options)
    found = Run(options.run_folder)
    if options.operating_point is None:
        return _score(found, options)
    return _detect(found, options)


def _check(options: argparse.Namespace) -> None:
    """Refuse what only a detection has, where none is asked for."""
    for name in OF_DETECTION:
        given = getattr(options, name)
        if given is not None and given is not False and options.operating_point is None:
            what = f"--{name} is of a detection"
            raise SettingError(
                what, where=f"--{name}", fix="add --operating-point CLASS"
            )


def _score(found: Run, options: argparse.Namespace) -> int:
    from striate.cli.printing import print_score, print_skipped
    from striate.run.run import score_dict

    subset, name, skipped = found.subset_for(options.data, options.part)
    score = found.judge(subset).score()
    if options.json:
        figures = {"run": str(found.path), "split": name, **score_dict(score)}
        print(json.dumps({**figures, "skipped": len(skipped)}))
    else:
        print_score(name, score)
        print_skipped(skipped)
    return 1 if skipped else 0


def _detect(found: Run, options: argparse.Namespace) -> int:
    from striate.cli.printing import console, print_skipped, wide_console
    from striate.report.terminal import show
    from striate.workflows.evaluate.operating_point import operating_point

    shares = {"recall": options.recall, "band": options.band}
    done = operating_point(
        found,
        options.operating_point,
        by=tuple(name for name in (options.by or "").split(",") if name),
        data=options.data,
        split=options.part,
        **{name: share for name, share in shares.items() if share is not None},
    )
    folder = done.save(options.out, options.overwrite)
    if options.json:
        more = {"folder": str(folder), "skipped": len(done.skipped)}
        print(json.dumps({**done.as_dict(), **more}))
    else:
        show(done.blocks, wide_console())
        print_skipped(done.skipped)
        console().print(f"report  {folder / 'report.html'}", markup=False)
    return 1 if done.skipped else 0
