"""Compare runs side by side, and test which is better on the same images."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def configure_compare(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `striate compare`."""
    parser.add_argument(
        "run_folders",
        nargs="+",
        metavar="RUN",
        help="run folder, or its name below runs/train or runs/transfer; give at "
        "least two; the first is the reference",
    )
    parser.add_argument(
        "--split",
        choices=("test", "val"),
        help="split to compare on (default: test if all runs evaluated it, else val)",
    )
    parser.add_argument(
        "--html",
        type=Path,
        metavar="FILE",
        help="also write an HTML report with the images that only one run predicted "
        "correctly",
    )


def run_compare(options: argparse.Namespace) -> int:
    """Compare the runs and print the result."""
    from striate.cli.printing import wide_console
    from striate.report.terminal import print_blocks
    from striate.workflows.compare.compare import compare
    from striate.workflows.summary.summary import save_html

    comparison = compare(*options.run_folders, split=options.split)
    if options.html:
        save_html(comparison.page, options.html)
    if options.json:
        print(json.dumps(comparison.as_dict()))
        return 0
    out = wide_console()
    print_blocks(comparison.blocks, out)
    if options.html:
        out.print(f"report  {options.html}", markup=False)
    else:
        text = "--html FILE writes a report that shows the flipped images."
        out.print(text, style="dim")
    return 0
