"""Pool the results of several machines by a random-effects model."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def configure_lab_merge(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `striate lab merge`."""
    text = "folders with results, such as runs/lab of each machine"
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help=text)


def run_lab_merge(options: argparse.Namespace) -> int:
    """Print the pooled effect of each card that at least two folders have."""
    from striate.cli.printing import console
    from striate.report.terminal import print_blocks
    from striate.workflows.lab.merge import merge_results

    merged = merge_results(options.folders)
    if options.json:
        print(json.dumps(merged.as_dict()))
    else:
        print_blocks(merged.blocks, console())
    return 0
