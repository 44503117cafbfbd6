"""Classes whose images are near-duplicates of each other as a rule, such as b and d.

A few near-duplicates with different labels are label errors. If a large share of two
classes are near-duplicates, the classes differ in fine detail or by a flip: letters of
one font, or variants of one symbol. Then no single image is an error.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from striate.core.format import count_text
from striate.data.check.duplicate_candidates import FLIPS
from striate.data.check.duplicates import Duplicates, NearPair
from striate.data.check.finding import Finding

MIN_IMAGES = 4  # of a class: fewer pairs are chance, or label errors
# The same for many classes, where few errors hardly concern the same two classes.
MANY_CLASSES, MIN_IMAGES_MANY = 10, 2
CLASS_SHARE = 0.1  # share of a class in pairs with one other class, for a rule
# The same, if there are even more near-duplicates within the classes: copies are usual.
COPIES_SHARE = 0.3
MANY_IMAGES = 20  # in pairs with different labels, of any classes
DATA_SHARE = 0.05  # share of these images in the data set, for a rule
SHOWN = 5  # class pairs named in the finding


@dataclass(frozen=True, slots=True, order=True, kw_only=True)
class ClassPair:
    """Two classes with near-duplicates of each other, flipped in one way or not."""

    first: str
    second: str
    flip: str  # as in `NearPair`

    @property
    def names(self) -> tuple[str, str]:
        """Return the names of the two classes."""
        return self.first, self.second

    def __str__(self) -> str:
        flipped = f", flipped {self.flip}" if self.flip else ""
        return f"{self.first} and {self.second}{flipped}"


@dataclass(frozen=True, kw_only=True)
class SimilarClasses:
    """Near-duplicates of which the classes, not single images, are the reason."""

    # number of near-duplicate pairs by pair of classes
    pair_counts: Counter[ClassPair]
    images: int = 0  # number of images in these pairs


def separate_similar_classes(
    duplicates: Duplicates, labels: Sequence[str]
) -> tuple[Duplicates, SimilarClasses]:
    """Return the duplicates without near-duplicates of similar classes, and those.

    Example:
        >>> pairs = [NearPair(i, i + 9, "left-right", 0.01) for i in range(4)]
        >>> letters = Duplicates(count=18, near=tuple(pairs))
        >>> rest, similar = separate_similar_classes(letters, 9 * ["b"] + 9 * ["d"])
        >>> len(rest.near), similar.images, *map(str, similar.pair_counts)
        (0, 8, 'b and d, flipped left-right')
    """
    by_classes: dict[ClassPair, list[NearPair]] = defaultdict(list)
    for pair in duplicates.near:
        first, second = sorted((labels[pair.first], labels[pair.second]))
        if first != second:
            by_classes[ClassPair(first=first, second=second, flip=pair.flip)] += [pair]
    sizes = Counter(labels)
    within = Counter((labels[p.first], p.flip) for p in _within(duplicates, labels))
    rule = {}
    for classes, pairs in by_classes.items():
        copies = sum(within[name, classes.flip] for name in classes.names)
        share = CLASS_SHARE if len(pairs) >= copies else COPIES_SHARE
        evidence = pairs
        if len(pairs) > 1:  # symmetric drawings, such as I and l, have any flip
            others = (replace(classes, flip=flip) for flip in FLIPS)
            evidence = [pair for key in others for pair in by_classes.get(key, [])]
        if _class_share(classes, evidence, labels, sizes) >= share:
            rule[classes] = pairs
    if _differ_everywhere(duplicates, labels):
        rule = by_classes
    similar = {pair for pairs in rule.values() for pair in pairs}
    rest = tuple(pair for pair in duplicates.near if pair not in similar)
    counts = Counter({classes: len(pairs) for classes, pairs in rule.items()})
    images = len(_images(similar))
    return replace(duplicates, near=rest), SimilarClasses(
        pair_counts=counts, images=images
    )


def _images(pairs: set[NearPair] | list[NearPair]) -> set[int]:
    return {i for pair in pairs for i in (pair.first, pair.second)}


def _within(duplicates: Duplicates, labels: Sequence[str]) -> list[NearPair]:
    return [p for p in duplicates.near if labels[p.first] == labels[p.second]]


def _class_share(
    classes: ClassPair,
    pairs: list[NearPair],
    labels: Sequence[str],
    sizes: Counter[str],
) -> float:
    """Return the share of a class in the pairs: the larger share of the two classes."""
    counts = Counter(labels[i] for i in _images(pairs))
    least = MIN_IMAGES if len(sizes) < MANY_CLASSES else MIN_IMAGES_MANY
    large = [name for name in classes.names if counts[name] >= least]
    return max((counts[name] / sizes[name] for name in large), default=0.0)


def _differ_everywhere(duplicates: Duplicates, labels: Sequence[str]) -> bool:
    """Return whether near-duplicates across labels are as usual as within a label.

    Copies have the label of their original, except for label errors, which are few.
    """
    within = _within(duplicates, labels)
    across = [p for p in duplicates.near if labels[p.first] != labels[p.second]]
    images = len(_images(across))
    many = max(MANY_IMAGES, DATA_SHARE * duplicates.count)
    return images >= many and images >= len(_images(within))


def similar_class_findings(similar: SimilarClasses) -> list[Finding]:
    """Return a note on similar classes; no single image is suspected."""
    if not similar.pair_counts:
        return []
    count = count_text(len(similar.pair_counts), "pair")
    named = "; ".join(
        f"{classes} ({pairs:,}×)"
        for classes, pairs in similar.pair_counts.most_common(SHOWN)
    )
    rest = len(similar.pair_counts) - SHOWN
    named += f"; and {rest:,} more" if rest > 0 else ""
    return [
        Finding(
            kind="similar-classes",
            tone="note",
            what=f"{count} of classes differ only in fine detail or by a flip",
            why=f"Nearly equal images with these two labels are the rule: {named}. "
            f"The {similar.images:,} images are not counted as near-duplicates. "
            "Augmentation by flips or crops can make such classes equal.",
        )
    ]
