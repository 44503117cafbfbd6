"""Reuse a pretrained model: freeze its backbone and train a new head."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from striate.cli.train import add_folder, add_settings, read_recipe
from striate.run.recipe import TRAINING_LOOP_SETTINGS

if TYPE_CHECKING:
    from pathlib import Path

    from striate.data.image_data import ImageData
    from striate.run.recipe import Recipe
    from striate.run.run import Run
    from striate.run.transfer_plan import TransferPlan
    from striate.workflows.transfer.options import TransferOptions


def configure_transfer(parser: argparse.ArgumentParser) -> None:
    """Add the settings of a head, the transfer options, and the run folder's flags."""
    parser.usage = "striate transfer DATA --model NAME --pretrained WEIGHTS [settings]"
    mixing = "mixup", "cutmix"  # features are computed per image
    add_settings(parser, without=(*TRAINING_LOOP_SETTINGS, *mixing))
    parser.add_argument(
        "--cut",
        metavar="LAYER",
        help="last frozen layer; auto: choose it, the head and the learning rates from "
        "trials (default: all layers but the classifier are frozen)",
    )
    parser.add_argument(
        "--head",
        metavar="NAME",
        help="logistic: logistic regression, penalty by cross-validation; trained: all "
        "layers behind the cut, with --optimizer; tuned: first logistic, then trained "
        "(logistic)",
    )
    parser.add_argument(
        "--lr-decay",
        type=float,
        metavar="F",
        help="discriminative learning rates: factor on the rate for each block farther "
        "from the head (default with --head trained: 1; with --head tuned: the block "
        "at the cut point gets a tenth of the rate of the head)",
    )
    parser.add_argument(
        "--unfreeze",
        type=int,
        default=0,
        metavar="N",
        help="gradual unfreezing: one more block below the head every N epochs; 0: all "
        "at once (default 0)",
    )
    parser.add_argument(
        "--batch-norm",
        metavar="NAME",
        help="running statistics of batch norm in the layers after the cut point: "
        "adapting (updated) or frozen (default adapting)",
    )
    parser.add_argument(
        "--views",
        type=int,
        default=0,
        metavar="N",
        help="augmented copies of each image to train on as well, see --augment "
        "(default 0)",
    )
    parser.add_argument(
        "--compare",
        action="store_true",
        help="also train baselines: from scratch, and head only or fine-tuned",
    )
    add_folder(parser, "run folder", "runs/transfer/DATA-MODEL")


def run_transfer(options: argparse.Namespace) -> int:
    """Train the head and print the result."""
    recipe = read_recipe(options)

    from striate.cli.printing import print_data, print_end, print_plan, print_transfer
    from striate.workflows.train.train import summary_json
    from striate.workflows.transfer.options import TransferOptions
    from striate.workflows.transfer.transfer import transfer_recipe

    def on_begin(data: ImageData, folder: Path) -> None:
        if not options.json:
            print_data(data, folder)

    def on_plan(plan: TransferPlan) -> None:
        if not options.json:
            print_plan(plan)

    fields = ("cut", "head", "views", "lr_decay", "unfreeze", "batch_norm")
    transfer = TransferOptions(**{name: getattr(options, name) for name in fields})
    finished = transfer_recipe(
        recipe,
        transfer,
        out=options.out,
        overwrite=options.overwrite,
        on_begin=on_begin,
        on_plan=on_plan,
        quiet=options.quiet or options.json,
    )
    more = {"transfer": finished.manifest["transfer"]}
    if not options.json:
        print_transfer(finished)
    if options.compare:
        more["baselines"] = _compare(finished, recipe, transfer, options)
    if options.json:
        print(summary_json(finished, **more))
    else:
        print_end(finished)
    return 0


def _compare(
    finished: Run,
    recipe: Recipe,
    transfer: TransferOptions,
    options: argparse.Namespace,
) -> list[dict[str, Any]]:
    """Train the baselines too; print the comparison and return it."""
    from striate.cli.printing import wide_console
    from striate.report.terminal import print_blocks
    from striate.run.baselines_table import baseline_dicts, baseline_table
    from striate.run.progress import line_printer
    from striate.workflows.transfer.baselines import run_baselines

    quiet = options.quiet or options.json
    tell = line_printer(quiet)
    baselines = run_baselines(finished, recipe, transfer, quiet=quiet, tell=tell)
    if not options.json:
        print_blocks([baseline_table(baselines)], wide_console())
    return baseline_dicts(baselines)
