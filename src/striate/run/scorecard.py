"""A score in findings: right and wrong by class, every share with its interval."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter

from striate.core.findings import (
    Block,
    Column,
    Figure,
    Image,
    Matrix,
    Table,
)
from striate.metrics.classification import ClassificationMetrics
from striate.report.format import percent

ERRORS = 30  # kinds of errors listed where it cannot
ROWS = 200  # classes listed in a report; of more, those found least
GAP = "\u00a0"

Held = Mapping[tuple[int, int], tuple[Image, ...]]


def span(interval: tuple[float, float], digits: int = 1) -> str:
    """Write an interval of shares.

    Example:
        >>> span((0.9455, 0.9982)).replace(GAP, " ")
        '94.5–99.8 %'
    """
    low, high = (100 * bound for bound in interval)
    return f"{low:.{digits}f}–{high:.{digits}f}{GAP}%"


def headlines(split: str, score: ClassificationMetrics) -> tuple[Figure, ...]:
    """Return accuracy and balanced accuracy, each with its 95 % interval."""
    wide = f"95{GAP}% interval"
    count = f"n{GAP}={GAP}{score.count:,}"
    return (
        Figure(
            label=f"{split} accuracy",
            value=percent(score.accuracy),
            detail=f"{wide} {span(score.interval)}, {count}",
        ),
        Figure(
            label="balanced accuracy",
            value=percent(score.balanced_accuracy),
            detail=f"{wide} {span(score.balanced_interval)}, every class alike",
        ),
    )


def confusion(score: ClassificationMetrics, split: str, held: Held) -> Block:
    """Return the confusion matrix, or its most frequent errors where it is too large.

    Args:
        score: What to show.
        split: What was judged.
        held: Images of the matrix's cells.
    """
    names = tuple(c.name for c in score.classes)
    if score.confusion:
        title = f"Confusion on the {split} split"
        return Matrix(labels=names, counts=score.confusion, images=held, title=title)
    errors = score.confused_pairs[:ERRORS]
    rest = len(score.confused_pairs) - len(errors)
    return Table(
        title=f"Most frequent errors on the {split} split",
        columns=(
            Column(title="is"),
            Column(title="taken for"),
            Column(title="images", kind="integer"),
        ),
        rows=tuple((names[true], names[said], count) for true, said, count in errors),
        note=f"{rest:,} more kinds of error; {len(names):,} classes." if rest else "",
    )


def class_table(score: ClassificationMetrics, most: int = ROWS) -> Table:
    """Return precision, recall and F1 of each class, with intervals.

    Of more than `most` classes those with the lowest recall are listed.
    """
    columns = (
        Column(title="class", key="class"),
        Column(title="images", kind="integer", key="support"),
        Column(title="recall", kind="share", hint="found, of those that are"),
        Column(title="95 % interval", key="recall_interval", rank=1),
        Column(title="precision", kind="percent", hint="right, of those so called"),
        Column(title="95 % interval", key="precision_interval", rank=2),
        Column(title="F1", kind="percent", hint="harmonic mean of the two", rank=3),
    )
    shown, note, title = score.classes, "", "By class"
    if len(shown) > most:
        judged = [c for c in shown if c.support]
        shown = tuple(sorted(judged, key=attrgetter("recall", "name"))[:most])
        title = f"By class, the {len(shown):,} least found"
        note = f"All {len(score.classes):,} classes stand in scores.json."
    rows = tuple(
        (
            c.name,
            c.support,
            c.recall if c.support else None,
            span(c.recall_interval) if c.support else "not judged",
            c.precision if c.predicted else None,
            span(c.precision_interval) if c.predicted else "never said",
            c.f1,
        )
        for c in shown
    )
    return Table(title=title, columns=columns, rows=rows, note=note)
