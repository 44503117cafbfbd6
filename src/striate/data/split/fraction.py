"""Stratified fraction of the training images, which contains all smaller fractions."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from striate.data.sources.source import UNUSED
from striate.data.split.hash_split import SplitConfig, hash_number
from striate.data.split.iterative_stratification import rarest_classes
from striate.data.split.split_file import SplitRow


def mark_unused(
    rows: Sequence[SplitRow], split_config: SplitConfig, multi_label: bool = False
) -> list[SplitRow]:
    """Return the `split.csv` rows; images outside the fraction get `unused`.

    With `multi_label`, images are stratified by the rarest of their classes.
    """
    if split_config.fraction == 1:
        return [replace(r, split="train") if r.split == UNUSED else r for r in rows]
    pool = [i for i, row in enumerate(rows) if row.split in ("train", UNUSED)]
    labels = [rows[i].label for i in pool]
    inside = fraction_mask(
        rarest_classes(labels) if multi_label else labels,
        [rows[i].content for i in pool],
        [rows[i].group for i in pool],
        split_config.fraction,
        split_config.seed,
    )
    marked = list(rows)
    for i, is_inside in zip(pool, inside, strict=True):
        marked[i] = replace(rows[i], split="train" if is_inside else UNUSED)
    return marked


def fraction_mask(
    labels: Sequence[str],
    contents: Sequence[str],
    groups: Sequence[str | None],
    fraction: float,
    seed: int,
) -> list[bool]:
    """Return a mask that selects a fraction of the images in every class.

    Each class is sorted by a hash of content (or group) and seed. The fraction is the
    beginning of this order, at least one image. So counts are exact, a smaller fraction
    is a subset of a larger fraction, and new files never change the order of old
    images. Images of one group are adjacent, so at most one group per class is divided.

    Example:
        >>> hashes = [f"{i}" for i in range(8)]
        >>> mask = fraction_mask(["a"] * 5 + ["b"] * 3, hashes, [None] * 8, 0.4, 0)
        >>> sum(mask[:5]), sum(mask[5:])
        (2, 2)
    """
    classes: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    images = zip(labels, contents, groups, strict=True)
    for i, (label, content, group) in enumerate(images):
        group_key = hash_number(seed, "fraction", content, group)
        classes[label].append((group_key, hash_number(seed, "fraction", content), i))
    inside = [False] * len(labels)
    for members in classes.values():
        # The small offset keeps 0.1 · 30 = 3.0000000000000004 from becoming four.
        count = math.ceil(fraction * len(members) - 1e-9)
        for *_, i in sorted(members)[:count]:
            inside[i] = True
    return inside
