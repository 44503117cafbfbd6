"""List the networks with input size and parameter count, or pretrained weights."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from striate.core.findings import Table


def configure_models(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `striate models`."""
    text = "show only names that contain this text"
    parser.add_argument("pattern", nargs="?", default="", help=text)
    text = "list pretrained weights instead, with license, hash and location"
    parser.add_argument("--weights", action="store_true", help=text)


def run_models(options: argparse.Namespace) -> int:
    """Print one line per network, or one line per weights file."""
    from striate.cli.printing import console
    from striate.core.registry import unknown_name_error
    from striate.models.catalogue import catalogue_rows, list_models
    from striate.report.terminal import print_blocks
    from striate.run.pretrained import weights_rows

    pattern = options.pattern
    if options.weights:
        every = weights_rows()
        names = [str(row["name"]) for row in every]
        rows = [row for row in every if pattern in str(row["name"])]
    else:
        names, rows = list_models(), catalogue_rows(pattern)
    if not rows:
        kind = "set of weights" if options.weights else "network"
        raise unknown_name_error(kind, pattern, names)
    if options.json:
        print(json.dumps(rows))
    else:
        print_blocks([_table(rows, weights=options.weights)], console())
    return 0


def _table(rows: Sequence[Mapping[str, Any]], *, weights: bool) -> Table:
    from striate.core.findings import Column, Table

    cells = tuple(tuple(row.values()) for row in rows)
    if weights:
        hint = "SHA-256 of the file, or its first digits if only these are published"
        columns: tuple[Column, ...] = (
            Column("name", "code"),
            Column("file", "code", rank=2),
            Column("classes", "integer"),
            Column("on disk", key="here"),
            Column("license"),
            Column("sha256", "code", hint=hint, rank=3),
        )
        note = "Use: striate train DATA --model NAME --pretrained NAME"
        return Table(columns=columns, rows=cells, note=note)
    columns = (
        Column("name", "code"),
        Column("input", "code", hint="height×width×channels"),
        Column("classes", "integer"),
        Column("parameters", "integer"),
        Column("description"),
    )
    note = "Also all models of timm: --model timm:NAME (pip install 'striate[timm]')"
    return Table(columns=columns, rows=cells, note=note)
