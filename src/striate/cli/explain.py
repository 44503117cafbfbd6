"""Explain predictions: heatmaps, sanity checks, arithmetic of units, feature maps."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from striate.cli.summary import add_input_flags

if TYPE_CHECKING:
    from striate.workflows.explain.images import Wish
    from striate.workflows.explain.subject import Subject


def configure_explain(parser: argparse.ArgumentParser) -> None:
    """Add the network, the images, and the methods."""
    parser.add_argument(
        "network",
        metavar="TARGET",
        help="run folder or its name; a name of `striate models` with --weights; or "
        "FILE.py:CLASS (imports your file)",
    )
    parser.add_argument(
        "images",
        nargs="*",
        metavar="IMAGE",
        help="image files, folders or patterns (of a run: its most confident correct "
        "images and its worst errors)",
    )
    parser.add_argument(
        "--target",
        metavar="CLASS",
        help="class to explain (default the predicted class)",
    )
    parser.add_argument(
        "--against", metavar="CLASS", help="explain why --target rather than this class"
    )
    parser.add_argument(
        "--method",
        default="auto,occlusion,integrated",
        metavar="NAMES",
        help="heatmap methods, separated by commas: cam gradcam gradcam++ layercam "
        "scorecam occlusion integrated (default auto,occlusion,integrated)",
    )
    parser.add_argument(
        "--layer",
        default="auto",
        metavar="NAME",
        help="layer used for the heatmap (default auto: the last with a spatial "
        "output)",
    )
    parser.add_argument(
        "--unit",
        metavar="UNIT",
        help="unit to explain in the report, as 'LAYER CHANNEL,ROW,COLUMN': 'conv2 "
        "3,10,12' (default the strongest of the heatmap's layer)",
    )
    parser.add_argument(
        "--open",
        metavar="UNIT",
        help="print how one unit is computed, and stop: 'conv2 3,10,12' or 'output 7'",
    )
    parser.add_argument(
        "--sections",
        metavar="NAMES",
        help="more sections for a run, separated by commas: set (heatmaps over all "
        "images), invariance (shifted images, other pooling), depth (gradients by "
        "layer), bend (networks without activation functions)",
    )
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="weights file for a model name"
    )
    add_input_flags(parser)
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="random seed of the sanity checks (default 0)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder to write (default runs/explain/NAME)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the folder in --out"
    )


def run_explain(options: argparse.Namespace) -> int:
    """Explain, write the report and print; or print the arithmetic of one unit."""
    from striate.workflows.explain.explain import explain_images

    # Output of a user's file must not mix with JSON.
    with redirect_stdout(sys.stderr):
        subject = _subject(options)
    if options.open:
        return _open(options, subject)
    request = _request(options)
    explanation = explain_images(
        subject, options.images, request, options.out, options.overwrite
    )
    if options.json:
        print(json.dumps({"folder": str(explanation.folder), **explanation.data}))
        return 0
    from striate.cli.printing import print_explanation

    print_explanation(explanation, subject.remarks)
    return 0


def _subject(options: argparse.Namespace) -> Subject:
    from striate.cli.summary import parse_image_size
    from striate.run.target import SummaryRequest
    from striate.workflows.explain.subject import subject

    request = SummaryRequest(
        image_size=parse_image_size(options.image_size),
        in_chans=options.in_chans,
        num_classes=options.num_classes,
    )
    return subject(options.network, request, options.weights)


def _request(options: argparse.Namespace) -> Wish:
    from striate.workflows.explain.images import Wish, nobody

    return Wish(
        target=_class(options.target),
        against=_class(options.against),
        methods=tuple(options.method.split(",")),
        layer=options.layer,
        unit=_unit(options.unit, "--unit") if options.unit else None,
        seed=options.seed,
        also=tuple(options.sections.split(",")) if options.sections else (),
        told=nobody if options.json else _print_progress,
    )


def _print_progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _class(text: str | None) -> str | int | None:
    """Return a class name, or an output index: `#3` is the fourth output."""
    if text is not None and text.startswith("#") and text[1:].isdecimal():
        return int(text[1:])
    return text


def _open(options: argparse.Namespace, subject: Subject) -> int:
    from striate.cli.printing import console
    from striate.interpret.arithmetic.tree import opened
    from striate.interpret.arithmetic.unit_arithmetic import UnitArithmetic
    from striate.interpret.arithmetic.worked_example import beneath, worked
    from striate.report.terminal import print_blocks
    from striate.workflows.explain.images import own_images, read

    name, unit = _unit(options.open, "--open")
    images = read(subject, options.images) if options.images else own_images(subject)
    arithmetic = UnitArithmetic(subject.model, images[0].x)
    names = subject.labels.names if subject.labels else ()
    tree = opened(arithmetic, name, unit, names, lines=24)
    entry = beneath(arithmetic, arithmetic.open(name, unit))
    table = None if entry is None else worked(arithmetic, entry)
    if options.json:
        from striate.report.records import table_dict, tree_dicts

        example = None if table is None else table_dict(table)
        values = {
            "image": images[0].name,
            "opened": tree_dicts(tree),
            "worked": example,
        }
        print(json.dumps(values))
        return 0
    out = console()
    out.print(images[0].name, style="bold", markup=False)
    print_blocks([tree] if table is None else [tree, table], out)
    return 0


def _unit(text: str, flag: str) -> tuple[str, tuple[int, ...]]:
    from striate.core.errors import SettingError

    name, _, position = text.rpartition(" ")
    numbers = position.split(",")
    if not name or not all(number.isdecimal() for number in numbers):
        what = f"'{text}' is not a unit"
        fix = "write a layer and channel,row,column: 'conv2 3,10,12', or 'output 7'"
        raise SettingError(what, where=flag, fix=fix)
    return name, tuple(int(number) for number in numbers)
