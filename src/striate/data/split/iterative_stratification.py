"""Stratified split of images with several labels: iterative stratification.

Sechidis et al. 2011, "On the stratification of multi-label data": the images of the
class with the fewest unassigned images are assigned first, each to the split that
still needs most images of this class. So rare classes get their share in every split.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from striate.core.class_names import split_label
from striate.data.split.exact_counts import indivisible_groups, quotas
from striate.data.split.hash_split import hash_number

Needed = dict[str, dict[str, float]]


def iterative_stratification(
    labels: Sequence[str],
    contents: Sequence[str],
    groups: Sequence[str | None],
    shares: Mapping[str, float],
    seed: int,
) -> list[str]:
    """Assign every image to a split so that each class has about the given fractions.

    Images of equal content, or of one group, get the same split. The order is a hash of
    content and seed, so file names and their order have no effect.

    Example:
        >>> labels = ["a;b", "a", "b", ""] * 5
        >>> hashes, groups = [f"{i}" for i in range(20)], [None] * 20
        >>> shares = {"train": 0.8, "val": 0.2}
        >>> splits = iterative_stratification(labels, hashes, groups, shares, 0)
        >>> [sum("a" in k for k, s in zip(labels, splits) if s == x) for x in shares]
        [8, 2]
    """
    units = indivisible_groups(contents, groups)
    keys = [min(contents[i] for i in unit) for unit in units]
    order = sorted(range(len(units)), key=lambda k: hash_number(seed, "exact", keys[k]))
    classes = [
        Counter(c for i in unit for c in split_label(labels[i])) for unit in units
    ]
    positive = {split: share for split, share in shares.items() if share > 0}
    places = {split: share * len(labels) for split, share in positive.items()}
    needed: Needed = {split: {} for split in positive}
    remaining = sum(classes, Counter[str]())
    for name, count in remaining.items():
        for split, quota in quotas(count, positive).items():
            needed[split][name] = quota
    splits = [""] * len(labels)

    def assign(k: int, rare: str) -> None:
        def need(split: str) -> tuple[float, float]:
            own = needed[split].get(rare, 0.0)
            return round(own, 9), round(places[split], 9)

        split = max(positive, key=need)
        places[split] -= len(units[k])
        for name, count in classes[k].items():
            needed[split][name] -= count
            remaining[name] -= count
        for i in units[k]:
            splits[i] = split

    while +remaining:
        rare = min(+remaining, key=lambda name: (remaining[name], name))
        own = [k for k in order if rare in classes[k]]
        for k in sorted(own, key=lambda k: -classes[k][rare]):  # large units first
            assign(k, rare)
        order = [k for k in order if rare not in classes[k]]
    for k in sorted(order, key=lambda k: -len(units[k])):  # images without labels
        assign(k, "")
    return splits


def rarest_classes(labels: Sequence[str]) -> list[str]:
    """Return the least frequent class of each image, or empty text without a class.

    Images are stratified by it where each image must belong to one stratum.

    Example:
        >>> rarest_classes(["a;b", "a", ""])
        ['b', 'a', '']
    """
    names = [split_label(label) for label in labels]
    counts = Counter(name for own in names for name in own)
    return [min(own, key=lambda n: (counts[n], n), default="") for own in names]
