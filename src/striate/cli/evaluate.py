"""Evaluate a trained model on a split of its data, or on other labeled images."""

from __future__ import annotations

import argparse
import json
import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from striate.cli.command import add_flags, stdout_for_json
from striate.cli.run_flags import NETWORK_FLAGS, open_run
from striate.core.errors import SettingError

if TYPE_CHECKING:
    from striate.run.run import Run

FLAGS = {
    "run_folder RUN": "run folder or its name",
    "--split {train,val,test}": "split to evaluate (default: test, or val if there is "
    "no test split)",
    "--data DATA": "evaluate other labeled images: a folder or CSV with the same "
    "class names; or the new place of the run's images, if they were moved",
    "--operating-point CLASS": "choose a decision threshold and a review band for "
    "this class on validation, evaluate them on test, and store them in the run",
    **NETWORK_FLAGS,
}
OPERATING_POINT_FLAGS = {
    "--recall F": "target recall of CLASS, 0-1 (default 0.95)",
    "--selective-accuracy F": "target accuracy of the predictions outside the review "
    "band, 0-1 (default 0.98)",
    "--by COLUMN,…": "also show the results for each value of these CSV columns",
    "--out DIR": "output folder (default runs/evaluate/RUN)",
    "--overwrite": "replace the folder given by --out",
}


def configure_evaluate(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `striate evaluate`."""
    add_flags(parser, FLAGS)
    group = parser.add_argument_group("with --operating-point")
    add_flags(group, OPERATING_POINT_FLAGS)


def run_evaluate(options: argparse.Namespace) -> int:
    """Evaluate a run and print metrics; return 1 if files could not be used."""
    _check_flags(options)
    run = open_run(options)
    if options.operating_point is None:
        return _print_scores(run, options)
    return _print_operating_point(run, options)


def _check_flags(options: argparse.Namespace) -> None:
    """Raise an error for flags that have no effect without `--operating-point`."""
    for text in OPERATING_POINT_FLAGS:
        flag = text.split()[0]
        value = getattr(options, flag[2:].replace("-", "_"))
        if value not in (None, False) and options.operating_point is None:
            what = f"{flag} has no effect without --operating-point"
            raise SettingError(what, where=flag, fix="add --operating-point CLASS")


def _print_scores(run: Run, options: argparse.Namespace) -> int:
    from striate.cli.printing import (
        console,
        print_accuracies,
        print_next_steps,
        print_scaling,
        print_score,
        print_skipped,
        print_verdict,
    )
    from striate.run.moved_data import use_moved_data
    from striate.run.training_overlap import training_overlap
    from striate.run.verdict import run_verdict

    with stdout_for_json(options):
        if options.data and use_moved_data(run, options.data):
            if not options.json:
                text = f"the data of the run was moved to {options.data} (same hashes)"
                console().print(f"note: {text}", style="dim", markup=False)
            options.data = None
        subset, name, skipped = run.subset_for(options.data, options.split)
        predictions = run.predict_subset(subset)
        overlap = training_overlap(run, subset, predictions) if options.data else None
        verdict = None
        if run.has_training_record:
            verdict = run_verdict(run, name, predictions, other_data=options.data)
    score = predictions.metrics()
    if options.json:
        scores = {"run": str(run.path), "split": name, **asdict(score)}
        more: dict[str, Any] = {"verdict": verdict.as_dict() if verdict else None}
        more["skipped"] = len(skipped)
        more["trained_on"] = overlap.as_dict() if overlap else None
        print(json.dumps({**scores, "temperature": run.temperature, **more}))
    else:
        if verdict:
            print_verdict(verdict)
            print_accuracies(run, name)
        print_score(name, score)
        if overlap:
            text = f"warning: {overlap.sentence}"
            console().print(text, style="yellow", markup=False)
        print_scaling(run)
        print_skipped(skipped)
        if verdict:
            print_next_steps(verdict)
    return 1 if skipped else 0


def _print_operating_point(run: Run, options: argparse.Namespace) -> int:
    from striate.cli.printing import console, print_skipped
    from striate.report.terminal import print_blocks
    from striate.run.layout import check_out
    from striate.workflows.evaluate.operating_point import operating_point

    check_out(options.out, options.overwrite)
    names = ("recall", "selective_accuracy")
    targets = {name: getattr(options, name) for name in names}
    with stdout_for_json(options):
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
        print_blocks(result.blocks, console())
        print_skipped(result.skipped)
        console().print(f"report  {folder / 'report.html'}", markup=False)
        text = f"stored for: striate predict {shlex.quote(str(run.path))} IMAGE "
        text += "--operating-point "
        text += shlex.quote(options.operating_point)
        console().print(text, markup=False)
    return 1 if result.skipped else 0
