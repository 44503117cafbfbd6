"""Write a run's report again from its folder."""

from __future__ import annotations

import argparse
import json


def configure_report(parser: argparse.ArgumentParser) -> None:
    """Add the run."""
    parser.add_argument("run_folder", metavar="RUN", help="a run folder, or its name")


def run_report(options: argparse.Namespace) -> int:
    """Write the report and print where it is."""
    from striate.run.report_page import write_report
    from striate.run.run import Run

    path = write_report(Run(options.run_folder))
    print(json.dumps({"report": str(path)}) if options.json else path)
    return 0
