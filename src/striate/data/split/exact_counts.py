"""Shares held to the image, class by class: exact where `split` is stable.

Who deals last decides by what is lacking, so adding images can move old ones. It is
for splits that are written to a file once and kept (`striate data split --exact`), and
for sets that never grow.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from striate.data.split.hash_split import SplitConfig, draw

Need = dict[str, dict[str, float]]


def deal_exactly(
    labels: Sequence[str],
    contents: Sequence[str],
    groups: Sequence[str | None],
    split_config: SplitConfig,
    splits: Sequence[str],
) -> list[str]:
    """Give every image a part, by shares or by folds.

    Args:
        labels: Class of each image.
        contents: Content hash of each image.
        groups: Group of each image (a patient, a camera), or None.
        split_config: Shares or folds, and the seed.
        splits: Those to deal beside `train`: val, test, or both.

    Returns:
        A part name for each image.
    """

    def among(chosen: Sequence[int], shares: Mapping[str, float]) -> list[str]:
        return hold(
            [labels[i] for i in chosen],
            [contents[i] for i in chosen],
            [groups[i] for i in chosen],
            shares,
            split_config.seed,
        )

    everyone = range(len(labels))
    if not split_config.folds:
        shares = {
            split: split_config.shares[split]
            for split in ("val", "test")
            if split in splits
        }
        return among(everyone, {"train": 1 - sum(shares.values()), **shares})
    folds = among(
        everyone, {str(i): 1 / split_config.folds for i in range(split_config.folds)}
    )
    low = "test" if "test" in splits else "val"
    dealt = [low if fold == str(split_config.fold) else "train" for fold in folds]
    if low == "test" and "val" in splits:
        rest = [i for i in everyone if dealt[i] == "train"]
        val = split_config.val / (1 - 1 / split_config.folds)
        for i, split in zip(
            rest, among(rest, {"train": 1 - val, "val": val}), strict=True
        ):
            dealt[i] = split
    return dealt


def hold(
    labels: Sequence[str],
    contents: Sequence[str],
    groups: Sequence[str | None],
    shares: Mapping[str, float],
    seed: int,
) -> list[str]:
    """Give every image a part so that each class has its shares.

    Images of equal content, or of one group, go to the same part. Within a class
    the parts hold their shares to the nearest image, as far as groups allow; a
    class too small for that gives every part one image, in the order of `shares`.
    The order of dealing is a hash of content and seed, so file names and their order
    change nothing.

    Args:
        labels: Class of each image.
        contents: Content hash of each image.
        groups: Group of each image, or None.
        shares: Part names and their shares, summing to 1.
        seed: Another seed deals another split.

    Example:
        >>> hashes = [f"{i}" for i in range(20)]
        >>> shares = {"train": 0.75, "val": 0.25}
        >>> splits = hold(["a"] * 20, hashes, [None] * 20, shares, 0)
        >>> splits.count("train"), splits.count("val")
        (15, 5)
    """
    kept = {split: share for split, share in shares.items() if share > 0}
    need: Need = {split: {} for split in kept}
    for label, count in Counter(labels).items():
        for split, quota in quotas(count, kept).items():
            need[split][label] = quota
    rest = {split: share * len(labels) for split, share in kept.items()}
    splits = [""] * len(labels)
    for unit in _dealing_order(units(contents, groups), contents, seed):
        classes = Counter(labels[i] for i in unit)
        # Where parts tie in these classes, as folds do, the emptiest in all gets it.
        lacks = {p: (_lack(need[p], classes), round(rest[p], 6)) for p in need}
        chosen = max(lacks, key=lacks.__getitem__)
        rest[chosen] -= len(unit)
        for label, count in classes.items():
            need[chosen][label] -= count
        for i in unit:
            splits[i] = chosen
    return splits


def quotas(count: int, shares: Mapping[str, float]) -> dict[str, float]:
    """Return how many images of a class each part is due.

    At least one, where there is a training split: folds are all alike.

    Example:
        >>> quotas(2, {"train": 0.6, "val": 0.15, "test": 0.25})
        {'train': 1.0, 'val': 1.0, 'test': 0.0}
        >>> quotas(20, {"train": 0.6, "val": 0.15, "test": 0.25})
        {'train': 12.0, 'val': 3.0, 'test': 5.0}
    """
    due = {split: share * count for split, share in shares.items()}
    if "train" not in shares:
        return due
    if count <= len(shares):
        return {split: float(i < count) for i, split in enumerate(shares)}
    while (lack := 1 - min(due.values())) > 1e-9:
        poorest, richest = min(due, key=due.__getitem__), max(due, key=due.__getitem__)
        given = min(lack, due[richest] - 1)
        due[poorest] += given
        due[richest] -= given
    return due


def _lack(need: Mapping[str, float], classes: Mapping[str, int]) -> float:
    # fsum: a plain sum would depend on the order of the classes in its last bit.
    return round(math.fsum(need[label] * n for label, n in classes.items()), 9)


def _dealing_order(
    found: list[list[int]], contents: Sequence[str], seed: int
) -> list[list[int]]:
    # Large units first: what is left to deal then evens the shares out.
    def key(unit: list[int]) -> tuple[int, int]:
        return -len(unit), draw(seed, "exact", min(contents[i] for i in unit))

    return sorted(found, key=key)


def units(contents: Sequence[str], groups: Sequence[str | None]) -> list[list[int]]:
    """Return sets of images that must stay together, by union-find.

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
