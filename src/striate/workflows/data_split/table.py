"""Table of the number of images per class in the train, val and test splits."""

from __future__ import annotations

from striate.core.findings import Cell, Column, Table
from striate.core.format import count_text
from striate.data.image_data import ImageData, images_by_class
from striate.data.split.split_checks import split_order

ROWS_SHOWN = 20  # if there are more classes, the smallest are shown


def split_counts(data: ImageData) -> dict[str, dict[str, int]]:
    """Return image counts by class (in the order of the network outputs) and split."""
    counts = images_by_class(data)
    splits = split_order(set(data.subsets))
    return {
        name: {split: counts[name, split] for split in splits}
        for name in data.labels.names
    }


def split_table(data: ImageData) -> Table:
    """Return a table of images per class and split, limited to `ROWS_SHOWN` rows."""
    splits = split_order(set(data.subsets))
    counts = split_counts(data)
    names, title = list(counts), ""
    if len(names) > ROWS_SHOWN:
        names = sorted(names, key=lambda name: sum(counts[name].values()))[:ROWS_SHOWN]
        title = (
            f"The {ROWS_SHOWN} smallest of "
            f"{count_text(len(counts), 'class', 'classes')}"
        )
    rows: list[tuple[Cell, ...]] = [
        (name, *(counts[name][split] or "none" for split in splits)) for name in names
    ]
    sums = [len(data.subsets[split]) for split in splits]
    shares: tuple[Cell, ...] = tuple(f"{100 * n / sum(sums):.1f} %" for n in sums)
    rows.append(("share", *shares))
    columns = (Column("class"), *(Column(split, "integer") for split in splits))
    return Table(title=title, columns=columns, rows=tuple(rows), totals=("all", *sums))
