"""A split in findings: how many images of each class fell where."""

from __future__ import annotations

from collections import Counter

from striate.core.findings import Cell, Column, Table
from striate.data.image_data import ImageData
from striate.data.split.coverage import split_order

ROWS = 20  # classes listed; of more, the smallest


def split_counts(data: ImageData) -> dict[str, dict[str, int]]:
    """Return images by class and part, classes in output order."""
    counts = Counter((row.label, row.split) for row in data.rows)
    splits = split_order(set(data.subsets))
    return {
        name: {split: counts[name, split] for split in splits}
        for name in data.labels.names
    }


def split_table(data: ImageData) -> Table:
    """Return the parts of every class, or of the smallest where they are many."""
    splits = split_order(set(data.subsets))
    counts = split_counts(data)
    shown, title = list(counts), ""
    if len(shown) > ROWS:
        shown = sorted(shown, key=lambda name: sum(counts[name].values()))[:ROWS]
        title = f"The {ROWS} smallest of {len(counts):,} classes"
    rows: list[tuple[Cell, ...]] = [
        (name, *(counts[name][split] or "none" for split in splits)) for name in shown
    ]
    sums = [len(data.subsets[split]) for split in splits]
    shares: tuple[Cell, ...] = tuple(f"{100 * n / sum(sums):.1f} %" for n in sums)
    rows.append(("share", *shares))
    columns = (
        Column(title="class"),
        *(Column(title=split, kind="integer") for split in splits),
    )
    return Table(title=title, columns=columns, rows=tuple(rows), totals=("all", *sums))
