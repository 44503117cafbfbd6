"""Findings about classes: empty, tiny, missing from a part, out of balance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from striate.data.check.finding import Finding, Group
from striate.data.sources.source import SPLITS, Skipped
from striate.data.split.coverage import FEW

IMBALANCE = 10.0  # largest class over smallest, above which accuracy alone misleads
NAMED = 5


def class_counts(
    labels: Sequence[str], splits: Sequence[str], names: Sequence[str]
) -> list[tuple[str, dict[str, int]]]:
    """Return each class with its images by part.

    Example:
        >>> class_counts(["a", "a"], ["train", "test"], ["a", "b"])
        [('a', {'train': 1, 'test': 1}), ('b', {})]
    """
    counts: dict[str, Counter[str]] = {name: Counter() for name in names}
    for label, split in zip(labels, splits, strict=True):
        counts[label][split] += 1
    return [(name, dict(counts[name])) for name in names]


def class_findings(
    counts: Sequence[tuple[str, dict[str, int]]],
    places: dict[str, list[int]],
    ignored: Sequence[Skipped],
) -> list[Finding]:
    """Return what is wrong or odd about the classes.

    Args:
        counts: Each class with its images by part.
        places: Positions of each class's images.
        ignored: Files and folders passed over, among them empty class folders.
    """
    found = [
        _one_class(counts),
        _empty(counts, ignored),
        _tiny(counts, places),
        _imbalance(counts),
        *(_unseen(counts, split) for split in SPLITS[1:]),
    ]
    return [finding for finding in found if finding]


def _one_class(counts: Sequence[tuple[str, dict[str, int]]]) -> Finding | None:
    held = [name for name, by_split in counts if by_split]
    if len(held) > 1:
        return None
    what = "there are no usable images" if not held else f"one class only: {held[0]}"
    fix = "add images of at least a second class"
    why = "There is nothing to tell apart."
    return Finding(kind="one-class", tone="bad", what=what, why=why, fix=fix)


def _empty(
    counts: Sequence[tuple[str, dict[str, int]]], ignored: Sequence[Skipped]
) -> Finding | None:
    lost = [Skipped(path=n, reason="no-usable-image") for n, c in counts if not c]
    files = [s for s in ignored if s.reason == "empty-class-folder"] + lost
    if not files:
        return None
    names = _named([skip.path for skip in files])
    return Finding(
        kind="empty-class",
        tone="bad",
        what=f"{_classes(len(files))} without a usable image: {names}",
        why="A network trained on this does not know the class.",
        fix="add images, or remove the folder",
        files=tuple(files),
    )


def _tiny(
    counts: Sequence[tuple[str, dict[str, int]]], places: dict[str, list[int]]
) -> Finding | None:
    is_split = any(name for _, by_split in counts for name in by_split)
    sizes = {
        name: by_split.get("train", 0) if is_split else sum(by_split.values())
        for name, by_split in counts
        if by_split
    }
    tiny = sorted((n, name) for name, n in sizes.items() if n < FEW)
    if not tiny:
        return None
    names = _named([f"{name} ({n})" for n, name in tiny])
    refusal = _refusal(counts)
    return Finding(
        kind="tiny-class",
        tone="bad" if refusal else "warning",
        what=f"{_classes(len(tiny))} with under {FEW} training images: {names}",
        why=refusal or "Their recall will be a matter of single images.",
        fix="add images, or join or remove the classes",
        groups=tuple(
            Group(members=tuple(places[name]), note=name) for _, name in tiny[:20]
        ),
    )


def _refusal(counts: Sequence[tuple[str, dict[str, int]]]) -> str:
    """Say why training refuses a class for its size, or may; empty where it does not.

    One training image is enough where validation has images of its own.
    """
    held = [by_split for _, by_split in counts if by_split]
    given = {split for by_split in held for split in by_split if split}
    if any(sum(by_split.values()) == 1 for by_split in held):
        alone = "One image cannot both train and validate: training refuses it."
        return "Training refuses a class of one image." if given else alone
    if given and any("train" not in by_split for by_split in held):
        return "Training refuses a class without a training image."
    if given and "val" not in given and any(p["train"] == 1 for p in held):
        return (
            "Validation is dealt from the training images: if a class's only one "
            "falls to it, training refuses the class."
        )
    return ""


def _imbalance(counts: Sequence[tuple[str, dict[str, int]]]) -> Finding | None:
    sizes = sorted(
        (sum(by_split.values()), name) for name, by_split in counts if by_split
    )
    if len(sizes) < 2 or sizes[-1][0] < IMBALANCE * sizes[0][0]:
        return None
    (least, small), (most, large) = sizes[0], sizes[-1]
    share = most / sum(n for n, _ in sizes)
    return Finding(
        kind="imbalance",
        tone="warning",
        what=f"classes out of balance, {most / least:,.0f}:1: {large} has {most:,} "
        f"images, {small} {least:,}",
        why=f"Who always answers '{large}' is right {share:.1%} of the time; look at "
        "balanced accuracy and recall by class.".replace("%", "\u00a0%"),
        fix="add images of the small classes, or weigh the classes when training",
    )


def _unseen(counts: Sequence[tuple[str, dict[str, int]]], split: str) -> Finding | None:
    strange = [
        n for n, by_split in counts if split in by_split and "train" not in by_split
    ]
    if not strange:
        return None
    return Finding(
        kind="unseen-class",
        tone="bad",
        what=f"{split} has {_classes(len(strange))} that training has not: "
        f"{_named(strange)}",
        why="No network can answer what it never saw.",
        fix="add training images of them, rename them, or remove them",
    )


def _classes(count: int) -> str:
    return f"{count:,} class{'' if count == 1 else 'es'}"


def _named(names: Sequence[str]) -> str:
    rest = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {rest:,} more" if rest > 0 else "")
