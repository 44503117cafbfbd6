"""Check images before training: broken files, duplicates, leaks, label errors."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from striate.data.check.check import Checked

MAX_CLASSES = 12


def configure_data_check(parser: argparse.ArgumentParser) -> None:
    """Add the data, the checks, and the files to write."""
    parser.add_argument(
        "data",
        metavar="PATH",
        help="images: a folder, a CSV, IDX files, tar shards, a URL, or a name: digits",
    )
    parser.add_argument(
        "--near",
        choices=("on", "off"),
        default="on",
        help="find near-duplicates (default on)",
    )
    parser.add_argument(
        "--labels",
        action="store_true",
        help="find likely label errors, by cross-validation with small networks",
    )
    parser.add_argument(
        "--ranking",
        type=Path,
        metavar="FILE",
        help="with --labels: write a CSV of all images, the most likely error first",
    )
    parser.add_argument(
        "--since",
        type=Path,
        metavar="FILE",
        help="list changes since this earlier --json output",
    )
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write a report that shows the images"
    )
    parser.add_argument(
        "--csv",
        type=Path,
        metavar="FILE",
        help="write a CSV to train on, with duplicates in one group",
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="decoding processes (default number of CPUs)",
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def run_data_check(options: argparse.Namespace) -> int:
    """Check and print; the exit code is 1 if there are problems."""
    from striate.core.errors import SettingError
    from striate.data.check.changes import read_hashes
    from striate.data.check.check import check_data
    from striate.report.progress import progress_bar
    from striate.workflows.data_check.as_json import as_dict, save_ranking, save_table
    from striate.workflows.data_check.findings import save_page

    if options.workers is not None and options.workers < 1:
        what = f"workers must be at least 1, got {options.workers}"
        raise SettingError(what, where="--workers")
    if options.ranking and not options.labels:
        what = "--ranking needs the label check"
        raise SettingError(what, where="--ranking", fix="add --labels")
    before = read_hashes(options.since) if options.since else None
    with progress_bar("checking", quiet=options.quiet or options.json) as tick:
        result = check_data(
            options.data,
            near=options.near == "on",
            since=before,
            workers=options.workers,
            tick=tick,
        )
    if options.labels:
        result = _check_labels(result, options)
    if options.csv:
        save_table(result, options.csv)
    if options.ranking:
        save_ranking(result, options.ranking)
    if options.html:
        save_page(result, options.html)
    if options.json:
        print(json.dumps(as_dict(result)))
    else:
        _print(result, options)
    return 0 if result.good else 1


def _check_labels(result: Checked, options: argparse.Namespace) -> Checked:
    from striate.report.progress import progress_bar
    from striate.workflows.data_check.label_errors import doubt_labels

    with progress_bar("checking labels", quiet=options.quiet or options.json) as tick:
        return doubt_labels(result, tick=tick)


def _print(result: Checked, options: argparse.Namespace) -> None:
    from rich.markup import escape

    from striate.cli.printing import console
    from striate.report.terminal import print_blocks
    from striate.workflows.data_check.findings import told

    out = console()
    out.print(f"[bold]{escape(result.source.name)}[/]  {_account(result)}")
    names = [f"{name} {sum(by.values()):,}" for name, by in result.classes]
    listed = ", ".join(names[:MAX_CLASSES])
    more = " …" if len(names) > MAX_CLASSES else ""
    out.print(f"{len(names)} classes: {listed}{more}\n", style="dim", markup=False)
    print_blocks(told(result), out)
    if options.html:
        out.print(f"report  {options.html}", markup=False)
    elif not result.good:
        out.print("--html FILE shows the images", style="dim")
    if options.csv:
        out.print(f"table   {options.csv}", markup=False)
    if options.ranking:
        out.print(f"ranking {options.ranking}", markup=False)


def _account(result: Checked) -> str:
    return (
        f"{result.seen:,} seen = {len(result.items):,} used + "
        f"{len(result.quarantined):,} quarantined + {len(result.ignored):,} ignored"
    )
