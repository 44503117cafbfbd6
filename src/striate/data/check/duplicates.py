"""Duplicates of a data set: exact groups, near-duplicate pairs, combined groups.

`near_duplicates` searches for the pairs; `duplicate_findings` reports them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from striate.data.split.exact_counts import connected_components


@dataclass(frozen=True, slots=True, order=True)
class NearPair:
    """Pair of near-duplicate images."""

    first: int  # index of the first image; the lower index of the pair
    second: int  # index of the second image
    flip: str  # flip of the second image: '', 'left-right' or 'top-bottom'
    # difference that remains after alignment (see `align`); 0 means identical
    score: float


def exact_duplicates(contents: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """Return groups of two or more image indices with equal content hashes.

    Example:
        >>> exact_duplicates(["x", "y", "x", "z"])
        ((0, 2),)
    """
    positions: dict[str, list[int]] = defaultdict(list)
    for position, content in enumerate(contents):
        positions[content].append(position)
    return tuple(tuple(group) for group in positions.values() if len(group) > 1)


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """Exact duplicates and near-duplicates of a data set, as image indices."""

    count: int  # number of images
    # groups of indices of images with equal pixels
    equal: tuple[tuple[int, ...], ...] = ()
    # near-duplicate pairs; only the first image of each equal group is compared
    near: tuple[NearPair, ...] = field(default=(), repr=False)

    @property
    def groups(self) -> list[list[int]]:
        """Return groups of exact and near-duplicates (connected components)."""
        links = [(group[0], other) for group in self.equal for other in group[1:]]
        links += [(pair.first, pair.second) for pair in self.near]
        groups = connected_components(self.count, links)
        return [group for group in groups if len(group) > 1]

    @property
    def near_groups(self) -> list[list[int]]:
        """Return the duplicate groups in which not all images have equal pixels."""
        distinct = self.representatives
        return [f for f in self.groups if len({distinct[i] for i in f}) > 1]

    @property
    def representatives(self) -> list[int]:
        """Return, for each image, the index of the first image with equal pixels."""
        first = list(range(self.count))
        for group in self.equal:
            for position in group:
                first[position] = group[0]
        return first
