"""Train, validation and test parts: stratified, duplicates and groups kept together."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from striate.core.seeds import derive

Need = dict[str, dict[str, float]]


def split(
    labels: Sequence[str],
    contents: Sequence[str],
    groups: Sequence[str | None],
    fractions: Mapping[str, float],
    seed: int,
) -> list[str]:
    """Give every picture a part.

    Pictures of equal content, or of one group, go to the same part. Within a class
    the parts hold their fractions to the nearest picture, as far as groups allow. The
    order of dealing is a hash of content and seed, so file names and their order
    change nothing.

    Args:
        labels: Class of each picture.
        contents: Content hash of each picture.
        groups: Group of each picture (a patient, a camera), or None.
        fractions: Part names and their shares, summing to 1.
        seed: Another seed deals another split.

    Returns:
        A part name for each picture.

    Example:
        >>> hashes = [f"{i}" for i in range(20)]
        >>> shares = {"train": 0.75, "val": 0.25}
        >>> parts = split(["a"] * 20, hashes, [None] * 20, shares, 0)
        >>> parts.count("train"), parts.count("val")
        (15, 5)
    """
    totals = Counter(labels)
    need: Need = {
        part: {label: share * count for label, count in totals.items()}
        for part, share in fractions.items()
        if share > 0
    }
    parts = [""] * len(labels)
    for unit in _dealing_order(units(contents, groups), contents, seed):
        classes = Counter(labels[i] for i in unit)
        chosen = max(need, key=lambda part: _lack(need[part], classes))
        for label, count in classes.items():
            need[chosen][label] -= count
        for i in unit:
            parts[i] = chosen
    return parts


def _lack(need: Mapping[str, float], classes: Mapping[str, int]) -> float:
    # fsum: a plain sum would depend on the order of the classes in its last bit.
    return math.fsum(need[label] * count for label, count in classes.items())


def _dealing_order(
    found: list[list[int]], contents: Sequence[str], seed: int
) -> list[list[int]]:
    # Large units first: what is left to deal then evens the shares out.
    def key(unit: list[int]) -> tuple[int, int]:
        return -len(unit), derive(seed, "split", min(contents[i] for i in unit))

    return sorted(found, key=key)


def units(contents: Sequence[str], groups: Sequence[str | None]) -> list[list[int]]:
    """Return sets of pictures that must stay together, by union-find.

    Example:
        >>> units(["x", "y", "x", "z"], [None, "g", "g", None])
        [[0, 1, 2], [3]]
    """
    parent = list(range(len(contents)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[tuple[str, str], int] = {}
    for i, (content, group) in enumerate(zip(contents, groups, strict=True)):
        keys = [("content", content)] + ([("group", group)] if group else [])
        for key in keys:
            parent[root(i)] = root(first.setdefault(key, i))
    members: dict[int, list[int]] = defaultdict(list)
    for i in range(len(contents)):
        members[root(i)].append(i)
    return sorted(members.values())
