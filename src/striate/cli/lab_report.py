"""Write one page with all cards: claims, curves, verdicts, and the literature."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from striate.cli.command import add_flags, check_output_files, keep_earlier_values

FLAGS = {
    "--out FOLDER": "folder of the results (default: runs/lab)",
    "--html FILE": "file of the page (default: report.html in the folder)",
    "--markdown DIR": "also write one Markdown page for each card into this folder",
    "--overwrite": "replace existing files",
}


def configure_lab_report(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `striate lab report`."""
    add_flags(parser, FLAGS)
    keep_earlier_values(parser, "out")  # `lab --out FOLDER report`


def run_lab_report(options: argparse.Namespace) -> int:
    """Write the page from the results of the folder; no trial is run."""
    from striate.cli.printing import console
    from striate.workflows.lab.page import write_lab_report
    from striate.workflows.lab.study import LAB_FOLDER

    folder: Path = options.out or LAB_FOLDER
    if options.html is not None:
        check_output_files(options, "html")
    path = write_lab_report(
        folder,
        options.html,
        markdown=options.markdown,
        overwrite=options.overwrite,
    )
    if options.json:
        print(json.dumps({"report": str(path)}))
    else:
        console().print(f"report  {path}", markup=False)
    return 0
