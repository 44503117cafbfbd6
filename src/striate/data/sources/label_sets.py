"""Labels of CSV rows: one class per image, or several classes separated by `;`."""

from __future__ import annotations

from collections.abc import Sequence

from striate.core.class_names import SEPARATOR, ClassNames, split_label

Rows = Sequence[tuple[int, dict[str, str]]]
LABEL = "label"
SEVERAL = "labels"  # name of the column if every image may have several labels


def read_label_sets(
    header: list[str], rows: Rows, multi_label: bool = False
) -> tuple[list[str], Rows, bool]:
    """Return columns and rows of a CSV, and whether images have several labels.

    They do with `multi_label`, if the column is named `labels`, or if a label has a
    `;`. Equal sets of labels then have equal texts.

    Example:
        >>> read_label_sets(["label"], [(2, {"label": "b ;a"}), (3, {"label": ""})])[1]
        [(2, {'label': 'a;b'}), (3, {'label': ''})]
    """
    if SEVERAL in header and LABEL not in header:
        header = [LABEL if name == SEVERAL else name for name in header]
        rows = [(n, {**row, LABEL: row.get(SEVERAL, "")}) for n, row in rows]
        multi_label = True
    has_separator = any(SEPARATOR in (row.get(LABEL) or "") for _, row in rows)
    if not multi_label and not has_separator:
        return header, rows, False
    return header, [(n, _normalized(row)) for n, row in rows], True


def _normalized(row: dict[str, str]) -> dict[str, str]:
    label = row.get(LABEL)
    if label is None:  # an incomplete line
        return row
    return {**row, LABEL: SEPARATOR.join(split_label(label))}


def class_names_of(labels: Sequence[str], multi_label: bool) -> ClassNames:
    """Return the classes of single labels, or of labels with several classes."""
    return ClassNames.of_several(labels) if multi_label else ClassNames.of(labels)
