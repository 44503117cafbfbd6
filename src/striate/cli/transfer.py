"""Reuse a trained network: features once, then a head in seconds."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from striate.cli.train import add_folder, add_settings, read_recipe
from striate.run.recipe import LOOP_ONLY

if TYPE_CHECKING:
    from pathlib import Path

    from striate.data.image_data import ImageData
    from striate.run.recipe import Recipe
    from striate.run.run import Run
    from striate.run.transfer_plan import TransferPlan
    from striate.workflows.transfer.options import TransferOptions


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the settings that a head has, what is reused, and the run folder's flags."""
    parser.usage = "striate transfer DATA --model NAME --pretrained WEIGHTS [settings]"
    mixing = "mixup", "cutmix"  # and a feature is of one image
    add_settings(parser, without=(*LOOP_ONLY, *mixing))
    parser.add_argument(
        "--cut",
        metavar="LAYER",
        help="the last layer to keep; auto: planned, with what learns and how fast "
        "(all but the head)",
    )
    parser.add_argument(
        "--head",
        metavar="NAME",
        help="logistic (L-BFGS, penalty by cross-validation); trained: all behind the "
        "cut, by --optimizer; tuned: first the one, then the other (logistic)",
    )
    parser.add_argument(
        "--lr-decay",
        type=float,
        metavar="F",
        help="factor on the rate from block to block, down from the head (trained: 1; "
        "tuned: a tenth at the cut)",
    )
    parser.add_argument(
        "--unfreeze",
        type=int,
        default=0,
        metavar="N",
        help="let the next block below the head learn every N epochs; 0: all at once "
        "(0)",
    )
    parser.add_argument(
        "--batch-norm",
        metavar="NAME",
        help="statistics behind the cut: adapting, frozen (adapting)",
    )
    parser.add_argument(
        "--views",
        type=int,
        default=0,
        metavar="N",
        help="learn from so many changed views of each image too, see --augment (0)",
    )
    parser.add_argument(
        "--compare",
        action="store_true",
        help="then learn from scratch too, and by the head alone or fine-tuned, for "
        "comparison",
    )
    add_folder(parser, "run folder")


def run(options: argparse.Namespace) -> int:
    """Transfer; print the run folder first and last."""
    recipe = read_recipe(options)

    from striate.cli.printing import print_data, print_end, print_plan, print_transfer
    from striate.workflows.train.train import summary_json
    from striate.workflows.transfer.options import TransferOptions
    from striate.workflows.transfer.transfer import transfer_recipe

    def begun(data: ImageData, folder: Path) -> None:
        if not options.json:
            print_data(data, folder)

    def planned(proposal: TransferPlan) -> None:
        if not options.json:
            print_plan(proposal)

    asked = ("cut", "head", "views", "lr_decay", "unfreeze", "batch_norm")
    wanted = TransferOptions(**{name: getattr(options, name) for name in asked})
    finished = transfer_recipe(
        recipe,
        wanted,
        out=options.out,
        overwrite=options.overwrite,
        begun=begun,
        planned=planned,
        quiet=options.quiet or options.json,
    )
    more = {"transfer": finished.manifest["transfer"]}
    if not options.json:
        print_transfer(finished)
    if options.compare:
        more["rivals"] = _compared(finished, recipe, wanted, options)
    if options.json:
        print(summary_json(finished, **more))
    else:
        print_end(finished)
    return 0


def _compared(
    finished: Run, recipe: Recipe, wanted: TransferOptions, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Learn in other ways too; print the comparison and return it."""
    from striate.cli.printing import wide_console
    from striate.report.terminal import show
    from striate.run.baselines_table import rival_table, summary
    from striate.run.progress import teller
    from striate.workflows.transfer.baselines import rivals

    quiet = options.quiet or options.json
    found = rivals(finished, recipe, wanted, quiet=quiet, tell=teller(quiet))
    if not options.json:
        show([rival_table(found)], wide_console())
    return summary(found)
