"""Write the report of a run again."""

from __future__ import annotations

import argparse
import json


def configure_report(parser: argparse.ArgumentParser) -> None:
    """Add the run."""
    parser.add_argument("run_folder", metavar="RUN", help="run folder, or its name")


def run_report(options: argparse.Namespace) -> int:
    """Write the report and print its path."""
    from striate.run.report_page import write_report
    from striate.run.run import Run

    path = write_report(Run(options.run_folder))
    print(json.dumps({"report": str(path)}) if options.json else path)
    return 0
