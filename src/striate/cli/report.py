"""Write the HTML report of a finished run again."""

from __future__ import annotations

import argparse
import json

from striate.cli.command import add_flags, stdout_for_json
from striate.cli.run_flags import NETWORK_FLAGS, open_run


def configure_report(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `striate report`."""
    add_flags(parser, {"run_folder RUN": "run folder or its name", **NETWORK_FLAGS})


def run_report(options: argparse.Namespace) -> int:
    """Write the HTML report of a run and print its path."""
    from striate.run.report_page import write_report

    with stdout_for_json(options):
        path = write_report(open_run(options))
    print(json.dumps({"report": str(path)}) if options.json else path)
    return 0
