"""Prepare image data: check, split, preview, augment, fetch; learning curve."""

from __future__ import annotations

import argparse

from striate.cli import (
    data_augment,
    data_check,
    data_curve,
    data_fetch,
    data_preview,
    data_split,
)
from striate.cli.command import Verb, add_verbs

SUBVERBS = {
    "check": Verb(data_check.configure_data_check, data_check.run_data_check),
    "split": Verb(data_split.configure_data_split, data_split.run_data_split),
    "preview": Verb(data_preview.configure_data_preview, data_preview.run_data_preview),
    "augment": Verb(data_augment.configure_data_augment, data_augment.run_data_augment),
    "curve": Verb(data_curve.configure_data_curve, data_curve.run_data_curve),
    "fetch": Verb(data_fetch.configure_data_fetch, data_fetch.run_data_fetch),
}


def configure_data(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands of `striate data`, each with its own flags."""
    subparsers = parser.add_subparsers(
        dest="subverb", metavar="SUBCOMMAND", required=True, parser_class=type(parser)
    )
    # SUPPRESS: the subcommand's default must not undo `data --json check`.
    add_verbs(subparsers, SUBVERBS, default=argparse.SUPPRESS)


def run_data(options: argparse.Namespace) -> int:
    """Run the chosen subcommand and return its exit code."""
    return SUBVERBS[options.subverb].run(options)
