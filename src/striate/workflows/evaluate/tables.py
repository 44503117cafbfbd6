"""Tables of an operating point, with 95 % intervals and counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import compress

from striate.core.findings import Cell, Column, Table
from striate.metrics.selective import SelectiveCounts
from striate.metrics.threshold import ConfusionCounts
from striate.report.format import n_text, percent
from striate.run.scorecard import ci_text
from striate.workflows.evaluate.result import OperatingPointResult
from striate.workflows.evaluate.selection import Selection, Threshold
from striate.workflows.evaluate.threshold_results import Calibration, GroupResult

Row = tuple[Cell, ...]


def ratio_text(count: int, total: int) -> str:
    """Format a count and a total, such as `9 of 1,000`.

    Example:
        >>> ratio_text(9, 1000)
        '9 of 1,000'
    """
    return f"{count:,} of {total:,}"


HINTS = {
    "probability": "probability from which on the class is predicted, as `striate "
    "predict` prints it",
    "uncalibrated": "the same threshold before temperature scaling, for the softmax "
    "outputs of the network",
    "recall": "95 % range of the recall on new images of the same kind "
    "(distribution-free; Wilks 1941)",
    "ece": "expected calibration error: mean gap between predicted probability and "
    "observed frequency (10 equal-size bins)",
    "expected_ece": "ECE of a perfectly calibrated model with this number of images",
    "top_label_ece": "ECE of the predicted class (15 equal-width bins), as `striate "
    "evaluate` prints it",
    "brier": "mean squared error of the probability; lower is better",
    "accuracy": "accuracy of automatic decisions (outside the review band)",
}


def selection_table(selection: Selection, target: str) -> Table:
    """Return the table of thresholds chosen on validation, with expected recall."""
    title, probability = f"P({target}) ≥", "probability"
    columns = (
        Column("threshold", key="name"),
        Column(title, "ratio", key=probability, hint=HINTS[probability]),
        Column("uncalibrated", "ratio", hint=HINTS["uncalibrated"], rank=2),
        Column("true positives", key="tp", hint="on validation"),
        Column("expected recall", hint=HINTS["recall"]),
        Column("false positives", hint="on validation", key="fp", rank=1),
    )
    count, positives = (
        n_text(selection.count),
        f"{selection.positives:,}",
    )
    table = Table(
        title=f"Chosen on validation: {count}, {positives} of them {target}",
        columns=columns,
        rows=tuple(_threshold(each) for each in selection.thresholds),
    )
    return _without_empty_columns(table)


def _threshold(threshold: Threshold) -> Row:
    counts, recall = threshold.counts, threshold.expected_recall
    return (
        threshold.name,
        threshold.probability,
        threshold.uncalibrated,
        ratio_text(counts.tp, counts.positives),
        ci_text(recall) if recall else "–",
        ratio_text(counts.fp, counts.negatives),
    )


def threshold_table(result: OperatingPointResult) -> Table:
    """Return a table of recall, precision and specificity of each threshold."""
    thresholds = result.evaluation.thresholds
    overall = result.evaluation.overall.counts
    positives = f"{overall.positives:,} of them {result.target}"
    return Table(
        title=f"Results of the thresholds on {result.split}",
        columns=(Column("threshold", key="name"), *_share_columns(result)),
        rows=tuple((each.name, *_shares(counts)) for each, counts in thresholds),
        note=f"{n_text(overall.count)}, {positives}.",
    )


def _share_columns(result: OperatingPointResult) -> tuple[Column, ...]:
    target, rest = result.target, result.rest
    hints = {
        "recall": f"share of {target} images predicted as {target}",
        "precision": f"share of {target} predictions that are correct",
        "specificity": f"share of {rest} images not predicted as {target}",
    }
    columns = []
    for rank, (name, hint) in enumerate(hints.items()):
        columns += [
            Column(name, "percent", hint=hint, key=name, rank=rank),
            Column("95 % interval", key=f"{name}_interval", rank=3 + rank),
        ]
    return tuple(columns)


def _shares(n: ConfusionCounts, precision: bool = True) -> Row:
    """Return recall, precision and specificity with intervals; empty if undefined."""
    defined = {
        "recall": n.positives,
        "precision": precision and n.predicted_positives,
        "specificity": n.negatives,
    }
    row: list[Cell] = []
    for name, is_defined in defined.items():
        interval = ci_text(getattr(n, f"{name}_interval")) if is_defined else ""
        row += [getattr(n, name) if is_defined else None, interval]
    return tuple(row)


def calibration_table(result: OperatingPointResult) -> Table:
    """Return a table of calibration, also before temperature scaling if it is used."""
    titles = {
        "ece": "ECE",
        "expected_ece": "expected ECE",
        "top_label_ece": "top-label ECE",
    }
    ece_columns = [
        Column(title, "ratio", hint=HINTS[key], key=key, rank=int("top" in key))
        for key, title in titles.items()
    ]
    columns = (
        Column("probabilities", key="name"),
        Column("log loss", "number", hint="cross-entropy; lower is better"),
        *ece_columns,
        Column("Brier", "number", hint=HINTS["brier"], rank=2),
    )
    evaluation, temperature = result.evaluation, result.selection.temperature
    rows: tuple[Row, ...] = (("not scaled", *_calibration(evaluation.uncalibrated)),)
    if result.is_scaled:
        scaled = f"temperature {temperature:.3g}"
        rows = (*rows, (scaled, *_calibration(evaluation.calibrated)))
    return Table(
        title=f"Calibration on {result.split}, {n_text(result.data.count)}",
        columns=columns,
        rows=rows,
        note=_log_loss_change(result) if result.is_scaled else "",
    )


def _calibration(calibration: Calibration) -> Row:
    c = calibration
    return c.log_loss, c.ece, c.expected_ece, c.top_label_ece, c.brier_score


def _log_loss_change(result: OperatingPointResult) -> str:
    effect = result.evaluation.log_loss_change
    if effect.interval is None:
        return "Temperature scaling does not change the log loss."
    low, high = effect.interval
    change = f"{effect.difference:+.4f} (95 % interval {low:+.4f} to {high:+.4f})"
    text = f"Change in log loss by temperature scaling: {change}; negative is better."
    return text.replace("-", "−")


def band_table(result: OperatingPointResult) -> Table | None:
    """Return a table of the review band on the validation and the evaluated split."""
    validation = result.selection.selective
    evaluated = result.evaluation.overall.selective
    if evaluated is None or validation is None:
        return None
    target, rest = result.target, result.rest
    hint = f"missed without review: {target} images decided as {rest}"
    columns = (
        Column("split"),
        Column("n", "integer", hint="images", key="count", rank=4),
        Column("manual review", "percent", key="review"),
        Column("95 % interval", key="review_interval", rank=3),
        Column("automatic accuracy", "percent", hint=HINTS["accuracy"], key="accuracy"),
        Column("95 % interval", key="accuracy_interval", rank=1),
        Column(f"correct {target}", key="correct_positive", rank=2),
        Column(f"correct {rest}", key="correct_negative", rank=2),
        Column("missed", hint=hint, key="fn"),
    )
    rows = (
        ("validation", *_selective(validation)),
        (result.split, *_selective(evaluated)),
    )
    return Table(title="Review band", columns=columns, rows=rows)


def _selective(selective: SelectiveCounts) -> Row:
    return (
        selective.count,
        selective.abstention_rate,
        ci_text(selective.abstention_rate_interval),
        selective.accuracy if selective.answered else None,
        ci_text(selective.accuracy_interval),
        ratio_text(selective.tp, selective.predicted_positives),
        ratio_text(selective.tn, selective.predicted_negatives),
        ratio_text(selective.fn, selective.positives),
    )


def group_table(
    result: OperatingPointResult, column: str, groups: Sequence[GroupResult]
) -> Table:
    """Return a table of the threshold's results for each value of a CSV column."""
    columns = (
        Column(column, key="value"),
        Column("n", "integer", hint="images", key="count"),
        Column(result.target, "integer", key="positives"),
        *_share_columns(result),
        Column("ROC-AUC", "number", rank=2),
        Column("95 % interval", key="roc_auc_interval", rank=6),
    )
    threshold = percent(result.selection.threshold.probability, 2)
    title = f"By {column}, with threshold P({result.target}) ≥ {threshold}"
    table = Table(title=title, columns=columns, rows=tuple(map(_group, groups)))
    return _without_empty_columns(table)


def _without_empty_columns(table: Table) -> Table:
    """Return a table without columns that have no values."""
    filled = [
        any(cell not in (None, "") for cell in column)
        for column in zip(*table.rows, strict=True)
    ]
    rows = tuple(tuple(compress(row, filled)) for row in table.rows)
    return replace(table, columns=tuple(compress(table.columns, filled)), rows=rows)


def _group(group: GroupResult) -> Row:
    n = group.counts
    # If all images are of one class, precision only repeats it.
    shares = _shares(n, precision=bool(n.positives and n.negatives))
    auc: Row = (None, "")
    if group.roc_auc:
        value, (low, high) = group.roc_auc
        auc = round(value, 3), f"{low:.3f}–{high:.3f}"
    return (group.value, n.count, n.positives, *shares, *auc)


def distribution_table(
    result: OperatingPointResult, column: str, groups: Sequence[GroupResult]
) -> Table:
    """Return a table of the distribution of probabilities by value of a CSV column."""
    target, rest = result.target, result.rest
    hint = f"lower and upper quartile of the probabilities of {target}"
    columns = (
        Column(column, key="value"),
        Column("n", "integer", hint="images", key="count"),
        Column(f"predicted {target}", "percent", key="predicted"),
        Column("middle 50 %", hint=hint, key="quartiles", rank=2),
        Column("median", "percent", rank=1),
        Column(f"automatic {rest}", "percent", key="below", rank=1),
        Column("manual review", "percent", key="review"),
        Column(f"automatic {target}", "percent", key="above", rank=1),
        Column("automatic accuracy", "percent", key="accuracy"),
        Column("95 % interval", key="accuracy_interval", rank=2),
    )
    rows = tuple(_distribution(group) for group in groups)
    title = f"Predicted probabilities by {column}"
    return Table(title=title, columns=columns, rows=rows)


def _distribution(group: GroupResult) -> Row:
    low, median, high = group.quartiles
    count, selective = group.counts.count, group.selective
    predicted = group.counts.predicted_positives / count
    row = (group.value, count, predicted, ci_text((low, high)), median)
    if selective is None:
        return (*row, None, 1.0, None, None, "")
    accuracy = selective.accuracy if selective.answered else None
    low_side = selective.predicted_negatives / count
    high_side = selective.predicted_positives / count
    sides = (low_side, selective.abstention_rate, high_side)
    return (*row, *sides, accuracy, ci_text(selective.accuracy_interval))
