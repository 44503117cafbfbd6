"""Findings about exact duplicates, near-duplicates, and conflicting labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from striate.core.format import count_text
from striate.data.check.duplicates import Duplicates, NearPair
from striate.data.check.finding import Finding, ImageGroup
from striate.data.sources.source import Record

KEEP_TOGETHER = "Splits made by striate keep all duplicates in one split."
TABLE_FIX = "train on a table that keeps each group in one split: --csv FILE"


def duplicate_findings(
    duplicates: Duplicates, records: Sequence[Record], splits: Sequence[str]
) -> list[Finding]:
    """Return findings about duplicates within a split and conflicting labels."""
    labels = [record.label for record in records]
    findings = [
        _conflicting_labels(duplicates.equal, labels, exact=True),
        _conflicting_labels(duplicates.near_groups, labels, exact=False),
        _exact(duplicates.equal, labels, splits),
        _near(duplicates, labels, splits),
    ]
    return [finding for finding in findings if finding]


def _conflicting_labels(
    groups: Sequence[Sequence[int]], labels: Sequence[str], *, exact: bool
) -> Finding | None:
    conflicts = [g for g in groups if len({labels[i] for i in g}) > 1]
    if not conflicts:
        return None
    images = sum(map(len, conflicts))
    similarity = "the same pixels" if exact else "nearly the same content"
    return Finding(
        kind="two-labels" if exact else "near-two-labels",
        tone="bad" if exact else "warning",
        what=f"{images:,} images have {similarity} but different labels",
        why="At most one label is correct. Training leaves all of these images out."
        if exact
        else "A label may be wrong, or the classes differ only in fine detail.",
        fix="correct the labels, or remove the images",
        groups=tuple(ImageGroup(members=tuple(group)) for group in conflicts),
    )


def _exact(
    groups: Sequence[Sequence[int]], labels: Sequence[str], splits: Sequence[str]
) -> Finding | None:
    """Return a finding about exact duplicates with the same label and split."""
    selected = _within(groups, labels, splits)
    if not selected:
        return None
    extra = sum(len(group) - 1 for group in selected)
    verb = "is an exact duplicate" if extra == 1 else "are exact duplicates"
    return Finding(
        kind="exact-duplicates",
        tone="warning",
        what=f"{count_text(extra, 'image')} {verb} of other images of the same class",
        why=f"Each image counts several times in training. {KEEP_TOGETHER}",
        fix="remove the duplicates, unless these images should have more weight",
        groups=tuple(ImageGroup(members=tuple(group)) for group in selected),
    )


def _near(
    duplicates: Duplicates, labels: Sequence[str], splits: Sequence[str]
) -> Finding | None:
    selected = _within(duplicates.near_groups, labels, splits)
    if not selected:
        return None
    images = sum(map(len, selected))
    notes = _flips_by_position(duplicates.near)
    return Finding(
        kind="near-duplicates",
        tone="warning",
        what=f"{count_text(images, 'image')} are near-duplicates, in "
        f"{count_text(len(selected), 'group')}",
        why="Near-duplicates are edited copies of one image, or several photos of one "
        "object. In different splits, near-duplicates make test results too good.",
        fix=TABLE_FIX,
        groups=tuple(
            ImageGroup(members=tuple(group), note=_note(group, notes))
            for group in selected
        ),
    )


def _within(
    groups: Sequence[Sequence[int]], labels: Sequence[str], splits: Sequence[str]
) -> list[Sequence[int]]:
    """Return the groups in which all images have the same label and the same split."""
    return [g for g in groups if len({(labels[i], splits[i]) for i in g}) == 1]


def _flips_by_position(near: Sequence[NearPair]) -> dict[int, set[str]]:
    flips: dict[int, set[str]] = defaultdict(set)
    for pair in near:
        if pair.flip:
            flips[pair.first].add(pair.flip)
            flips[pair.second].add(pair.flip)
    return flips


def _note(group: Sequence[int], flips: dict[int, set[str]]) -> str:
    names = sorted(set().union(*(flips.get(i, set()) for i in group)))
    return f"flipped {' and '.join(names)}" if names else ""
