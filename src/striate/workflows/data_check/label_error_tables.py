"""Doubtful labels as tables: which images, and which classes for which."""

from __future__ import annotations

from itertools import islice

from striate.core.findings import Block, Column, Prose, Table
from striate.data.check.check import Checked
from striate.data.check.label_error_findings import Doubts
from striate.report.format import count_text

PAIRS = 10  # of classes; JSON has all


def suspects(found: Checked, count: int, base: str = "") -> list[Block]:
    """Return the labels most in doubt of those believed wrong, one a row."""
    doubts = found.doubts
    if doubts is None or not len(doubts.judged.wrong):
        return []
    columns = (
        Column(title="image"),
        Column(title="labeled"),
        Column(title="looks like"),
        Column(title="probability", kind="percent", hint="of what it looks like"),
        Column(title="of label", kind="percent", hint="of what it is labeled"),
    )
    doubted = (d for d in doubts.ranking() if d.believed_wrong)
    rows = tuple(
        (
            found.items[d.position].record.path.removeprefix(base),
            *(d.label, d.looks_like, d.probability, d.of_label),
        )
        for d in islice(doubted, count)
    )
    rest = len(doubts.judged.wrong) - len(rows)
    note = f"{rest:,} more are doubted." if rest else ""
    return [Table(columns=columns, rows=rows, note=note)]


def confusions(doubts: Doubts, count: int = PAIRS) -> list[Block]:
    """Return which classes are taken for which, and how often by estimate."""
    cells = doubts.judged.confusions
    if not cells:
        return []
    columns = (
        Column(title="labeled"),
        Column(title="looks like"),
        Column(title="doubted", kind="integer", hint="images listed here"),
        Column(
            title="estimated wrong",
            kind="number",
            hint="from sure images, scaled to the size of the class",
        ),
    )
    names = doubts.names
    rows = tuple(
        (names[c.given], names[c.other], c.doubted, round(c.estimate, 1))
        for c in cells[:count]
    )
    rest = cells[count:]
    note = f"{count_text(len(rest), 'rarer pair')}: --json has all." if rest else ""
    return [Table(columns=columns, rows=rows, note=note)]


def how(doubts: Doubts) -> Prose:
    """Say how the labels were judged, and what that cost."""
    text = (
        f"Judged by {doubts.folds} networks ({doubts.model}), each taught the other "
        f"folds, gone through {count_text(doubts.epochs, 'time')}; it all took "
        f"{doubts.seconds:,.0f} s. Copies, near-duplicates and groups lie in one fold. "
        "Sure of a class is who gives it at least the probability that images "
        "labeled so are given on average (confident learning; Northcutt, Jiang and "
        "Chuang 2021)."
    )
    return Prose(text=text)
