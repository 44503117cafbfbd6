"""A part of the training images: stratified to the image, nested, and in order."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from striate.data.split.hash_split import SplitConfig, draw
from striate.data.split.split_file import SPARE, SplitRow


def spared(rows: Sequence[SplitRow], split_config: SplitConfig) -> list[SplitRow]:
    """Return the rows with training images beyond the fraction marked as spare."""
    if split_config.fraction == 1:
        return [replace(r, split="train") if r.split == SPARE else r for r in rows]
    pool = [i for i, row in enumerate(rows) if row.split in ("train", SPARE)]
    kept = within_fraction(
        [rows[i].label for i in pool],
        [rows[i].content for i in pool],
        [rows[i].group for i in pool],
        split_config.fraction,
        split_config.seed,
    )
    marked = list(rows)
    for i, keep in zip(pool, kept, strict=True):
        marked[i] = replace(rows[i], split="train" if keep else SPARE)
    return marked


def within_fraction(
    labels: Sequence[str],
    contents: Sequence[str],
    groups: Sequence[str | None],
    fraction: float,
    seed: int,
) -> list[bool]:
    """Tell which images a fraction keeps.

    Each class has an order that is a function of content (or group) and seed, and the
    fraction is its beginning, at least one image: shares are exact to the image, a
    smaller fraction is a subset of a larger one, and more files never change which of
    two old images comes first. Images of one group follow each other, so a
    fraction holds whole groups and at most one broken one a class.

    Example:
        >>> hashes = [f"{i}" for i in range(8)]
        >>> kept = within_fraction(["a"] * 5 + ["b"] * 3, hashes, [None] * 8, 0.4, 0)
        >>> sum(kept[:5]), sum(kept[5:])
        (2, 2)
    """
    classes: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    for i, (label, content, group) in enumerate(
        zip(labels, contents, groups, strict=True)
    ):
        first = draw(seed, "fraction", content, group)
        classes[label].append((first, draw(seed, "fraction", content), i))
    kept = [False] * len(labels)
    for members in classes.values():
        # The small loss keeps 0.1 · 30 = 3.0000000000000004 from becoming four.
        count = math.ceil(fraction * len(members) - 1e-9)
        for *_, i in sorted(members)[:count]:
            kept[i] = True
    return kept
