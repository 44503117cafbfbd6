"""Write the HTML report of a finished run again."""

from __future__ import annotations

import argparse
import json


def configure_report(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `striate report`."""
    parser.add_argument("run_folder", metavar="RUN", help="run folder or its name")


def run_report(options: argparse.Namespace) -> int:
    """Write the HTML report of a run and print its path."""
    from striate.run.report_page import write_report
    from striate.run.run import Run

    path = write_report(Run(options.run_folder))
    print(json.dumps({"report": str(path)}) if options.json else path)
    return 0
