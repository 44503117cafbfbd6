"""Label safety as report blocks: warnings, tables and accuracy curves."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict

import numpy as np

from striate.core import findings as f
from striate.core.format import count_text
from striate.data.augment.single_transform import TRANSFORM_NAMES, SingleTransform
from striate.metrics.intervals import wilson_interval
from striate.report.format import percent
from striate.workflows.data_augment.label_safety import (
    ALPHA,
    MIN_LOSS,
    LabelSafety,
    TransformedAccuracy,
    UnsafeLabel,
)

WORST_SHOWN = 3  # classes in a chart, besides the mean
ROWS_SHOWN = 12  # rows of the table; the CSV has all
READING = (
    "If a class is mistaken for one other class, look at the images. If you agree with "
    "the prediction, the transform changes the label: use a smaller range. If you "
    "disagree, or if the predictions differ, the network has not seen such images in "
    "training, and training with this transform may help. To decide, train a run with "
    "the transform: if a class loses accuracy on original images, the range is wrong."
)
AXES = {
    "rotate": "degrees, in both directions",
    "shear": "degrees, in both directions",
    "warp": "shift of control points, as a share of the side",
    "crop": "removed share of the side",
    "color": "share of the value range, up or down",
    "scale": "zoom factor − 1, in or out",
    "shift": "share of the side",
}


def label_safety_sections(safety: LabelSafety) -> list[f.Section]:
    """Return the report sections with the warnings and the accuracy curves."""
    split = "validation" if safety.split == "val" else safety.split
    lead = (
        "The network was evaluated on "
        f"{count_text(safety.images, 'image')} of the {split} split, "
        "one transform at a time. Listed are accuracy losses that are significant over "
        f"all classes and transforms (level {percent(ALPHA, 0)}) and above "
        f"{percent(MIN_LOSS, 0)}."
    )
    return [
        f.Section(
            "Do labels survive the transforms?",
            (*label_safety_summary(safety), f.Prose(READING)),
            lead=lead,
        ),
        f.Section(
            "Accuracy by transform amount",
            tuple(_curves(safety)),
            lead=f"All classes, and the {WORST_SHOWN} with the largest loss at the end "
            "of the range. Bands: 95 % intervals (Wilson).",
        ),
    ]


def label_safety_summary(safety: LabelSafety) -> list[f.Block]:
    """Return warnings, a table of unsafe classes, and a table of accuracies."""
    blocks: list[f.Block] = [f.Prose(_all_safe(safety), "good")]
    if safety.unsafe:
        changes = dict.fromkeys(label.transform.name for label in safety.unsafe)
        blocks = [_warning(safety, name) for name in changes]
        blocks.append(_unsafe_table(safety))
    if (mistaken := mistaken_table(safety)).rows:
        blocks.append(mistaken)
    return [*blocks, range_end_table(safety)]


def _warning(safety: LabelSafety, name: str) -> f.Prose:
    """Return a warning: number of unsafe classes, and the largest drop in accuracy."""
    unsafe_here = [d for d in safety.unsafe if d.transform.name == name]
    worst = unsafe_here[0]
    classes = "class loses" if len(unsafe_here) == 1 else "classes lose"
    text = (
        f"{_title(worst.transform)}: {len(unsafe_here)} of {len(safety.labels)} "
        f"{classes} accuracy, most '{worst.label}', from {percent(worst.before, 0)} to "
        f"{percent(worst.after, 0)}."
    )
    mistaken = [d for d in unsafe_here if d.mistaken]
    if mistaken:
        pairs = ", ".join(f"'{d.label}' for '{d.predicted}'" for d in mistaken)
        text += f" Mistaken for one other class: {pairs}."
    return f.Prose(text, "warning")


def _title(transform: SingleTransform) -> str:
    words = TRANSFORM_NAMES[transform.name].capitalize()
    return words if transform.name.startswith("flip") else f"{words} {transform.range}"


def _unsafe_table(safety: LabelSafety) -> f.Table:
    """Return a table of unsafe classes, the largest drop in accuracy first."""
    rows = tuple(
        (
            _title(d.transform),
            d.label,
            d.before,
            d.after,
            f"{100 * d.interval[0]:.0f}–{100 * d.interval[1]:.0f} %",
            d.count,
            d.predicted,
            d.predicted_share,
        )
        for d in safety.unsafe[:ROWS_SHOWN]
    )
    more = len(safety.unsafe) - len(rows)
    note = f"{more} more with a smaller loss." if more else ""
    hint = "accuracy on transformed images"
    columns = (
        f.Column("Transform"),
        f.Column("Class"),
        f.Column("Original", "ratio", hint="accuracy on original images"),
        f.Column("Transformed", "ratio", hint=hint),
        f.Column("95 % interval", rank=1),
        f.Column("Images", "integer", rank=2),
        f.Column("Predicted as"),
        f.Column("Of new errors", "ratio"),
    )
    title = "Classes that lose accuracy"
    return f.Table(columns=columns, rows=rows, title=title, note=note)


def mistaken_table(safety: LabelSafety) -> f.Table:
    """Return a table of classes mistaken for another class, by transform amount."""
    rows: list[tuple[f.Cell, ...]] = []
    for name, curve in safety.curves.items():
        for k in _classes(curve[0]):
            for point in curve[1:]:
                if mistaken := point.mistaken_for(k):
                    other, share = mistaken
                    labels = safety.labels[k], safety.labels[other]
                    amount = point.transform.range
                    within = point.transform.amount <= safety.ends[name]
                    row = (TRANSFORM_NAMES[name], amount, *labels, share)
                    rows.append((*row, "yes" if within else ""))
                    break
    columns = (
        f.Column("Transform"),
        f.Column("Amount"),
        f.Column("Class"),
        f.Column("Predicted as"),
        f.Column("Share", "ratio", hint="of the images of the class"),
        f.Column("In range", hint="amount within the chosen range"),
    )
    note = "Images of the other classes get this prediction at most a quarter as often."
    title = "Classes mistaken for one other class, also beyond the range"
    return f.Table(columns=columns, rows=tuple(rows), title=title, note=note)


def unsafe_label_dict(label: UnsafeLabel) -> dict[str, object]:
    """Return an unsafe class as a JSON-serializable dict."""
    fields = asdict(label)
    transform = fields.pop("transform")
    names = {"transform": transform["name"], "amount": transform["amount"]}
    return {**names, **fields, "mistaken": label.mistaken}


def _all_safe(safety: LabelSafety) -> str:
    """Return a sentence on the smallest drop in accuracy that could be detected."""
    first = next(iter(safety.curves.values()))[0]
    tests = len(safety.curves) * len(_classes(first))
    # The rarest outcome, every changed prediction a loss, has probability 2^-losses.
    least = math.ceil(math.log2(tests / ALPHA))
    return (
        "No class loses accuracy significantly at the end of any range. A loss of "
        f"fewer than {count_text(least, 'image')} of a class could not be detected."
    )


def range_end_table(safety: LabelSafety) -> f.Table:
    """Return a table of the accuracy at the maximum of each transform range."""
    rows: list[tuple[f.Cell, ...]] = []
    for name, curve in safety.curves.items():
        before, after = curve[0], _end(safety, name)
        worst = _by_loss(before, after)[0]
        count = int(after.counts[worst].sum())
        row = (TRANSFORM_NAMES[name], after.transform.range)
        accuracies = (before.accuracy, after.accuracy)
        recalls = (float(x.correct[worst]) / count for x in (before, after))
        rows.append((*row, *accuracies, safety.labels[worst], *recalls))
    columns = (
        f.Column("Transform"),
        f.Column("End of range", key="amount"),
        f.Column("Original", "ratio", key="accuracy_original"),
        f.Column("Transformed", "ratio", key="accuracy_transformed"),
        f.Column("Worst class"),
        f.Column("Its original", "ratio", key="worst_original", rank=1),
        f.Column("Its transformed", "ratio", key="worst_transformed"),
    )
    title = "Accuracy at the end of each range"
    return f.Table(columns=columns, rows=tuple(rows), title=title)


def _end(safety: LabelSafety, name: str) -> TransformedAccuracy:
    """Return the accuracy of a transform at the maximum of its requested range."""
    amount = safety.ends[name]
    return next(p for p in safety.curves[name] if p.transform.amount == amount)


def _by_loss(before: TransformedAccuracy, after: TransformedAccuracy) -> list[int]:
    """Return class indices sorted by their drop in accuracy, the largest drop first."""
    loss = (before.correct - after.correct) / np.maximum(before.counts.sum(1), 1)
    return sorted(_classes(before), key=lambda k: -loss[k])


def _classes(measured: TransformedAccuracy) -> list[int]:
    return [k for k, count in enumerate(measured.counts.sum(1)) if count]


def _curves(safety: LabelSafety) -> Iterator[f.Curve]:
    for name, curve in safety.curves.items():
        if len(curve) < 3:
            continue  # a flip has no amounts between
        worst = _by_loss(curve[0], _end(safety, name))[:WORST_SHOWN]
        yield f.Curve(
            TRANSFORM_NAMES[name].capitalize(),
            x_label=AXES[name],
            y_label="accuracy",
            percent_y=True,
            mark=(safety.ends[name], "range"),
            series=(
                _accuracy_series("all", curve, None),
                *(_accuracy_series(f"'{safety.labels[k]}'", curve, k) for k in worst),
            ),
        )


def _accuracy_series(
    name: str, curve: tuple[TransformedAccuracy, ...], k: int | None
) -> f.Series:
    classes = slice(None) if k is None else k
    pairs = [
        (int(point.correct[classes].sum()), int(point.counts[classes].sum()))
        for point in curve
    ]
    bands = [wilson_interval(correct, count) for correct, count in pairs]
    return f.Series(
        name,
        tuple(point.transform.amount for point in curve),
        tuple(correct / count for correct, count in pairs),
        low=tuple(low for low, _ in bands),
        high=tuple(high for _, high in bands),
    )


def amount_rows(safety: LabelSafety) -> Iterator[tuple[object, ...]]:
    """Yield the rows of `amounts.csv`, one row per transform, amount and class."""
    for name, curve in safety.curves.items():
        for point in curve:
            for k in _classes(point):
                count, correct = int(point.counts[k].sum()), int(point.correct[k])
                wrong = point.counts[k].copy()
                wrong[k] = 0
                predicted = safety.labels[int(wrong.argmax())] if wrong.any() else ""
                interval = (f"{end:.4f}" for end in wilson_interval(correct, count))
                case = (name, point.transform.amount, safety.labels[k])
                yield (*case, count, correct, *interval, predicted)
