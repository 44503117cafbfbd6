"""Unpack a bundle to a new folder."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from striate.cli.command import add_flags

FLAGS = {
    "bundle BUNDLE": "bundle file, NAME.striate",
    "--out FOLDER": "new folder (default: the name of the bundle without suffix)",
}


def configure_bundle_extract(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `striate bundle extract`."""
    add_flags(parser, FLAGS)


def run_bundle_extract(options: argparse.Namespace) -> int:
    """Unpack all files of a bundle."""
    from striate.exporters.bundle.read import open_bundle

    folder = options.out or Path(Path(options.bundle).stem)
    bundle = open_bundle(options.bundle)
    bundle.extract(folder)
    if options.json:
        print(json.dumps({"folder": str(folder), "files": bundle.entry_names}))
    else:
        print(f"written  {folder}")
    return 0
