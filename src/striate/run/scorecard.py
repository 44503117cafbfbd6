"""Report blocks of metrics: accuracies, confusion matrix, per-class table."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter

from striate.core.findings import Block, Column, Figure, Image, Matrix, Table
from striate.core.format import count_text
from striate.metrics.classification import ClassificationMetrics
from striate.metrics.multi_label import MultiLabelMetrics
from striate.report.format import NO_BREAK_SPACE, n_text, percent
from striate.report.format import ci_text as ci_text
from striate.run import layout as names
from striate.run.multi_label_scorecard import (
    label_figures,
    label_table,
    other_map_figures,
)
from striate.run.run import Run

MAX_ERRORS = 30  # confusions listed if the matrix is too large
MAX_CLASSES = 200  # maximum rows of the per-class table

CellImages = Mapping[tuple[int, int], tuple[Image, ...]]


def score_figures(
    split: str, score: ClassificationMetrics | MultiLabelMetrics
) -> tuple[Figure, ...]:
    """Return accuracy and balanced accuracy, each with a 95 % confidence interval.

    For several labels per image, return mAP, F1 and exact match. An unknown split is
    empty text.
    """
    if isinstance(score, MultiLabelMetrics):
        return label_figures(split, score)
    wide = f"95{NO_BREAK_SPACE}% interval"
    return (
        Figure(
            f"{split} accuracy".lstrip(),
            percent(score.accuracy),
            detail=f"{wide} {ci_text(score.interval)}, {n_text(score.count)}",
        ),
        Figure(
            "balanced accuracy",
            percent(score.balanced_accuracy),
            detail=f"{wide} {ci_text(score.balanced_interval)}, mean of class recalls",
        ),
    )


def other_accuracies(run: Run, split: str) -> tuple[Figure, ...]:
    """Return the accuracies of the training split, and of val unless it is `split`."""
    accuracies = {}
    if split != "train":
        accuracies["training accuracy"] = run.manifest.get("train_accuracy")
    if split != "val" and (run.path / names.SCORES).is_file():
        accuracies["validation accuracy"] = run.scores.get("val")
    if run.labels.multi_label:
        named = {k.split()[0]: v for k, v in accuracies.items() if v is not None}
        return other_map_figures(named)
    return tuple(
        Figure(
            label,
            percent(record["accuracy"]),
            detail=f"95{NO_BREAK_SPACE}% interval {ci_text(record['interval'])}, "
            f"{n_text(record['count'])}",
        )
        for label, record in accuracies.items()
        if record is not None
    )


def confusion_block(
    score: ClassificationMetrics,
    split: str,
    images: CellImages,  # example images of each cell
) -> Block:
    """Return the confusion matrix; for many classes, a table of frequent errors.

    Cells show the example `images`.
    """
    names = tuple(c.name for c in score.classes)
    if score.confusion:
        title = _title("Confusion matrix", split)
        return Matrix(labels=names, counts=score.confusion, images=images, title=title)
    return errors_table(score, split)


def _title(text: str, split: str) -> str:
    return f"{text} ({split} split)" if split else text


def errors_table(score: ClassificationMetrics, split: str) -> Table:
    """Return the table of the most frequent errors, by true and predicted class."""
    names = tuple(c.name for c in score.classes)
    errors = score.confused_pairs[:MAX_ERRORS]
    rest = len(score.confused_pairs) - len(errors)
    return Table(
        title=_title("Most frequent errors", split),
        columns=(
            Column("true class", key="true"),
            Column("predicted"),
            Column("images", "integer"),
        ),
        rows=tuple((names[true], names[pred], count) for true, pred, count in errors),
        note=(
            f"{count_text(rest, 'more pair')} of classes; "
            f"{count_text(len(names), 'class', 'classes')} in total."
        )
        if rest
        else "",
    )


def per_class_table(
    score: ClassificationMetrics | MultiLabelMetrics, most: int = MAX_CLASSES
) -> Table:
    """Return the table of recall, precision and F1 per class, with 95 % intervals.

    With more than `most` classes, only the classes with the lowest recall are listed.
    For several labels per image, see `label_table`.
    """
    if isinstance(score, MultiLabelMetrics):
        return label_table(score, most)
    columns = (
        Column("class"),
        Column("images", "integer", key="support"),
        Column(
            "recall",
            "share",
            hint="share of this class's images that were predicted correctly",
        ),
        Column("95 % interval", key="recall_interval", rank=1),
        Column(
            "precision",
            "percent",
            hint="share of predictions of this class that are correct",
        ),
        Column("95 % interval", key="precision_interval", rank=2),
        Column("F1", "percent", hint="harmonic mean of precision and recall"),
    )
    classes, note, title = score.classes, "", "By class"
    if len(classes) > most:
        evaluated = [c for c in classes if c.support]
        classes = tuple(sorted(evaluated, key=attrgetter("recall", "name"))[:most])
        title = f"By class, the {len(classes):,} with the lowest recall"
        note = (
            f"scores.json has all {count_text(len(score.classes), 'class', 'classes')}."
        )
    rows = tuple(
        (
            c.name,
            c.support,
            c.recall if c.support else None,
            ci_text(c.recall_interval) if c.support else "no images",
            c.precision if c.predicted else None,
            ci_text(c.precision_interval) if c.predicted else "never predicted",
            c.f1,
        )
        for c in classes
    )
    return Table(title=title, columns=columns, rows=rows, note=note)
