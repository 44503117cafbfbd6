"""Tables of differences between groups of runs: accuracy, loss, recall by class."""

from __future__ import annotations

from collections.abc import Sequence

from striate.core.findings import Cell, Column, Table
from striate.core.format import count_text
from striate.metrics.intervals import Interval
from striate.metrics.paired import PairedCounts
from striate.metrics.significance import holm_correction, paired_t_test
from striate.report.format import percent
from striate.workflows.compare.conclusion import (
    p_text,
    points_interval,
    points_text,
    signed_text,
)
from striate.workflows.compare.significance import (
    MCNEMAR,
    PAIRED_T,
    WELCH,
    PairwiseTest,
)

MAX_CLASSES = 30


def difference_table(tests: Sequence[PairwiseTest]) -> Table:
    """Return the table of accuracy differences between runs, with p-values."""
    first = tests[0].first.letter
    over_images = all(test.method == MCNEMAR for test in tests)
    several = sum(test.p is not None for test in tests) > 1
    points = "in percentage points of accuracy"
    columns = [
        Column("", "code", key="second"),
        Column("tested on", key="on", rank=2),
        Column(f"accuracy {first}", "number", key="first", rank=3),
        Column("accuracy", "number", key="own"),
        Column("difference", "number", hint=points),
        Column("95 % interval", "number", key="interval"),
    ]
    if over_images:
        columns += _flip_columns(first)
    columns.append(Column("p", "number", rank=4 if several else 0))
    if several:
        hint = f"p corrected for {count_text(len(tests), 'comparison')}"
        columns.append(Column("p (Holm)", "number", hint=hint))
    return Table(
        title=f"Accuracy difference from {first}, on the images evaluated by both",
        columns=tuple(columns),
        rows=tuple(_difference_row(test, over_images, several) for test in tests),
        note=" ".join(dict.fromkeys(METHODS.get(test.method, "") for test in tests)),
    )


def _flip_columns(first: str) -> list[Column]:
    hints = {
        "gained": f"images wrong in {first}, correct here",
        "lost": f"images correct in {first}, wrong here",
    }
    return [Column(name, "integer", hint=hint) for name, hint in hints.items()]


def _difference_row(
    test: PairwiseTest, over_images: bool, several: bool
) -> tuple[Cell, ...]:
    row: list[Cell] = [test.second.letter, _basis(test)]
    row += map(percent, _accuracies(test))
    row += [points_text(test.difference), points_interval(test.interval)]
    if over_images:
        paired = test.pairings[0].paired
        row += [paired.gained, paired.lost]
    row.append(p_text(test.p))
    return (*row, p_text(test.p_holm)) if several else tuple(row)


def _accuracies(test: PairwiseTest) -> tuple[float, float]:
    """Return the mean accuracies of the two groups of runs in a significance test."""
    if test.method == WELCH or not test.pairings:
        return test.first.mean_accuracy, test.second.mean_accuracy
    pairs = [pairing.paired.accuracies for pairing in test.pairings]
    return sum(a for a, _ in pairs) / len(pairs), sum(b for _, b in pairs) / len(pairs)


def _basis(test: PairwiseTest) -> str:
    if test.method == MCNEMAR:
        return count_text(test.pairings[0].count, "image")
    if test.method == PAIRED_T:
        return count_text(len(test.pairings), "seed")
    if test.method == WELCH:
        return f"{len(test.first.runs)} and {count_text(len(test.second.runs), 'seed')}"
    return f"{len(test.pairings)} seed" if test.pairings else "nothing"


METHODS = {
    MCNEMAR: "McNemar's exact test; Tango's score interval.",
    PAIRED_T: "Student's t-test over pairs of equal seed.",
    WELCH: "Welch's t-test over the seeds, which are not the same.",
}


def other_metrics_table(tests: Sequence[PairwiseTest]) -> Table | None:
    """Return the table of differences in balanced accuracy and loss."""
    rows: list[tuple[Cell, ...]] = []
    for test in tests:
        if not (effects := _other_differences(test)):
            continue
        (balanced, limits), (loss, ends) = effects
        points = points_text(balanced), points_interval(limits)
        rows.append((test.letters, "balanced accuracy (points)", *points))
        text = f"{signed_text(ends[0], 4)} to {signed_text(ends[1], 4)}" if ends else ""
        rows.append((test.letters, "loss (cross-entropy)", signed_text(loss, 4), text))
    columns = (
        Column("", "code", key="groups"),
        Column("", key="metric"),
        Column("difference", "number"),
        Column("95 % interval", "number", key="interval"),
    )
    note = (
        "Only accuracy is tested for significance (testing many metrics produces false "
        "positives)."
    )
    if not rows:
        return None
    return Table(title="Other metrics", columns=columns, rows=tuple(rows), note=note)


def _other_differences(test: PairwiseTest) -> list[tuple[float, Interval | None]]:
    if test.method == MCNEMAR:
        (pairing,) = test.pairings
        return [pairing.balanced, pairing.loss]
    if test.method != PAIRED_T:
        return []
    balanced = [pairing.balanced[0] for pairing in test.pairings]
    losses = [pairing.loss[0] for pairing in test.pairings]
    effects = [paired_t_test(values, test.overlap) for values in (balanced, losses)]
    return [(effect.difference, effect.interval) for effect in effects]


def class_difference_table(test: PairwiseTest) -> Table | None:
    """Return the table of recall by class for the two groups of runs in a test.

    With several seeds, the counts are summed over the seeds. The same images then count
    more than once, so no class is tested.
    """
    classes = _classes(test)
    if not classes:
        return None
    tested = test.method == MCNEMAR
    order = _most_changed([paired for _, paired in classes])
    corrected = holm_correction([paired.p_value for _, paired in classes])
    rows: list[tuple[Cell, ...]] = []
    for i in order:
        name, paired = classes[i]
        row: list[Cell] = [name, paired.count, *map(percent, paired.accuracies)]
        row += [points_text(paired.difference), paired.gained, paired.lost]
        rows.append((*row, *[p_text(corrected[i])] * tested))
    rest = len(classes) - len(rows)
    return Table(
        title=f"By class, {test.second.letter} against {test.first.letter}",
        columns=_class_columns(test, len(classes), tested),
        rows=tuple(rows),
        note=f"{count_text(rest, 'class', 'classes')} with smaller changes not shown."
        if rest
        else "",
    )


def _classes(test: PairwiseTest) -> list[tuple[str, PairedCounts]]:
    """Return the sums over run pairs of correct and wrong predictions by class."""
    sums: dict[str, PairedCounts] = {}
    for pairing in test.pairings:
        for name, paired in pairing.classes:
            sums[name] = sums[name] + paired if name in sums else paired
    return list(sums.items())


def _most_changed(classes: Sequence[PairedCounts]) -> list[int]:
    """Return class indices; of many classes, those with the largest recall changes."""
    order = list(range(len(classes)))
    if len(classes) <= MAX_CLASSES:
        return order
    changes = [abs(paired.gained - paired.lost) for paired in classes]
    return sorted(order, key=lambda i: -changes[i])[:MAX_CLASSES]


def _class_columns(test: PairwiseTest, count: int, tested: bool) -> tuple[Column, ...]:
    a, b = test.first.letter, test.second.letter
    points = "difference of recall in percentage points"
    columns = [
        Column("class"),
        Column("images" if tested else "predictions", "integer", rank=1),
        Column(f"recall {a}", "number", key="first"),
        Column(f"recall {b}", "number", key="second"),
        Column(test.letters, "number", key="difference", hint=points),
        *_flip_columns(a),
    ]
    if tested:
        hint = f"p corrected for {count_text(count, 'class', 'classes')}"
        columns.append(Column("p (Holm)", "number", hint=hint))
    return tuple(columns)
