"""What `safety` measured, in findings: what to be warned of, curves, tables."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict

import numpy as np

from striate.core.findings import (
    Block,
    Cell,
    Column,
    Curve,
    Prose,
    Section,
    Series,
    Table,
)
from striate.data.augment.single_transform import TRANSFORM_NAMES, SingleTransform
from striate.metrics.classification import wilson
from striate.report.format import percent
from striate.workflows.data_augment.label_safety import (
    MIN_LOSS,
    ALPHA,
    UnsafeLabel,
    TransformedAccuracy,
    LabelSafety,
)

WORST_SHOWN = 3  # classes drawn beside the mean
ROWS_SHOWN = 12  # classes that suffer in the table; the CSV has all
READING = (
    "Taken for one other class: if you would say so too, the label does not survive, "
    "and a smaller range is right. If you would not, or where they are taken for many, "
    "the network has not met such images, and training with the change may teach it. "
    "A run that was trained with it decides: where a class loses on unchanged "
    "images, the change was wrong."
)
AXES = {
    "rotate": "degrees, either way",
    "shear": "degrees, either way",
    "warp": "share of the side that control points move",
    "crop": "share of the side cut away",
    "color": "share of the range, up or down",
    "scale": "zoom in or out, factor − 1",
    "shift": "share of the side",
}


def label_safety_sections(safety: LabelSafety) -> list[Section]:
    """Return the warnings, and accuracy against amount."""
    part = "validation" if safety.part == "val" else safety.part
    lead = (
        f"The network judged {safety.images:,} images of the {part} part, "
        "each change alone. A loss is named if it is beyond chance among all classes "
        f"and changes ({percent(LEVEL, 0)}) and above {percent(LEAST_LOSS, 0)}."
    )
    return [
        Section(
            title="Does the label hold?",
            lead=lead,
            blocks=(*label_safety_summary(safety), Prose(text=READING)),
        ),
        Section(
            title="Accuracy against amount",
            lead=f"All classes, and the {WORST} that lose most at the end of the "
            "range; bands are 95 % intervals (Wilson).",
            blocks=tuple(_curves(safety)),
        ),
    ]


def label_safety_summary(safety: LabelSafety) -> list[Block]:
    """Return what suffers, what is taken for what, and the ends of the ranges."""
    blocks: list[Block] = [Prose(text=_all_safe(safety), tone="good")]
    if safety.unsafe:
        changes = dict.fromkeys(label.transform.name for label in safety.unsafe)
        blocks = [_warning(safety, name) for name in changes]
        blocks.append(_unsafe_table(safety))
    mistaken = mistaken_table(safety)
    return [*blocks, *([mistaken] if mistaken.rows else []), range_end_table(safety)]


def _warning(safety: LabelSafety, name: str) -> Prose:
    """Say in a sentence how many classes suffer from a change, and which most."""
    unsafe_here = [d for d in safety.unsafe if d.transform.name == name]
    worst = unsafe_here[0]
    classes = "class suffers" if len(unsafe_here) == 1 else "classes suffer"
    text = (
        f"{_named(worst.trial)}: {len(found)} of {len(safety.labels)} {classes}, most "
        f"'{worst.label}', from {percent(worst.before, 0)} to "
        f"{percent(worst.after, 0)}."
    )
    mistaken = [d for d in unsafe_here if d.mistaken]
    if mistaken:
        pairs = ", ".join(f"'{d.label}' for '{d.taken_for}'" for d in mistaken)
        text += f" Taken for one other class: {pairs}."
    return Prose(text=text, tone="warning")


def _title(transform: SingleTransform) -> str:
    words = TRANSFORM_NAMES[transform.name].capitalize()
    return words if transform.name.startswith("flip") else f"{words} {trial.range}"


def _unsafe_table(safety: LabelSafety) -> Table:
    """Return one row a class that suffers, the worst first."""
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
    note = f"And {more} that lose less." if more else ""
    columns = (
        Column(title="Change"),
        Column(title="Class"),
        Column(title="Unchanged", kind="ratio"),
        Column(title="Changed", kind="ratio"),
        Column(title="95 % interval", rank=1),
        Column(title="Images", kind="integer", rank=2),
        Column(title="Taken for"),
        Column(title="Of the lost", kind="ratio"),
    )
    return Table(columns=columns, rows=rows, title="Classes that suffer", note=note)


def mistaken_table(safety: LabelSafety) -> Table:
    """Return at which amount most of a class first looks like one other class."""
    rows: list[tuple[Cell, ...]] = []
    for name, curve in safety.curves.items():
        for k in _classes(curve[0]):
            for point in curve[1:]:
                mistaken = point.mistaken_for(k)
                if mistaken is not None:
                    within = (
                        "yes"
                        if point.transform.amount <= safety.range_end_table[name]
                        else ""
                    )
                    fields_ = (
                        safety.labels[k],
                        safety.labels[mistaken[0]],
                        mistaken[1],
                    )
                    rows.append(
                        (TRANSFORM_NAMES[name], point.transform.range, *fields_, within)
                    )
                    break
    columns = (
        Column(title="Change"),
        Column(title="Amount"),
        Column(title="Class"),
        Column(title="Taken for"),
        Column(title="Of its images", kind="ratio"),
        Column(title="In the range"),
    )
    note = "Images of the other classes get that name at most a quarter as often."
    title = "What most of a class looks like, further out too"
    return Table(columns=columns, rows=tuple(rows), title=title, note=note)


def unsafe_label_dict(label: UnsafeLabel) -> dict[str, object]:
    """Return a danger as JSON values."""
    fields = asdict(label)
    transform = fields.pop("trial")
    return {**transform, **fields, "mistaken": label.mistaken}


def _all_safe(safety: LabelSafety) -> str:
    """Say that nothing was found, and what could not have been."""
    first = next(iter(safety.curves.values()))[0]
    tests = len(safety.curves) * len(_classes(first))
    # The rarest outcome, every changed answer a loss, has a chance of 1 in 2^losses.
    least = math.ceil(math.log2(tests / ALPHA))
    return (
        "No class loses beyond chance at the end of any range. A class that loses "
        f"fewer than {least} of its images could not have been told from chance."
    )


def range_end_table(safety: LabelSafety) -> Table:
    """Return one row a change: the mean and the worst class at the end of its range."""
    rows = []
    for name, curve in safety.curves.items():
        unsafe_here = _end(safety, name)
        before = curve[0]
        worst = _by_loss(curve[0], unsafe_here)[0]
        count = int(unsafe_here.counts[worst].sum())
        rows.append(
            (
                TRANSFORM_NAMES[name],
                unsafe_here.transform.range,
                before.accuracy,
                unsafe_here.accuracy,
                safety.labels[worst],
                float(before.correct[worst]) / count,
                float(unsafe_here.correct[worst]) / count,
            )
        )
    columns = (
        Column(title="Change"),
        Column(title="End of range", key="amount"),
        Column(title="Unchanged", kind="ratio", key="accuracy_unchanged"),
        Column(title="Changed", kind="ratio", key="accuracy_changed"),
        Column(title="Worst class", key="worst_class"),
        Column(title="Its unchanged", kind="ratio", key="worst_unchanged", rank=1),
        Column(title="Its changed", kind="ratio", key="worst_changed"),
    )
    return Table(columns=columns, rows=tuple(rows), title="At the end of each range")


def _end(safety: LabelSafety, name: str) -> TransformedAccuracy:
    """Return the measurement at the end of the range, which need not be the last."""
    amount = safety.range_end_table[name]
    (unsafe_here,) = [
        point for point in safety.curves[name] if point.transform.amount == amount
    ]
    return unsafe_here


def _by_loss(before: TransformedAccuracy, after: TransformedAccuracy) -> list[int]:
    """Return classes that occur, those that lose most first."""
    loss = (before.correct - after.correct) / np.maximum(before.counts.sum(1), 1)
    return sorted(_classes(before), key=lambda k: -loss[k])


def _classes(measured: TransformedAccuracy) -> list[int]:
    return [k for k, count in enumerate(measured.counts.sum(1)) if count]


def _curves(safety: LabelSafety) -> Iterator[Curve]:
    for name, curve in safety.curves.items():
        if len(curve) < 3:
            continue  # a mirror has no amounts between
        worst = _by_loss(curve[0], _end(safety, name))[:WORST_SHOWN]
        yield Curve(
            title=TRANSFORM_NAMES[name].capitalize(),
            x_label=AXES[name],
            y_label="accuracy",
            percent_y=True,
            mark=(safety.range_end_table[name], "range"),
            series=(
                _accuracy_series("all", curve, None),
                *(_accuracy_series(f"'{safety.labels[k]}'", curve, k) for k in worst),
            ),
        )


def _accuracy_series(
    name: str, curve: tuple[TransformedAccuracy, ...], k: int | None
) -> Series:
    pairs = [
        (int(point.correct.sum()), int(point.counts.sum()))
        if k is None
        else (int(point.correct[k]), int(point.counts[k].sum()))
        for point in curve
    ]
    bands = [wilson(*pair) for pair in pairs]
    return Series(
        name=name,
        x=tuple(point.transform.amount for point in curve),
        y=tuple(correct / count for correct, count in pairs),
        low=tuple(low for low, _ in bands),
        high=tuple(high for _, high in bands),
    )


def rows(safety: LabelSafety) -> Iterator[tuple[object, ...]]:
    """Yield change, amount, class, images, right, low, high, most frequent error."""
    for name, curve in safety.curves.items():
        for point in curve:
            for k in _classes(point):
                count, correct = int(point.counts[k].sum()), int(point.correct[k])
                wrong = point.counts[k].copy()
                wrong[k] = 0
                predicted = safety.labels[int(wrong.argmax())] if wrong.any() else ""
                low, high = wilson(correct, count)
                fields_ = (f"{low:.4f}", f"{high:.4f}")
                yield (
                    name,
                    point.transform.amount,
                    safety.labels[k],
                    count,
                    correct,
                    *fields_,
                    predicted,
                )
