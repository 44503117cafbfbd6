"""List the runs of a folder, with network, data and test accuracy; give runs tags."""

from __future__ import annotations

import argparse
import json

from striate.cli.command import add_flags

FLAGS = {
    "--sort {date,accuracy,name,verb,data,model,status}": "order of the list (default: "
    "date, the newest first)",
    "--filter TEXT": "list only runs with this text in path, verb, data, network, "
    "status or tags",
}


def configure_runs(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `striate runs`."""
    text = "folder with run folders (default: runs)"
    parser.add_argument(
        "folder", nargs="?", default="runs", metavar="FOLDER", help=text
    )
    add_flags(parser, FLAGS, sort="date", filter="")
    group = parser.add_mutually_exclusive_group()
    for flag, text in (
        ("--tag", "give a run a tag; RUN is a run folder or its name"),
        ("--untag", "remove a tag from a run"),
    ):
        group.add_argument(flag, help=text, nargs=2, metavar=("NAME", "RUN"))


def run_runs(options: argparse.Namespace) -> int:
    """Print the list of runs, or change the tags of one run."""
    from striate.cli.printing import console
    from striate.report.terminal import print_blocks
    from striate.workflows.runs.list_runs import list_runs, tag_run

    if pair := options.tag or options.untag:
        tags = tag_run(pair[1], pair[0], remove=not options.tag)
        if options.json:
            print(json.dumps({"tags": tags}))
        else:
            console().print(
                f"tags of {pair[1]}: {', '.join(tags) or 'none'}", markup=False
            )
        return 0
    runs = list_runs(options.folder, sort=options.sort, text=options.filter)
    if options.json:
        print(json.dumps(runs.as_dict()))
    else:
        print_blocks(runs.blocks, console())
    return 0
