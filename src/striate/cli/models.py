"""List the networks, with their paper's input and parameters."""

from __future__ import annotations

import argparse
import json


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the filter."""
    parser.add_argument("pattern", nargs="?", default="", help="part of a name")


def run(options: argparse.Namespace) -> int:
    """Print one line a network."""
    from striate.cli.show import console
    from striate.core.registry import unknown
    from striate.models.catalogue import catalogue_rows
    from striate.report.terminal import show

    every = catalogue_rows()
    rows = [row for row in every if options.pattern in str(row["name"])]
    if not rows:
        raise unknown("network", options.pattern, [str(row["name"]) for row in every])
    if options.json:
        print(json.dumps(rows))
    else:
        from striate.core.findings import Column, Table

        columns = (
            Column(title="name", kind="code"),
            Column(title="input", kind="code", hint="height×width×channels"),
            Column(title="classes", kind="integer"),
            Column(title="parameters", kind="integer"),
            Column(title="what"),
        )
        cells = tuple(tuple(row.values()) for row in rows)
        show([Table(columns=columns, rows=cells)], console())
    return 0
