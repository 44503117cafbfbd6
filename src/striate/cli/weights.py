"""Convert weights files between formats."""

from __future__ import annotations

import argparse

from striate.cli import weights_convert
from striate.cli.command import Verb, add_verbs

SUBVERBS = {
    "convert": Verb(
        weights_convert.configure_weights_convert, weights_convert.run_weights_convert
    ),
}


def configure_weights(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands of `striate weights`, each with its own flags."""
    subparsers = parser.add_subparsers(
        dest="subverb", metavar="SUBCOMMAND", required=True, parser_class=type(parser)
    )
    # SUPPRESS: the subcommand's default must not undo `weights --json convert`.
    add_verbs(subparsers, SUBVERBS, default=argparse.SUPPRESS)


def run_weights(options: argparse.Namespace) -> int:
    """Run the chosen subcommand of `weights`, and return its exit code."""
    return SUBVERBS[options.subverb].run(options)
