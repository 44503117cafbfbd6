"""Tables of label errors: suspected images, and confused pairs of classes."""

from __future__ import annotations

from itertools import islice

from striate.core.findings import Block, Column, Prose, Table
from striate.core.format import count_text
from striate.data.check.check import DataCheckResult
from striate.data.check.label_errors import LabelErrors

PAIRS_SHOWN = 10  # rows of the table; --json has all


def suspect_table(result: DataCheckResult, count: int, folder: str = "") -> list[Block]:
    """Return a table of suspected label errors, the lowest label quality first."""
    label_errors = result.label_errors
    if label_errors is None or not len(label_errors.analysis.suspected):
        return []
    columns = (
        Column("image"),
        Column("label"),
        Column("predicted"),
        Column("P(predicted)", "probability", hint="probability of this class"),
        Column("P(label)", "probability", hint="probability of the label"),
    )
    suspected = (row for row in label_errors.ranking() if row.suspected)
    rows = tuple(
        (
            result.items[row.position].record.path.removeprefix(folder),
            *(row.label, row.suggested_label, row.probability, row.label_probability),
        )
        for row in islice(suspected, count)
    )
    rest = len(label_errors.analysis.suspected) - len(rows)
    note = f"{rest:,} more in the output of --json." if rest else ""
    return [Table(columns=columns, rows=rows, note=note)]


def confusion_table(label_errors: LabelErrors, count: int = PAIRS_SHOWN) -> list[Block]:
    """Return a table of confused class pairs, with estimated label error counts."""
    cells = label_errors.analysis.confusions
    if not cells:
        return []
    hint = "from confident predictions, scaled to the class size"
    columns = (
        Column("label"),
        Column("predicted"),
        Column("suspected", "integer", hint="images listed here"),
        Column("estimated errors", "number", hint=hint),
    )
    names = label_errors.names
    rows = tuple(
        (names[c.label], names[c.suggested], c.suspected_count, round(c.estimate, 1))
        for c in cells[:count]
    )
    rest = count_text(len(cells) - len(rows), "more pair")
    note = f"{rest} in the output of --json." if len(cells) > len(rows) else ""
    return [Table(columns=columns, rows=rows, note=note)]


def method_note(label_errors: LabelErrors) -> Prose:
    """Return a note on the method of the label check and its duration."""
    text = (
        f"Method: {label_errors.folds}-fold cross-validation of {label_errors.method}, "
        f"{label_errors.seconds:,.0f} s in total. Duplicates and groups are in one "
        "fold. A classifier is confident in a class if its probability is at least the "
        "mean probability of that class over the images with this label (confident "
        "learning; Northcutt, Jiang and Chuang 2021)."
    )
    return Prose(text)
