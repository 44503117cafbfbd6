"""Show, verify and unpack a bundle: a network with all that its answers need."""

from __future__ import annotations

import argparse

from striate.cli import bundle_extract, bundle_show, bundle_verify
from striate.cli.command import Verb, add_verbs

SUBVERBS = {
    "show": Verb(bundle_show.configure_bundle_show, bundle_show.run_bundle_show),
    "verify": Verb(
        bundle_verify.configure_bundle_verify, bundle_verify.run_bundle_verify
    ),
    "extract": Verb(
        bundle_extract.configure_bundle_extract, bundle_extract.run_bundle_extract
    ),
}


def configure_bundle(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands of `striate bundle`, each with its own flags."""
    subparsers = parser.add_subparsers(
        dest="subverb", metavar="SUBCOMMAND", required=True, parser_class=type(parser)
    )
    add_verbs(subparsers, SUBVERBS, default=argparse.SUPPRESS)


def run_bundle(options: argparse.Namespace) -> int:
    """Run the chosen subcommand and return its exit code."""
    return SUBVERBS[options.subverb].run(options)
