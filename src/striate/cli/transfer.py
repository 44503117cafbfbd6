"""Reuse a pretrained model: freeze its backbone and train a new head."""

from __future__ import annotations

import argparse

from striate.cli.command import add_flags, stdout_for_json
from striate.cli.train import add_folder, add_settings, print_result, read_recipe
from striate.run.recipe import TRAINING_LOOP_SETTINGS

FLAGS = {
    "--cut LAYER": "cut point: name of the last frozen layer; auto: choose cut point, "
    "head and learning rates by short trials (default: freeze all layers except the "
    "classifier)",
    "--head NAME": "training method: 'logistic' (logistic regression on the "
    "features), 'trained' (train all layers after the cut point), or 'tuned' (both, "
    "one after the other; the default of --lr is then 0.01 for sgd, else 0.001); "
    "default: logistic; with --cut auto: chosen by short training runs",
    "--layer-decay F": "learning-rate factor from each block to the block before it "
    "(default: 1; with --head tuned: the block next to the cut point gets 1/10 of the "
    "learning rate of the head)",
    "--unfreeze N": "gradual unfreezing: every N epochs, unfreeze the next block "
    "before the head; 0: train all blocks from the start (default 0)",
    "--batch-norm NAME": "batch norm running statistics after the cut point: adapting "
    "(updated in training) or frozen (default adapting)",
    "--views N": "number of augmented copies of each training image to add, see "
    "--augment (default 0)",
    "--compare": "also train baselines for comparison: from scratch, head only, "
    "fine-tuned",
}


def configure_transfer(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `striate transfer`, training settings included."""
    parser.usage = "striate transfer DATA [--pretrained WEIGHTS] [settings]"
    mixing = "mixup", "cutmix"  # features are computed per image
    add_settings(
        parser,
        without=(*TRAINING_LOOP_SETTINGS, *mixing),
        pretrained="mobilenet_v2",
    )
    add_flags(parser, FLAGS, unfreeze=0, views=0)
    add_folder(parser, "run folder", "runs/transfer/DATA-MODEL")


def run_transfer(options: argparse.Namespace) -> int:
    """Train the head on the frozen backbone and print the result."""
    recipe = read_recipe(options)

    from striate.cli.printing import (
        console,
        print_data,
        print_plan,
        print_transfer,
    )
    from striate.report.terminal import print_blocks
    from striate.run.progress import TransferCallbacks, line_printer
    from striate.workflows.transfer.options import TransferOptions
    from striate.workflows.transfer.transfer import transfer_recipe

    quiet = options.quiet or options.json
    fields = ("cut", "head", "views", "layer_decay", "unfreeze", "batch_norm")
    transfer = TransferOptions(**{name: getattr(options, name) for name in fields})
    callbacks = TransferCallbacks()
    if not options.json:
        callbacks = TransferCallbacks(on_begin=print_data, on_plan=print_plan)
    with stdout_for_json(options):
        finished = transfer_recipe(
            recipe,
            transfer,
            out=options.out,
            overwrite=options.overwrite,
            callbacks=callbacks,
            quiet=quiet,
        )
    more = {"transfer": finished.manifest["transfer"]}
    if not options.json:
        print_transfer(finished)
    if options.compare:
        from striate.run.baselines_table import baseline_dicts, baseline_table
        from striate.workflows.transfer.baselines import run_baselines

        tell = line_printer(quiet)
        baselines = run_baselines(finished, recipe, transfer, quiet=quiet, tell=tell)
        if not options.json:
            print_blocks([baseline_table(baselines)], console())
        more["baselines"] = baseline_dicts(baselines)
    return print_result(finished, options, **more)
