"""Findings about classes: empty, small, missing in training, imbalanced."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from striate.core.class_names import ClassNames
from striate.core.format import count_text
from striate.data.check.finding import Finding, ImageGroup
from striate.data.sources.source import SPLITS, Skipped
from striate.data.split.split_checks import FEW

IMBALANCE = 10.0  # ratio of the largest to the smallest class that gives a warning
NAMES_SHOWN = 5


def class_counts(
    labels: Sequence[str], splits: Sequence[str], classes: ClassNames
) -> list[tuple[str, dict[str, int]]]:
    """Return the number of images per split, for each class.

    Example:
        >>> class_counts(["a", "a"], ["train", "test"], ClassNames(("a", "b")))
        [('a', {'train': 1, 'test': 1}), ('b', {})]
    """
    counts: dict[str, Counter[str]] = {name: Counter() for name in classes.names}
    for label, split in zip(labels, splits, strict=True):
        for name in classes.classes_of(label):
            counts[name][split] += 1
    return [(name, dict(counts[name])) for name in classes.names]


Counts = Sequence[tuple[str, dict[str, int]]]  # class, and images per split


def class_findings(
    counts: Counts, positions: dict[str, list[int]], ignored: Sequence[Skipped]
) -> list[Finding]:
    """Return findings about empty, small, imbalanced and missing classes."""
    findings = [
        _one_class(counts),
        _empty(counts, ignored),
        _tiny(counts, positions),
        _imbalance(counts),
        *(_missing_in_training(counts, split) for split in SPLITS[1:]),
    ]
    return [finding for finding in findings if finding]


def _one_class(counts: Counts) -> Finding | None:
    used = [name for name, by_split in counts if by_split]
    if len(used) > 1:
        return None
    what, fix = "there are no usable images", "see the other findings for the reasons"
    why = "A classifier learns from images."
    if used:
        what, fix = f"only one class: {used[0]}", "add images of a second class"
        why = "A classifier needs at least two classes."
    return Finding(kind="one-class", tone="bad", what=what, why=why, fix=fix)


def _empty(counts: Counts, ignored: Sequence[Skipped]) -> Finding | None:
    unused = [Skipped(path=n, reason="no-usable-image") for n, c in counts if not c]
    files = [s for s in ignored if s.reason == "empty-class-folder"] + unused
    if not files:
        return None
    names = _joined_names([skip.path for skip in files])
    return Finding(
        kind="empty-class",
        tone="bad",
        what=f"{_classes(len(files))} without a usable image: {names}",
        why="A network cannot learn a class without images.",
        fix="add images, or remove the folder; see also the images that are not used",
        files=tuple(files),
    )


def _tiny(counts: Counts, positions: dict[str, list[int]]) -> Finding | None:
    is_split = any(name for _, by_split in counts for name in by_split)
    sizes = {
        name: by_split.get("train", 0) if is_split else sum(by_split.values())
        for name, by_split in counts
        if by_split
    }
    tiny = sorted((n, name) for name, n in sizes.items() if n < FEW)
    if not tiny:
        return None
    names = _joined_names([f"{name} ({n})" for n, name in tiny])
    error = _training_error(counts)
    shown = [(name, tuple(positions[name])) for _, name in tiny[:20]]
    return Finding(
        kind="tiny-class",
        tone="bad" if error else "warning",
        what=f"{_classes(len(tiny))} with fewer than {FEW} training images: {names}",
        why=error or "The recall of these classes depends on single images.",
        fix="add images, merge the classes, or remove them",
        groups=tuple(ImageGroup(members=images, note=name) for name, images in shown),
    )


def _training_error(counts: Counts) -> str:
    """Return the reason why small classes may stop the training; "" if there is none.

    One training image is enough if the validation split is already defined.
    """
    used = [by_split for _, by_split in counts if by_split]
    splits = {split for by_split in used for split in by_split if split}
    if any(sum(by_split.values()) == 1 for by_split in used):
        if splits:
            return "Training stops with an error if a class has only one image."
        return "A class with one image cannot be in both train and val: training stops."
    if splits and any("train" not in by_split for by_split in used):
        return "Training stops with an error if a class has no training image."
    if splits and "val" not in splits and any(p["train"] == 1 for p in used):
        return (
            "The validation split is taken from the training images. If it gets the "
            "only image of a class, training stops with an error."
        )
    return ""


def _imbalance(counts: Counts) -> Finding | None:
    sizes = sorted((sum(n.values()), name) for name, n in counts if n)
    if len(sizes) < 2 or sizes[-1][0] < IMBALANCE * sizes[0][0]:
        return None
    (least, small), (most, large) = sizes[0], sizes[-1]
    share = most / sum(n for n, _ in sizes)
    return Finding(
        kind="imbalance",
        tone="warning",
        what=f"imbalanced classes ({most / least:,.0f}:1): {large} has "
        f"{count_text(most, 'image')}, {small} {least:,}",
        why=f"Always predicting '{large}' gives {share:.1%} accuracy. Look at balanced "
        "accuracy and at the recall of each class.".replace("%", "\u00a0%"),
        fix="add images of the small classes, or train with --class-weights auto",
    )


def _missing_in_training(counts: Counts, split: str) -> Finding | None:
    missing = [n for n, sizes in counts if split in sizes and "train" not in sizes]
    if not missing:
        return None
    return Finding(
        kind="unseen-class",
        tone="bad",
        what=f"the {split} split has {_classes(len(missing))} without training images: "
        f"{_joined_names(missing)}",
        why="A network cannot predict a class that it has not seen in training.",
        fix="add training images, rename the classes, or remove them",
    )


def _classes(count: int) -> str:
    return count_text(count, "class", "classes")


def _joined_names(names: Sequence[str]) -> str:
    rest = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {rest:,} more" if rest > 0 else "")
