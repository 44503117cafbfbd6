"""Replay the golden images of a bundle on this machine, and check its signature."""

from __future__ import annotations

import argparse
import json

from striate.cli.command import add_flags

FLAGS = {
    "bundle BUNDLE": "bundle file, NAME.striate",
    "--key KEY": "public key of minisign, or its file: check the signature too",
}


def configure_bundle_verify(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `striate bundle verify`."""
    add_flags(parser, FLAGS)


def run_bundle_verify(options: argparse.Namespace) -> int:
    """Verify a bundle; return 1 if an answer differs."""
    from striate.cli.printing import console
    from striate.report.terminal import print_blocks
    from striate.workflows.bundle.verify import verify_bundle

    check = verify_bundle(options.bundle, key=options.key)
    if options.json:
        print(json.dumps(check.as_dict()))
    else:
        print_blocks(check.blocks, console())
    return 0 if check.passed else 1
