"""Lay runs side by side and test which is better, on the same images."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the runs, the part, and where to keep the page."""
    parser.add_argument(
        "run_folders",
        nargs="+",
        metavar="RUN",
        help="run folders, or their names; the others are compared with the first",
    )
    parser.add_argument(
        "--part",
        choices=("test", "val"),
        help="test where all runs judged it, else validation",
    )
    parser.add_argument(
        "--html",
        type=Path,
        metavar="FILE",
        help="keep a report with the flipped images",
    )


def run(options: argparse.Namespace) -> int:
    """Compare and print."""
    from striate.cli.printing import wide_console
    from striate.report.terminal import show
    from striate.workflows.compare.compare import compare
    from striate.workflows.summary.summary import save_html

    found = compare(*options.run_folders, split=options.part)
    if options.html:
        save_html(found.page, options.html)
    if options.json:
        print(json.dumps(found.as_dict()))
        return 0
    out = wide_console()
    show(found.blocks, out)
    if options.html:
        out.print(f"report  {options.html}", markup=False)
    else:
        text = "--html FILE keeps a page that shows the flipped images."
        out.print(text, style="dim")
    return 0
