"""Evaluate a trained model on a split of its data, or on other labeled images."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from striate.core.errors import SettingError

if TYPE_CHECKING:
    from striate.run.run import Run

# Without --operating-point these flags would have no effect.
OPERATING_POINT_FLAGS = ("recall", "selective_accuracy", "by", "out", "overwrite")


def configure_evaluate(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `striate evaluate`."""
    parser.add_argument("run_folder", metavar="RUN", help="run folder or its name")
    parser.add_argument(
        "--split",
        choices=("train", "val", "test"),
        help="split to evaluate (default: test, or val if there is no test split)",
    )
    parser.add_argument(
        "--data",
        metavar="DATA",
        help="evaluate other labeled images: a folder or CSV with the same class names",
    )
    parser.add_argument(
        "--operating-point",
        metavar="CLASS",
        help="choose decision threshold, temperature and review band (probabilities to "
        "review by hand) for this class on the validation split; evaluate them on the "
        "test split; write a report",
    )
    parser.add_argument(
        "--recall",
        type=float,
        metavar="F",
        help="operating point: target recall of CLASS, 0-1 (default 0.95)",
    )
    parser.add_argument(
        "--selective-accuracy",
        type=float,
        metavar="F",
        help="operating point: target accuracy of the predictions outside the review "
        "band, 0-1 (default 0.98)",
    )
    parser.add_argument(
        "--by",
        metavar="COLUMN,…",
        help="operating point: also show results for each value of these CSV columns, "
        "comma-separated",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="operating point: output folder (default runs/evaluate/RUN)",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="operating point: replace the folder given by --out",
    )


def run_evaluate(options: argparse.Namespace) -> int:
    """Evaluate a run and print metrics; return 1 if files could not be used."""
    from striate.run.run import Run

    _check_flags(options)
    run = Run(options.run_folder)
    if options.operating_point is None:
        return _print_scores(run, options)
    return _print_operating_point(run, options)


def _check_flags(options: argparse.Namespace) -> None:
    """Raise an error for flags that have no effect without `--operating-point`."""
    for name in OPERATING_POINT_FLAGS:
        value = getattr(options, name)
        if value not in (None, False) and options.operating_point is None:
            flag = f"--{name.replace('_', '-')}"
            what = f"{flag} has no effect without --operating-point"
            raise SettingError(what, where=flag, fix="add --operating-point CLASS")


def _print_scores(run: Run, options: argparse.Namespace) -> int:
    from striate.cli.printing import print_score, print_skipped
    from striate.run.run import score_as_dict

    subset, name, skipped = run.subset_for(options.data, options.split)
    score = run.predict_subset(subset).metrics()
    if options.json:
        scores = {"run": str(run.path), "split": name, **score_as_dict(score)}
        print(json.dumps({**scores, "skipped": len(skipped)}))
    else:
        print_score(name, score)
        print_skipped(skipped)
    return 1 if skipped else 0


def _print_operating_point(run: Run, options: argparse.Namespace) -> int:
    from striate.cli.printing import console, print_skipped, wide_console
    from striate.report.terminal import print_blocks
    from striate.workflows.evaluate.operating_point import operating_point

    names = ("recall", "selective_accuracy")
    targets = {name: getattr(options, name) for name in names}
    result = operating_point(
        run,
        options.operating_point,
        by=tuple(name for name in (options.by or "").split(",") if name),
        data=options.data,
        split=options.split,
        **{name: share for name, share in targets.items() if share is not None},
    )
    folder = result.save(options.out, options.overwrite)
    if options.json:
        more = {"folder": str(folder), "skipped": len(result.skipped)}
        print(json.dumps({**result.as_dict(), **more}))
    else:
        print_blocks(result.blocks, wide_console())
        print_skipped(result.skipped)
        console().print(f"report  {folder / 'report.html'}", markup=False)
    return 1 if result.skipped else 0
