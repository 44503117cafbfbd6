"""Run experiments on claims about convolutional networks, with seeds and a verdict."""

from __future__ import annotations

import argparse
import json

from striate.cli import lab_merge, lab_report, lab_run
from striate.cli.command import Verb, add_flags, add_verbs

SUBVERBS = {
    "run": Verb(lab_run.configure_lab_run, lab_run.run_lab_run),
    "report": Verb(lab_report.configure_lab_report, lab_report.run_lab_report),
    "merge": Verb(lab_merge.configure_lab_merge, lab_merge.run_lab_merge),
}

FLAGS = {
    "--out FOLDER": "folder with the results (default: runs/lab)",
    "--jobs N": "number of processes that the forecast assumes (default: one per core)",
}


def configure_lab(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands of `striate lab`; without one, the cards are listed."""
    add_flags(parser, FLAGS)
    subparsers = parser.add_subparsers(
        dest="subverb", metavar="SUBCOMMAND", parser_class=type(parser)
    )
    # SUPPRESS: the subcommand's default must not undo `lab --json run`.
    add_verbs(subparsers, SUBVERBS, default=argparse.SUPPRESS)


def run_lab(options: argparse.Namespace) -> int:
    """List the cards with their verdicts so far, or run the chosen subcommand."""
    if options.subverb is not None:
        return SUBVERBS[options.subverb].run(options)
    from striate.cli.printing import console
    from striate.report.terminal import print_blocks
    from striate.workflows.lab.card_list import list_cards
    from striate.workflows.lab.study import LAB_FOLDER

    cards = list_cards(options.out or LAB_FOLDER, options.jobs)
    if options.json:
        print(json.dumps(cards.as_dict()))
    else:
        print_blocks(cards.blocks, console())
    return 0
