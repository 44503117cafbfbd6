"""The figures of a detection as tables, every share with its interval and its n."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from striate.core.findings import Cell, Column, Table
from striate.metrics.selective import SelectiveCounts
from striate.metrics.threshold import ConfusionCounts
from striate.report.format import percent
from striate.run.scorecard import GAP, span
from striate.workflows.evaluate.evaluation import Calibration, Group
from striate.workflows.evaluate.result import Told
from striate.workflows.evaluate.selection import Choice, Point

Row = tuple[Cell, ...]


def of(right: int, count: int) -> str:
    """Write how many of how many.

    Example:
        >>> of(9, 1000)
        '9 of 1,000'
    """
    return f"{right:,} of {count:,}"


def chosen_table(choice: Choice, target: str) -> Table:
    """Return the thresholds, and what validation says that they will do."""
    columns = (
        Column(title="threshold", key="name"),
        Column(title=f"{target} from", kind="ratio", key="threshold"),
        Column(
            title="network says",
            kind="ratio",
            hint="the same before temperature scaling: what predict prints",
            key="plain",
            rank=2,
        ),
        Column(title="found", key="found", hint="on validation"),
        Column(
            title="recall to expect",
            hint="95 % range on new images like these, whatever the probabilities' "
            "distribution (Wilks 1941)",
            key="promise",
        ),
        Column(title="false alarms", hint="on validation", key="alarms", rank=1),
    )
    head = f"Chosen on validation: n{GAP}={GAP}{choice.count:,}, of them "
    return Table(
        title=f"{head}{choice.positives:,} {target}",
        columns=columns,
        rows=tuple(_chosen(point) for point in choice.points),
    )


def _chosen(point: Point) -> Row:
    counts = point.counts
    return (
        point.name,
        point.threshold,
        point.plain,
        of(counts.tp, counts.positives),
        span(point.promise) if point.promise else "not chosen for it",
        of(counts.fp, counts.negatives),
    )


def judged_table(told: Told) -> Table:
    """Return what each threshold comes to on the judged split."""
    columns = (
        Column(title="threshold", key="name"),
        *_shares("recall", f"of {told.target}, found", 0),
        *_shares("precision", f"of what is called {told.target}, right", 1),
        *_shares("specificity", f"of {told.rest}, left alone", 2),
    )
    rows = tuple(
        (point.name, *_recall(one), *_precision(one), *_specificity(one))
        for point, one in told.judged.points
    )
    whole = told.judged.whole.counts
    note = f"n{GAP}={GAP}{whole.count:,}, of them {whole.positives:,} {told.target}."
    title = f"What the thresholds come to on {told.split}"
    return Table(title=title, columns=columns, rows=rows, note=note)


def _shares(name: str, hint: str, rank: int) -> tuple[Column, Column]:
    wide = Column(title="95 % interval", key=f"{name}_interval", rank=3 + rank)
    return Column(title=name, kind="percent", hint=hint, key=name, rank=rank), wide


def _recall(one: ConfusionCounts) -> Row:
    return (one.recall, span(one.recall_interval)) if one.positives else (None, "")


def _precision(one: ConfusionCounts) -> Row:
    return (
        (one.precision, span(one.precision_interval))
        if one.predicted_positives
        else (None, "")
    )


def _specificity(one: ConfusionCounts) -> Row:
    if not one.negatives:
        return None, ""
    return one.specificity, span(one.specificity_interval)


def calibration_table(told: Told) -> Table:
    """Return calibration before and after temperature scaling."""
    columns = (
        Column(title="probabilities", key="name"),
        Column(title="cost", kind="number", hint="cross-entropy, nats; less is better"),
        Column(
            title="calibration error",
            kind="ratio",
            hint="mean distance of what is said from what holds, over ten bins of "
            "equal number",
            key="gap",
        ),
        Column(
            title="by chance",
            kind="ratio",
            hint="what perfect probabilities would show on so few images",
            key="by_chance",
        ),
        Column(
            title="of the answers",
            kind="ratio",
            hint="as evaluate gives it: of the class that is said, in 15 bins",
            key="answers",
            rank=1,
        ),
        Column(title="Brier", kind="number", hint="mean square distance", rank=2),
    )
    warm = f"temperature {told.choice.temperature:.3g}"
    found = told.judged
    rows = (
        ("the network's own", *_calibration(found.before)),
        (warm, *_calibration(found.after)),
    )
    title = f"Calibration on {told.split}, n{GAP}={GAP}{told.view.count:,}"
    return Table(title=title, columns=columns, rows=rows, note=_cooler(told))


def _calibration(one: Calibration) -> Row:
    return (one.cost, one.gap, one.by_chance, one.answers, one.brier)


def _cooler(told: Told) -> str:
    effect = told.judged.cooler
    if effect.interval is None:
        return "The temperature changes nothing."
    low, high = effect.interval
    said = f"{effect.difference:+.4f} nats an image ({low:+.4f} to {high:+.4f})"
    return f"Cost after minus before: {said}.".replace("-", "−")


def band_table(told: Told) -> Table | None:
    """Return what the unsure band comes to, where it was chosen and where judged."""
    band, chosen = told.judged.whole.sorted, told.choice.sorted
    if band is None or chosen is None:
        return None
    columns = (
        Column(title="split", key="split"),
        Column(title="n", kind="integer", hint="images", key="count", rank=4),
        Column(title="to a person", kind="percent", key="sent"),
        Column(title="95 % interval", key="sent_interval", rank=3),
        Column(title="right outside", kind="percent", key="accuracy"),
        Column(title="95 % interval", key="accuracy_interval", rank=1),
        Column(title=f"{told.target}, right", key="above", rank=2),
        Column(title=f"{told.rest}, right", key="below", rank=2),
        Column(
            title="slip through",
            hint=f"of {told.target}: said to be {told.rest}, and no person looks",
            key="missed",
        ),
    )
    rows = (("validation", *_band(chosen)), (told.split, *_band(band)))
    return Table(title="The unsure band", columns=columns, rows=rows)


def _band(one: SelectiveCounts) -> Row:
    return (
        one.count,
        one.abstention_rate,
        span(one.abstention_rate_interval),
        one.accuracy if one.answered else None,
        span(one.accuracy_interval),
        of(one.tp, one.predicted_positives),
        of(one.tn, one.predicted_negatives),
        of(one.fn, one.positives),
    )


def group_table(told: Told, column: str, groups: Sequence[Group]) -> Table:
    """Return what the threshold comes to for every value of a column."""
    columns = (
        Column(title=column, key="value"),
        Column(title="n", kind="integer", hint="images", key="count"),
        Column(title=told.target, kind="integer", key="positives"),
        *_shares("recall", f"of {told.target}, found", 0),
        *_shares("precision", f"of what is called {told.target}, right", 1),
        *_shares("specificity", f"of {told.rest}, left alone", 2),
        Column(title="ROC-AUC", kind="number", key="roc_auc", rank=2),
        Column(title="95 % interval", key="roc_auc_interval", rank=6),
    )
    point = told.choice.aimed
    title = f"By {column}, {told.target} from {percent(point.threshold, 2)} on"
    table = Table(title=title, columns=columns, rows=tuple(map(_of_group, groups)))
    return _without_empty(table)


def _without_empty(table: Table) -> Table:
    """Leave out columns that no row has anything in: a value may be of one kind."""
    cells = list(zip(*table.rows, strict=True))
    kept = [
        i for i, column in enumerate(cells) if any(c not in (None, "") for c in column)
    ]
    return replace(
        table,
        columns=tuple(table.columns[i] for i in kept),
        rows=tuple(tuple(row[i] for i in kept) for row in table.rows),
    )


def _of_group(group: Group) -> Row:
    one = group.counts
    both = one.positives and one.negatives
    area = (round(group.auc[0], 3), _area(group.auc[1])) if group.auc else (None, "")
    return (
        group.value,
        one.count,
        one.positives,
        *_recall(one),
        # Where all are of one kind, precision only repeats it.
        *(_precision(one) if both else (None, "")),
        *_specificity(one),
        *area,
    )


def _area(interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{low:.3f}–{high:.3f}"


def fall_table(told: Told, column: str, groups: Sequence[Group]) -> Table:
    """Return where the images of every value fall."""
    columns = (
        Column(title=column, key="value"),
        Column(title="n", kind="integer", hint="images", key="count"),
        Column(title=f"called {told.target}", kind="percent", key="called"),
        Column(
            title="middle half",
            hint=f"of the probabilities of {told.target}: lower and upper quartile",
            key="quarters",
            rank=2,
        ),
        Column(title="median", kind="percent", key="median", rank=1),
        *(
            Column(title=title, kind="percent", key=key, rank=rank)
            for title, key, rank in (
                (f"sure: {told.rest}", "below", 1),
                ("to a person", "sent", 0),
                (f"sure: {told.target}", "above", 1),
                ("right outside", "accuracy", 0),
            )
        ),
        Column(title="95 % interval", key="accuracy_interval", rank=2),
    )
    rows = tuple(_fall(group) for group in groups)
    return Table(title=f"Where they fall, by {column}", columns=columns, rows=rows)


def _fall(group: Group) -> Row:
    low, middle, high = group.quarters
    count, one = group.counts.count, group.sorted
    called = group.counts.predicted_positives / count
    head = (group.value, count, called, span((low, high)), middle)
    if one is None:
        return (*head, None, 1.0, None, None, "")
    right = one.accuracy if one.answered else None
    sides = (
        one.predicted_negatives / count,
        one.abstention_rate,
        one.predicted_positives / count,
    )
    return (*head, *sides, right, span(one.accuracy_interval))
