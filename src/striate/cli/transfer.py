"""Reuse a trained network: features once, then a head in seconds."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from striate.cli.train import add_settings, read_recipe

if TYPE_CHECKING:
    from striate.data.image_data import ImageData

# Of the loop and of processes that learn together, which a head is too quick for.
WITHOUT = (
    *("accumulate", "sync_batch_norm", "drop_path", "ema", "mixup", "cutmix"),
    *("save_every", "on_nonfinite", "layout", "compile", "precision"),
    "track_norms",
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the settings that a head has, what is reused, and the run folder's flags."""
    parser.usage = "striate transfer DATA --model NAME --pretrained WEIGHTS [settings]"
    add_settings(parser, without=WITHOUT)
    parser.add_argument(
        "--cut", metavar="LAYER", help="the last layer to keep; all but the head"
    )
    parser.add_argument(
        "--head",
        default="logistic",
        metavar="NAME",
        help="logistic (L-BFGS, penalty by cross-validation), or trained: all behind "
        "the cut, by --optimizer (logistic)",
    )
    parser.add_argument(
        "--views",
        type=int,
        default=0,
        metavar="N",
        help="learn from so many changed views of each picture too, see --augment (0)",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="the run folder")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the run folder in --out"
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def run(options: argparse.Namespace) -> int:
    """Transfer; print the run folder first and last."""
    recipe = read_recipe(options)

    from striate.cli.show import print_data, print_end, print_transfer
    from striate.runs.train import summary_json
    from striate.runs.transfer.transfer import Wanted, transfer_recipe

    def begun(data: ImageData, folder: Path) -> None:
        if not options.json:
            print_data(data, folder)

    finished = transfer_recipe(
        recipe,
        Wanted(cut=options.cut, head=options.head, views=options.views),
        out=options.out,
        overwrite=options.overwrite,
        begun=begun,
        quiet=options.quiet or options.json,
    )
    if options.json:
        print(summary_json(finished, transfer=finished.manifest["transfer"]))
    else:
        print_transfer(finished)
        print_end(finished)
    return 0
