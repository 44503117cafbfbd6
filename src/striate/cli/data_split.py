"""Split images into train, val and test; --out writes a CSV for `striate train`."""

from __future__ import annotations

import argparse
import json
import shlex
from typing import TYPE_CHECKING

from striate.cli.command import add_flags, check_output_files
from striate.data.split.hash_split import SplitConfig

if TYPE_CHECKING:
    from striate.data.image_data import ImageData

FLAGS = {
    "data DATA": "images, as for `striate train`",
    "--exact": "stratify exactly: split each class by exact image counts; each "
    "class gets at least one image per split if possible (default: exact counts for "
    "small classes, approximate fractions for others)",
    "--val-fraction F": "fraction of the images for the validation split (default "
    "0.15)",
    "--test-fraction F": "fraction of the images for the test split (default 0.25)",
    "--folds N": "number of cross-validation folds; needs --fold",
    "--fold N": "index of the fold to use as the test split, from 0; needs --folds",
    "--split NAME": "earlier split (run folder, or CSV with the columns image_path and "
    "split): its images stay in their split, only new images are assigned",
    "--seed N": "random seed of the split (default 0)",
    "--out FILE": "CSV file to write (default: print only)",
    "--overwrite": "replace the file given by --out",
}


def configure_data_split(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `striate data split`."""
    shares = SplitConfig()
    add_flags(parser, FLAGS, val_fraction=shares.val, test_fraction=shares.test, seed=0)


def run_data_split(options: argparse.Namespace) -> int:
    """Split the images, print the counts, and write the CSV if --out is given."""
    check_output_files(options, "out")

    from striate.data.load import load_data
    from striate.data.split.split_file import write_split
    from striate.run.layout import find_split
    from striate.workflows.data_split.table import split_counts

    data = load_data(
        options.data,
        image_size=1,  # files are hashed before resizing, so tiny images are enough
        val_fraction=options.val_fraction,
        test_fraction=options.test_fraction,
        folds=options.folds,
        fold=options.fold,
        split=find_split(options.split) if options.split else None,
        exact=options.exact,
        seed=options.seed,
    )
    if options.out:
        write_split(options.out, data.rows)
    if options.json:
        facts: dict[str, object] = {"file_count": data.num_files, **data.counts}
        facts |= {
            "splits": {name: len(subset) for name, subset in data.subsets.items()}
        }
        messages = {"warnings": data.warnings, "notes": data.notes}
        out = {"out": str(options.out) if options.out else None}
        print(json.dumps({**facts, "classes": split_counts(data), **messages, **out}))
        return 0
    _show(options, data)
    return 0


def _show(options: argparse.Namespace, data: ImageData) -> None:
    from striate.cli.printing import console
    from striate.report.terminal import print_blocks
    from striate.workflows.data_split.table import split_table

    out = console()
    out.print(data.counts_text, style="dim", markup=False)
    print_blocks([split_table(data)], out)
    for warning in data.warnings:
        out.print(f"note: {warning}", style="yellow", markup=False)
    for note in data.notes:
        out.print(f"note: {note}", style="dim", markup=False)
    if options.out:
        out.print(f"split  {options.out}", markup=False)
        data_set, file = shlex.quote(options.data), shlex.quote(str(options.out))
        use = f"striate train {data_set} --split {file}"
        out.print(f"\nuse it:\n  {use}", markup=False)
