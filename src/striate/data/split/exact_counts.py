"""Stratified split with exact counts per class (small classes, and `--exact`).

Unlike `hash_split`, adding images can move old ones. So it serves classes that are too
small for a hash, and splits that are written to a file once.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from striate.data.split.hash_split import SplitConfig, hash_number

Needed = dict[str, dict[str, float]]
# Function from labels, contents, groups, shares and seed to the split of each image.
Stratify = Callable[
    [Sequence[str], Sequence[str], Sequence[str | None], Mapping[str, float], int],
    list[str],
]


def exact_split(
    labels: Sequence[str],
    contents: Sequence[str],
    groups: Sequence[str | None],
    split_config: SplitConfig,
    splits: Sequence[str],
    method: Stratify | None = None,
) -> list[str]:
    """Assign every image to a split, by fractions or by folds, with exact counts.

    `method` divides the images (default: `stratify`).

    Returns:
        The split of each image.
    """

    def stratified(positions: Sequence[int], shares: Mapping[str, float]) -> list[str]:
        return (method or stratify)(
            [labels[i] for i in positions],
            [contents[i] for i in positions],
            [groups[i] for i in positions],
            shares,
            split_config.seed,
        )

    all_positions = range(len(labels))
    if not split_config.folds:
        shares = {s: split_config.shares[s] for s in ("val", "test") if s in splits}
        return stratified(all_positions, {"train": 1 - sum(shares.values()), **shares})
    fold_share = 1 / split_config.folds
    shares = {str(i): fold_share for i in range(split_config.folds)}
    folds = stratified(all_positions, shares)
    low = "test" if "test" in splits else "val"
    assignment = [low if fold == str(split_config.fold) else "train" for fold in folds]
    if low == "test" and "val" in splits:
        remaining = [i for i in all_positions if assignment[i] == "train"]
        val = split_config.val / (1 - fold_share)
        assigned = stratified(remaining, {"train": 1 - val, "val": val})
        for i, split in zip(remaining, assigned, strict=True):
            assignment[i] = split
    return assignment


def stratify(
    labels: Sequence[str],
    contents: Sequence[str],
    groups: Sequence[str | None],
    shares: Mapping[str, float],
    seed: int,
) -> list[str]:
    """Assign every image to a split so that each class has the given fractions.

    Images of equal content, or of one group, get the same split. Within a class the
    counts are exact to the image, as far as groups allow; a class that is too small
    gives one image to each split, in the order of `shares`. The order of assignment is
    a hash of content and seed, so file names and their order have no effect.

    Example:
        >>> hashes = [f"{i}" for i in range(20)]
        >>> shares = {"train": 0.75, "val": 0.25}
        >>> splits = stratify(["a"] * 20, hashes, [None] * 20, shares, 0)
        >>> splits.count("train"), splits.count("val")
        (15, 5)
    """
    positive = {split: share for split, share in shares.items() if share > 0}
    needed: Needed = {split: {} for split in positive}
    for label, count in Counter(labels).items():
        for split, quota in quotas(count, positive).items():
            needed[split][label] = quota
    remaining = {split: share * len(labels) for split, share in positive.items()}
    splits = [""] * len(labels)

    def order(group: list[int]) -> tuple[int, int]:
        # Large groups first, so that small ones can balance the counts.
        return -len(group), hash_number(seed, "exact", min(contents[i] for i in group))

    parts = [
        (group, Counter(labels[i] for i in group))
        for group in sorted(indivisible_groups(contents, groups), key=order)
    ]
    empty = _EmptySplits.of([classes for _, classes in parts], positive)
    for group, classes in parts:
        # If splits tie in these classes, as folds do, the one with most free places
        # wins.
        deficits = {
            p: (_deficit(needed[p], classes), round(remaining[p], 6))
            for p in empty.candidates(classes) or needed
        }
        split = max(deficits, key=deficits.__getitem__)
        empty.fill(split, classes)
        remaining[split] -= len(group)
        for label, count in classes.items():
            needed[split][label] -= count
        for i in group:
            splits[i] = split
    return splits


@dataclass(frozen=True)
class _EmptySplits:
    """Splits without images of a class, and the groups of it that are left.

    Large groups may exceed their quotas, so the last groups go to the empty splits.
    """

    splits: dict[str, list[str]]  # of each class, in order
    groups_left: Counter[str]

    @classmethod
    def of(
        cls, groups: Sequence[Mapping[str, int]], shares: Mapping[str, float]
    ) -> _EmptySplits:
        left = Counter(label for classes in groups for label in classes)
        # Folds have no such rule.
        names = list(shares) if "train" in shares else []
        return cls({label: list(names) for label in left}, left)

    def candidates(self, classes: Mapping[str, int]) -> set[str]:
        """Return the splits that need this group; none if any split may get it."""
        needs = []
        for label in classes:
            left, empty = self.groups_left[label], self.splits[label]
            if left <= len(empty):
                needs.append(set(empty[:left]))
        return set.intersection(*needs) if needs else set()

    def fill(self, split: str, classes: Mapping[str, int]) -> None:
        """Record that a group of these classes got this split."""
        for label in classes:
            self.groups_left[label] -= 1
            if split in self.splits[label]:
                self.splits[label].remove(split)


def quotas(count: int, shares: Mapping[str, float]) -> dict[str, float]:
    """Return the number of images of a class for each split.

    A small class gives one image to each split in order. Folds have no such rule.

    Example:
        >>> quotas(2, {"train": 0.6, "val": 0.15, "test": 0.25})
        {'train': 1.0, 'val': 1.0, 'test': 0.0}
        >>> quotas(20, {"train": 0.6, "val": 0.15, "test": 0.25})
        {'train': 12.0, 'val': 3.0, 'test': 5.0}
    """
    counts = {split: share * count for split, share in shares.items()}
    if "train" not in shares:
        return counts
    if count <= len(shares):
        return {split: float(i < count) for i, split in enumerate(shares)}
    while (missing := 1 - min(counts.values())) > 1e-9:
        smallest = min(counts, key=counts.__getitem__)
        largest = max(counts, key=counts.__getitem__)
        moved = min(missing, counts[largest] - 1)
        counts[smallest] += moved
        counts[largest] -= moved
    return counts


def _deficit(needed: Mapping[str, float], classes: Mapping[str, int]) -> float:
    # fsum: a plain sum would depend on the order of the classes in its last bit.
    return round(math.fsum(needed[label] * n for label, n in classes.items()), 9)


def indivisible_groups(
    contents: Sequence[str], groups: Sequence[str | None]
) -> list[list[int]]:
    """Return groups of images that must be in the same split.

    Example:
        >>> indivisible_groups(["x", "y", "x", "z"], [None, "g", "g", None])
        [[0, 1, 2], [3]]
    """
    first: dict[tuple[str, str], int] = {}
    links = []
    for i, (content, group) in enumerate(zip(contents, groups, strict=True)):
        links.append((first.setdefault(("content", content), i), i))
        if group:
            links.append((first.setdefault(("group", group), i), i))
    return connected_components(len(contents), links)


def connected_components(
    count: int, pairs: Sequence[tuple[int, int]]
) -> list[list[int]]:
    """Return the connected components of a graph of `count` nodes, by union-find.

    Example:
        >>> connected_components(5, [(0, 3), (3, 4)])
        [[0, 3, 4], [1], [2]]
    """
    parent = list(range(count))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for first, second in pairs:
        parent[root(second)] = root(first)
    members: dict[int, list[int]] = defaultdict(list)
    for i in range(count):
        members[root(i)].append(i)
    return sorted(members.values())
