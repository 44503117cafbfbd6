"""Findings about images that are there more than once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from striate.data.check.duplicates import NearPair, equal_groups, linked_groups
from striate.data.check.finding import Finding, Group
from striate.data.sources.source import Record

KEEP = "A split that striate deals keeps them on one side."
TABLE = "write a table that keeps each group on one side: --csv FILE, then train on it"


@dataclass(frozen=True, kw_only=True)
class Copies:
    """Which images are copies of which.

    Args:
        count: Images in all.
        equal: Groups of positions whose pixels are equal.
        near: Pairs that differ as copies do; of equal images only the first stands
            for all.
    """

    count: int
    equal: tuple[tuple[int, ...], ...] = ()
    near: tuple[NearPair, ...] = field(default=(), repr=False)

    @property
    def families(self) -> list[list[int]]:
        """Groups of positions that are equal or near, however many links apart."""
        links = [(group[0], other) for group in self.equal for other in group[1:]]
        links += [(pair.first, pair.second) for pair in self.near]
        return linked_groups(self.count, links)

    @property
    def near_families(self) -> list[list[int]]:
        """Those of them that hold more than one distinct image."""
        distinct = self.stand_in
        return [f for f in self.families if len({distinct[i] for i in f}) > 1]

    @property
    def stand_in(self) -> list[int]:
        """For each position the first one with equal pixels."""
        first = list(range(self.count))
        for group in self.equal:
            for position in group:
                first[position] = group[0]
        return first


def find_equal(contents: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """Return groups of positions with equal content."""
    return tuple(tuple(group) for group in equal_groups(contents))


def copy_findings(
    copies: Copies, records: Sequence[Record], splits: Sequence[str]
) -> list[Finding]:
    """Return what is wrong or odd about copies within a part or between labels.

    Args:
        copies: Which images are copies.
        records: The images' records.
        splits: The part each is in, empty where none is given.
    """
    labels = [record.label for record in records]
    found = [
        _two_labels(copies.equal, labels, exact=True),
        _two_labels(copies.near_families, labels, exact=False),
        _equal(copies.equal, labels, splits),
        _near(copies, labels, splits),
    ]
    return [finding for finding in found if finding]


def _two_labels(
    groups: Sequence[Sequence[int]], labels: Sequence[str], *, exact: bool
) -> Finding | None:
    torn = [g for g in groups if len({labels[i] for i in g}) > 1]
    if not torn:
        return None
    images = sum(map(len, torn))
    how = "the same image" if exact else "nearly the same image"
    return Finding(
        kind="two-labels" if exact else "near-two-labels",
        tone="bad" if exact else "warning",
        what=f"{images:,} images show {how} under different labels",
        why="At most one label is right; training on both teaches a contradiction. "
        "Training leaves all of them out."
        if exact
        else "Either a label is wrong, or the classes differ in what is hardly seen.",
        fix="correct the labels, or remove the images",
        groups=tuple(Group(members=tuple(group)) for group in torn),
    )


def _equal(
    groups: Sequence[Sequence[int]], labels: Sequence[str], splits: Sequence[str]
) -> Finding | None:
    """Equal images of one label; those in two parts are a leak's."""
    held = _within(groups, labels, splits)
    if not held:
        return None
    surplus = sum(len(group) - 1 for group in held)
    s = "is an exact copy" if surplus == 1 else "are exact copies"
    images = "image" if surplus == 1 else "images"
    return Finding(
        kind="equal",
        tone="warning",
        what=f"{surplus:,} {images} {s} of others of the same class",
        why=f"Each counts twice in training. {KEEP}",
        fix="remove the copies, unless you want the weight",
        groups=tuple(Group(members=tuple(group)) for group in held),
    )


def _near(
    copies: Copies, labels: Sequence[str], splits: Sequence[str]
) -> Finding | None:
    held = _within(copies.near_families, labels, splits)
    if not held:
        return None
    images = sum(map(len, held))
    notes = _differences(copies.near)
    return Finding(
        kind="near",
        tone="warning",
        what=f"{images:,} images are near-duplicates, in {len(held):,} groups",
        why="One image cropped, resized, compressed, mirrored or marked, or two "
        "shots of one thing. Dealt to different parts they leak.",
        fix=TABLE,
        groups=tuple(
            Group(members=tuple(group), note=_note(group, notes)) for group in held
        ),
    )


def _within(
    groups: Sequence[Sequence[int]], labels: Sequence[str], splits: Sequence[str]
) -> list[Sequence[int]]:
    """Return groups of one label and one part."""
    return [
        group
        for group in groups
        if len({labels[i] for i in group}) == 1 and len({splits[i] for i in group}) == 1
    ]


def _differences(near: Sequence[NearPair]) -> dict[int, set[str]]:
    mirrors: dict[int, set[str]] = defaultdict(set)
    for pair in near:
        if pair.flip:
            mirrors[pair.first].add(pair.flip)
            mirrors[pair.second].add(pair.flip)
    return mirrors


def _note(group: Sequence[int], mirrors: dict[int, set[str]]) -> str:
    ways = sorted(set().union(*(mirrors.get(i, set()) for i in group)))
    return f"mirrored {' and '.join(ways)}" if ways else ""
