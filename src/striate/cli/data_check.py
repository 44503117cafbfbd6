"""Look at every image before training: broken, doubled, leaked, odd."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from striate.data.check.check import Checked

CLASSES_SHOWN = 12


def configure_data_check(parser: argparse.ArgumentParser) -> None:
    """Add the data, what to look for, and where to show it."""
    parser.add_argument(
        "data",
        metavar="PATH",
        help="a folder, a CSV, IDX files, tar shards, an address, or a name: digits",
    )
    parser.add_argument(
        "--near",
        choices=("on", "off"),
        default="on",
        help="look for near-duplicates too (on)",
    )
    parser.add_argument(
        "--labels",
        action="store_true",
        help="train small networks too, and tell which labels they doubt",
    )
    parser.add_argument(
        "--ranking",
        type=Path,
        metavar="FILE",
        help="with --labels: keep a CSV of all images, the most doubted label first",
    )
    parser.add_argument(
        "--since", type=Path, metavar="FILE", help="tell what changed since this --json"
    )
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="keep a page with the images"
    )
    parser.add_argument(
        "--csv",
        type=Path,
        metavar="FILE",
        help="keep a table to train on, copies in one group",
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="decoding processes (processors)"
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def run_data_check(options: argparse.Namespace) -> int:
    """Check and print; with findings the exit code is 1."""
    from striate.core.errors import SettingError
    from striate.data.check.changes import read_hashes
    from striate.data.check.check import check_data
    from striate.report.progress_bar import progress_bar
    from striate.workflows.data_check.as_json import as_dict, save_ranking, save_table
    from striate.workflows.data_check.findings import save_page

    if options.workers is not None and options.workers < 1:
        what = f"at least one process is needed, got {options.workers}"
        raise SettingError(what, where="--workers")
    if options.ranking and not options.labels:
        what = "a ranking of labels needs them judged"
        raise SettingError(what, where="--ranking", fix="add --labels")
    before = read_hashes(options.since) if options.since else None
    with progress_bar("looking", quiet=options.quiet or options.json) as tick:
        found = check_data(
            options.data,
            near=options.near == "on",
            since=before,
            workers=options.workers,
            tick=tick,
        )
    if options.labels:
        found = _doubted(found, options)
    if options.csv:
        save_table(found, options.csv)
    if options.ranking:
        save_ranking(found, options.ranking)
    if options.html:
        save_page(found, options.html)
    if options.json:
        print(json.dumps(as_dict(found)))
    else:
        _print(found, options)
    return 0 if found.good else 1


def _doubted(found: Checked, options: argparse.Namespace) -> Checked:
    from striate.report.progress_bar import progress_bar
    from striate.workflows.data_check.label_errors import doubt_labels

    with progress_bar("judging labels", quiet=options.quiet or options.json) as tick:
        return doubt_labels(found, tick=tick)


def _print(found: Checked, options: argparse.Namespace) -> None:
    from rich.markup import escape

    from striate.cli.printing import console
    from striate.report.terminal import print_blocks
    from striate.workflows.data_check.findings import told

    out = console()
    out.print(f"[bold]{escape(found.source.name)}[/]  {_account(found)}")
    names = [f"{name} {sum(by.values()):,}" for name, by in found.classes]
    listed = ", ".join(names[:CLASSES_SHOWN])
    more = " …" if len(names) > CLASSES_SHOWN else ""
    out.print(f"{len(names)} classes: {listed}{more}\n", style="dim", markup=False)
    print_blocks(told(found), out)
    if options.html:
        out.print(f"page    {options.html}", markup=False)
    elif not found.good:
        out.print("--html FILE shows the images", style="dim")
    if options.csv:
        out.print(f"table   {options.csv}", markup=False)
    if options.ranking:
        out.print(f"ranking {options.ranking}", markup=False)


def _account(found: Checked) -> str:
    return (
        f"{found.seen:,} seen = {len(found.items):,} used + "
        f"{len(found.quarantined):,} quarantined + {len(found.ignored):,} ignored"
    )
