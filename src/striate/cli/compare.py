"""Compare runs side by side, and test which is better on the same images."""

from __future__ import annotations

import argparse
import json

from striate.cli.command import add_flags, check_output_files, stdout_for_json

FLAGS = {
    "run_folders RUN+": "run folder, or its name below runs/train or runs/transfer; "
    "give at least two; the first is the reference",
    "--split {test,val}": "split to compare on (default: test if all runs evaluated "
    "it, else val)",
    "--html FILE": "also write an HTML report with the images that only one run "
    "predicted correctly",
    "--overwrite": "replace output files that already exist",
}


def configure_compare(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `striate compare`."""
    add_flags(parser, FLAGS)


def run_compare(options: argparse.Namespace) -> int:
    """Compare the runs and print the result."""
    check_output_files(options, "html")
    from striate.cli.printing import console
    from striate.report.terminal import print_blocks
    from striate.workflows.compare.compare import compare
    from striate.workflows.summary.summary import save_html

    with stdout_for_json(options):
        comparison = compare(*options.run_folders, split=options.split)
        if options.html:
            save_html(comparison.page, options.html)
        result = comparison.as_dict()
    if options.json:
        print(json.dumps(result))
        return 0
    out = console()
    print_blocks(comparison.blocks, out)
    if options.html:
        out.print(f"report  {options.html}", markup=False)
    else:
        text = "--html FILE writes a report that shows the flipped images."
        out.print(text, style="dim")
    return 0
