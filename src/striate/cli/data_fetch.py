"""Download a public data set, verified by SHA-256; without NAME, list them."""

from __future__ import annotations

import argparse
import json

from striate.cli.command import add_flags

FLAGS = {
    "name NAME?": "data set to download (default: list names, sizes and licenses)",
}


def configure_data_fetch(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `striate data fetch`."""
    add_flags(parser, FLAGS)


def run_data_fetch(options: argparse.Namespace) -> int:
    """Download a data set and print its folder, or list the data sets."""
    if options.name is None:
        return _list(options)

    from striate.cli.printing import console
    from striate.data.sources.downloads import PUBLIC_DATASETS
    from striate.report.progress import download_progress
    from striate.workflows.data_fetch.fetch import fetch_data

    with download_progress(options.json) as tick:
        folder, is_new = fetch_data(options.name, tick)
    dataset = PUBLIC_DATASETS[options.name]
    if options.json:
        facts = {"name": options.name, "folder": str(folder), "downloaded": is_new}
        print(json.dumps({**facts, "license": dataset.license}))
        return 0
    out = console()
    state = "downloaded and verified" if is_new else "is on this machine already"
    out.print(f"{options.name} {state}: {dataset.about}", markup=False)
    out.print(f"folder   {folder}", markup=False)
    out.print(f"license  {dataset.license}", markup=False)
    out.print(f"\nuse it:\n  striate train {options.name}", markup=False)
    return 0


def _list(options: argparse.Namespace) -> int:
    from striate.cli.printing import console
    from striate.core.findings import Column, Table
    from striate.data.sources.downloads import PUBLIC_DATASETS, dataset_folders
    from striate.report.terminal import print_blocks

    facts = [
        {
            "name": name,
            "images": dataset.about,
            "megabytes": round(dataset.size / 1e6, 1),
            "license": dataset.license,
            "on_this_machine": any(f.is_dir() for f in dataset_folders(name)),
        }
        for name, dataset in PUBLIC_DATASETS.items()
    ]
    if options.json:
        print(json.dumps(facts))
        return 0
    columns = ("name", "images", "download", "license", "on this machine")
    rows = tuple(
        (
            str(row["name"]),
            str(row["images"]),
            f"{row['megabytes']} MB",
            str(row["license"]),
            "yes" if row["on_this_machine"] else "no",
        )
        for row in facts
    )
    table = Table(columns=tuple(map(Column, columns)), rows=rows)
    print_blocks([table], console())
    return 0
