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
from striate.data.augment.single_transform import WORDS, Trial
from striate.metrics.classification import wilson
from striate.report.format import percent
from striate.workflows.data_augment.label_safety import (
    LEAST_LOSS,
    LEVEL,
    Danger,
    Measured,
    Safety,
)

WORST = 3  # classes drawn beside the mean
LISTED = 12  # classes that suffer in the table; the CSV has all
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


def sections(safety: Safety) -> list[Section]:
    """Return the warnings, and accuracy against amount."""
    split = "validation" if safety.split == "val" else safety.split
    lead = (
        f"The network judged {safety.images:,} images of the {split} split, "
        "each change alone. A loss is named if it is beyond chance among all classes "
        f"and changes ({percent(LEVEL, 0)}) and above {percent(LEAST_LOSS, 0)}."
    )
    return [
        Section(
            title="Does the label hold?",
            lead=lead,
            blocks=(*summary(safety), Prose(text=READING)),
        ),
        Section(
            title="Accuracy against amount",
            lead=f"All classes, and the {WORST} that lose most at the end of the "
            "range; bands are 95 % intervals (Wilson).",
            blocks=tuple(_curves(safety)),
        ),
    ]


def summary(safety: Safety) -> list[Block]:
    """Return what suffers, what is taken for what, and the ends of the ranges."""
    said: list[Block] = [Prose(text=_nothing(safety), tone="good")]
    if safety.dangers:
        changes = dict.fromkeys(danger.trial.change for danger in safety.dangers)
        said = [_warning(safety, change) for change in changes]
        said.append(_suffering(safety))
    alike = turned_into(safety)
    return [*said, *([alike] if alike.rows else []), ends(safety)]


def _warning(safety: Safety, change: str) -> Prose:
    """Say in a sentence how many classes suffer from a change, and which most."""
    found = [d for d in safety.dangers if d.trial.change == change]
    worst = found[0]
    classes = "class suffers" if len(found) == 1 else "classes suffer"
    text = (
        f"{_named(worst.trial)}: {len(found)} of {len(safety.labels)} {classes}, most "
        f"'{worst.label}', from {percent(worst.before, 0)} to "
        f"{percent(worst.after, 0)}."
    )
    alike = [d for d in found if d.mistaken]
    if alike:
        pairs = ", ".join(f"'{d.label}' for '{d.taken_for}'" for d in alike)
        text += f" Taken for one other class: {pairs}."
    return Prose(text=text, tone="warning")


def _named(trial: Trial) -> str:
    words = WORDS[trial.change].capitalize()
    return words if trial.change.startswith("flip") else f"{words} {trial.range}"


def _suffering(safety: Safety) -> Table:
    """Return one row a class that suffers, the worst first."""
    rows = tuple(
        (
            _named(d.trial),
            d.label,
            d.before,
            d.after,
            f"{100 * d.interval[0]:.0f}–{100 * d.interval[1]:.0f} %",
            d.count,
            d.taken_for,
            d.share,
        )
        for d in safety.dangers[:LISTED]
    )
    more = len(safety.dangers) - len(rows)
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


def turned_into(safety: Safety) -> Table:
    """Return at which amount most of a class first looks like one other class."""
    rows: list[tuple[Cell, ...]] = []
    for change, curve in safety.curves.items():
        for k in _classes(curve[0]):
            for m in curve[1:]:
                alike = m.lookalike(k)
                if alike is not None:
                    within = "yes" if m.trial.amount <= safety.ends[change] else ""
                    shown = (safety.labels[k], safety.labels[alike[0]], alike[1])
                    rows.append((WORDS[change], m.trial.range, *shown, within))
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


def danger_dict(danger: Danger) -> dict[str, object]:
    """Return a danger as JSON values."""
    fields = asdict(danger)
    trial = fields.pop("trial")
    return {**trial, **fields, "mistaken": danger.mistaken}


def _nothing(safety: Safety) -> str:
    """Say that nothing was found, and what could not have been."""
    first = next(iter(safety.curves.values()))[0]
    tests = len(safety.curves) * len(_classes(first))
    # The rarest outcome, every changed answer a loss, has a chance of 1 in 2^losses.
    least = math.ceil(math.log2(tests / LEVEL))
    return (
        "No class loses beyond chance at the end of any range. A class that loses "
        f"fewer than {least} of its images could not have been told from chance."
    )


def ends(safety: Safety) -> Table:
    """Return one row a change: the mean and the worst class at the end of its range."""
    rows = []
    for change, curve in safety.curves.items():
        found = _end(safety, change)
        before = curve[0]
        worst = _falling(curve[0], found)[0]
        count = int(found.counts[worst].sum())
        rows.append(
            (
                WORDS[change],
                found.trial.range,
                before.accuracy,
                found.accuracy,
                safety.labels[worst],
                float(before.right[worst]) / count,
                float(found.right[worst]) / count,
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


def _end(safety: Safety, change: str) -> Measured:
    """Return the measurement at the end of the range, which need not be the last."""
    wanted = safety.ends[change]
    (found,) = [m for m in safety.curves[change] if m.trial.amount == wanted]
    return found


def _falling(before: Measured, after: Measured) -> list[int]:
    """Return classes that occur, those that lose most first."""
    loss = (before.right - after.right) / np.maximum(before.counts.sum(1), 1)
    return sorted(_classes(before), key=lambda k: -loss[k])


def _classes(measured: Measured) -> list[int]:
    return [k for k, count in enumerate(measured.counts.sum(1)) if count]


def _curves(safety: Safety) -> Iterator[Curve]:
    for change, curve in safety.curves.items():
        if len(curve) < 3:
            continue  # a mirror has no amounts between
        worst = _falling(curve[0], _end(safety, change))[:WORST]
        yield Curve(
            title=WORDS[change].capitalize(),
            x_label=AXES[change],
            y_label="accuracy",
            percent_y=True,
            mark=(safety.ends[change], "range"),
            series=(
                _series("all", curve, None),
                *(_series(f"'{safety.labels[k]}'", curve, k) for k in worst),
            ),
        )


def _series(name: str, curve: tuple[Measured, ...], k: int | None) -> Series:
    pairs = [
        (int(m.right.sum()), int(m.counts.sum()))
        if k is None
        else (int(m.right[k]), int(m.counts[k].sum()))
        for m in curve
    ]
    bands = [wilson(*pair) for pair in pairs]
    return Series(
        name=name,
        x=tuple(m.trial.amount for m in curve),
        y=tuple(right / count for right, count in pairs),
        low=tuple(low for low, _ in bands),
        high=tuple(high for _, high in bands),
    )


def rows(safety: Safety) -> Iterator[tuple[object, ...]]:
    """Yield change, amount, class, images, right, low, high, most frequent error."""
    for change, curve in safety.curves.items():
        for m in curve:
            for k in _classes(m):
                count, right = int(m.counts[k].sum()), int(m.right[k])
                wrong = m.counts[k].copy()
                wrong[k] = 0
                named = safety.labels[int(wrong.argmax())] if wrong.any() else ""
                low, high = wilson(right, count)
                shown = (f"{low:.4f}", f"{high:.4f}")
                yield (
                    change,
                    m.trial.amount,
                    safety.labels[k],
                    count,
                    right,
                    *shown,
                    named,
                )
