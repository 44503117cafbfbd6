"""Show what a bundle contains: classes, metrics, certificate, files."""

from __future__ import annotations

import argparse
import json

from striate.cli.command import add_flags

FLAGS = {"bundle BUNDLE": "bundle file, NAME.striate"}


def configure_bundle_show(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `striate bundle show`."""
    add_flags(parser, FLAGS)


def run_bundle_show(options: argparse.Namespace) -> int:
    """Print the contents of a bundle."""
    from striate.cli.printing import console
    from striate.report.terminal import print_blocks
    from striate.workflows.bundle.show import show_bundle

    facts = show_bundle(options.bundle)
    if options.json:
        print(json.dumps(facts.as_dict()))
    else:
        print_blocks(facts.blocks, console())
    return 0
