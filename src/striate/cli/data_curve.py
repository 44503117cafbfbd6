"""Learning curve: train on growing fractions; predict the accuracy for more images."""

from __future__ import annotations

import argparse
import json

from striate.cli.command import add_flags, stdout_for_json
from striate.cli.train import add_folder, add_settings, read_recipe
from striate.core.errors import SettingError

# The command sets fractions and seeds itself, and trains from random weights.
WITHOUT = "fraction", "folds", "fold", "pretrained", "freeze", "trust", "track_norms"

FLAGS = {
    "--fractions F,F,…": "at least three fractions of the training split, "
    "comma-separated (default 0.0625,0.125,0.25,0.5,1)",
    "--seeds N": "number of training runs per fraction, with different seeds (default "
    "3)",
    "--goal F": "target accuracy, 0-1: predict how many training images it needs",
}


def configure_data_curve(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `striate data curve`, training settings included."""
    parser.usage = "striate data curve [DATA] [settings]"
    add_settings(parser, without=WITHOUT)
    add_flags(parser, FLAGS, seeds=3)
    add_folder(parser, "output folder", "runs/curve/DATA-MODEL")


def run_data_curve(options: argparse.Namespace) -> int:
    """Train the untrained networks of the learning curve, and print the curve."""
    recipe = read_recipe(options)
    fractions = _fractions(options.fractions)
    if options.goal is not None and not 0 < options.goal < 1:
        what = f"the target accuracy must be between 0 and 1, got {options.goal:g}"
        raise SettingError(what, where="--goal", fix="write 0.99 for 99 %")

    from striate.cli.printing import console
    from striate.report.terminal import print_blocks
    from striate.run.progress import line_printer
    from striate.workflows.data_curve.findings import (
        curve_blocks,
        curve_dict,
        write_curve_report,
    )
    from striate.workflows.data_curve.learning_curve import FRACTIONS, learning_curve

    with stdout_for_json(options):
        curve = learning_curve(
            recipe,
            fractions=fractions or FRACTIONS,
            seeds=options.seeds,
            out=options.out,
            overwrite=options.overwrite,
            log=line_printer(options.quiet or options.json),
        )
    report = write_curve_report(curve, options.goal)
    if options.json:
        print(json.dumps(curve_dict(curve, options.goal)))
        return 0
    out = console()
    out.soft_wrap = False
    print_blocks(curve_blocks(curve, options.goal), out)
    out.print(f"curve   {curve.path}", markup=False)
    out.print(f"report  {report}", markup=False)
    return 0


def _fractions(text: str | None) -> tuple[float, ...]:
    if text is None:
        return ()
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError as error:
        what = f"'{text}' is not a list of fractions"
        fix = "separate numbers by commas: 0.1,0.3,1"
        raise SettingError(what, where="--fractions", fix=fix) from error
