"""Train at growing fractions and foretell what more images would buy."""

from __future__ import annotations

import argparse
import json

from striate.cli.train import add_folder, add_settings, read_recipe
from striate.core.errors import SettingError

# The curve goes through fractions itself, deals each seed anew, and begins from noise.
WITHOUT = (
    *("fraction", "folds", "fold", "pretrained", "freeze", "trust"),
    "track_norms",
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the curve's own flags and those of training."""
    parser.usage = "striate data curve [DATA] [settings]"
    add_settings(parser, without=WITHOUT)
    parser.add_argument(
        "--fractions",
        metavar="F,F,…",
        help="of the training split, at least three (0.0625,0.125,0.25,0.5,1)",
    )
    parser.add_argument(
        "--seeds", type=int, metavar="N", default=3, help="runs a fraction (3)"
    )
    parser.add_argument(
        "--goal", type=float, metavar="F", help="say how many images this would take"
    )
    add_folder(parser, "curve's folder")


def run(options: argparse.Namespace) -> int:
    """Train what is not trained yet, and say what the curve says."""
    recipe = read_recipe(options)
    fractions = _fractions(options.fractions)
    if options.goal is not None and not 0 < options.goal < 1:
        what = f"a goal is an accuracy between 0 and 1, got {options.goal:g}"
        raise SettingError(what, where="--goal", fix="write 0.99 for 99 %")

    from striate.cli.printing import console
    from striate.report.terminal import show
    from striate.run.progress import teller
    from striate.workflows.data_curve.findings import facts, findings, write_curve
    from striate.workflows.data_curve.learning_curve import FRACTIONS, learning_curve

    curve = learning_curve(
        recipe,
        fractions=fractions or FRACTIONS,
        seeds=options.seeds,
        out=options.out,
        overwrite=options.overwrite,
        told=teller(options.quiet or options.json),
    )
    report = write_curve(curve, options.goal)
    if options.json:
        print(json.dumps(facts(curve, options.goal)))
        return 0
    out = console()
    out.soft_wrap = False
    show(findings(curve, options.goal), out)
    out.print(f"curve   {curve.path}", markup=False)
    out.print(f"report  {report}", markup=False)
    return 0


def _fractions(text: str | None) -> tuple[float, ...]:
    if text is None:
        return ()
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        what = f"'{text}' is no list of fractions"
        fix = "write them with commas: 0.1,0.3,1"
        raise SettingError(what, where="--fractions", fix=fix) from error
