"""Find unusable files, duplicates, leaks, outliers and label errors."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from striate.cli.command import add_flags, check_output_files

if TYPE_CHECKING:
    from striate.data.check.check import DataCheckResult

CLASSES_SHOWN = 12

FLAGS = {
    "data PATH": "images: a folder, a CSV file, IDX files, tar shards, a URL, or the "
    "name of a data set such as digits",
    "--near {on,off}": "search for near-duplicate images (default on)",
    "--labels": "search for label errors by cross-validation (photographs: with a "
    "pretrained network)",
    "--offline": "with --labels: download no pretrained weights",
    "--ranking FILE": "with --labels: write a CSV of all images, likeliest label "
    "errors first",
    "--since FILE": "list changes since an earlier check; FILE: JSON output of that "
    "check",
    "--html FILE": "write an HTML report with images",
    "--csv FILE": "write a CSV for `striate train` that keeps duplicates in the same "
    "split",
    "--overwrite": "replace output files that already exist",
    "--workers N": "number of processes that decode images (default: number of CPU "
    "cores)",
    "--quiet": "do not print progress",
}


def configure_data_check(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `striate data check`."""
    add_flags(parser, FLAGS, near="on")


def run_data_check(options: argparse.Namespace) -> int:
    """Check the data and print the findings; return 1 for problems or warnings."""
    from striate.core.errors import SettingError
    from striate.data.check.changed_files import read_hashes
    from striate.data.check.check import check_dataset
    from striate.report.progress import progress_bar
    from striate.workflows.data_check.as_json import (
        as_dict,
        save_ranking,
        save_training_table,
    )
    from striate.workflows.data_check.findings import save_data_check_page

    if options.workers is not None and options.workers < 1:
        what = f"the number of processes must be at least 1, got {options.workers}"
        raise SettingError(what, where="--workers")
    if options.ranking and not options.labels:
        what = "--ranking requires --labels"
        raise SettingError(what, where="--ranking", fix="add --labels")
    check_output_files(options, "csv", "ranking", "html")
    old_hashes = read_hashes(options.since) if options.since else None
    quiet = options.quiet or options.json
    with progress_bar("checking images", quiet=quiet) as tick:
        result = check_dataset(
            options.data,
            near=options.near == "on",
            since=old_hashes,
            workers=options.workers,
            tick=tick,
        )
    if options.labels:
        from striate.workflows.data_check.label_errors import find_label_errors

        with progress_bar("checking labels", quiet=quiet) as tick:
            result = find_label_errors(result, offline=options.offline, tick=tick)
    if options.csv:
        save_training_table(result, options.csv)
    if options.ranking:
        save_ranking(result, options.ranking)
    if options.html:
        save_data_check_page(result, options.html)
    if options.json:
        print(json.dumps(as_dict(result)))
    else:
        _print(result, options)
    return 0 if result.ok else 1


def _print(result: DataCheckResult, options: argparse.Namespace) -> None:
    from rich.markup import escape

    from striate.cli.printing import console
    from striate.core.format import count_text
    from striate.report.terminal import print_blocks
    from striate.workflows.data_check.findings import data_check_blocks

    out = console()
    out.print(f"[bold]{escape(result.source.name)}[/]  {result.counts_text}")
    names = [f"{name} {sum(by.values()):,}" for name, by in result.classes]
    text = ", ".join(names[:CLASSES_SHOWN])
    more = " …" if len(names) > CLASSES_SHOWN else ""
    out.print(
        f"{count_text(len(names), 'class', 'classes')}: {text}{more}\n",
        style="dim",
        markup=False,
    )
    print_blocks(data_check_blocks(result), out)
    if options.html:
        out.print(f"page    {options.html}", markup=False)
    elif not result.ok:
        out.print("--html FILE writes a report with images", style="dim")
    if options.csv:
        out.print(f"table   {options.csv}", markup=False)
    if options.ranking:
        out.print(f"ranking {options.ranking}", markup=False)
