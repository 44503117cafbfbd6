"""Data leaks: images that are in two splits, and their effect on test accuracy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from striate.core.format import count_text
from striate.data.check.duplicates import Duplicates
from striate.data.check.finding import Finding, ImageGroup
from striate.data.sources.source import SPLITS, Record

FIX = "remove the images from one of the two splits (from train, if test is published)"


def assigned_splits(records: Sequence[Record]) -> list[str]:
    """Return the split of each image; images without a split count as `train`.

    If no image has a split, all values are ''.

    Example:
        >>> assigned_splits([Record(path="a", label="x"), Record(path="b", label="x")])
        ['', '']
    """
    if not any(record.split for record in records):
        return [""] * len(records)
    return [record.split or "train" for record in records]


def leak_findings(
    duplicates: Duplicates,
    records: Sequence[Record],
    splits: Sequence[str],
    points: np.ndarray,
) -> list[Finding]:
    """Return one finding for every pair of splits that share images."""
    positions: dict[str, list[int]] = defaultdict(list)
    for position, split in enumerate(splits):
        positions[split].append(position)
    labels = [record.label for record in records]
    findings = []
    for train_split, eval_split in combinations(SPLITS, 2):
        leaked = _leaked_images(duplicates, splits, eval_split, train_split)
        if leaked:
            evaluated, train = positions[eval_split], positions[train_split]
            impact = leak_impact(points, labels, evaluated, train, leaked)
            findings.append(_leak(eval_split, train_split, leaked, impact, duplicates))
    return findings


def _leaked_images(
    duplicates: Duplicates, splits: Sequence[str], eval_split: str, train_split: str
) -> dict[int, list[int]]:
    """Return, for each leaked image of `eval_split`, its copies in `train_split`."""
    leaked: dict[int, list[int]] = {}
    for family in duplicates.groups:
        matches = [i for i in family if splits[i] == train_split]
        if matches:
            leaked |= {i: matches for i in family if splits[i] == eval_split}
    return leaked


def _leak(
    eval_split: str,
    train_split: str,
    leaked: dict[int, list[int]],
    impact: LeakImpact,
    duplicates: Duplicates,
) -> Finding:
    first = duplicates.representatives
    exact = sum(first[i] in {first[m] for m in copies} for i, copies in leaked.items())
    verb = "is" if len(leaked) == 1 else "are"
    kinds = {"exact": exact, "near-duplicate": len(leaked) - exact}
    similar = " and ".join(f"{n:,} {kind}" for kind, n in kinds.items() if n)
    groups = [ImageGroup(members=(i, *leaked[i][:3])) for i in sorted(leaked)]
    return Finding(
        kind="leak",
        tone="bad",
        what=f"{count_text(len(leaked), 'image')} of {eval_split} {verb} also in "
        f"{train_split}: {similar}",
        why=_explanation(eval_split, impact),
        fix=FIX,
        groups=tuple(groups),
    )


def _explanation(eval_split: str, impact: LeakImpact) -> str:
    leaked = impact.same_label + impact.other_label
    sentences = [
        f"These are {leaked / impact.images:.2%} of {eval_split}. A network that "
        f"memorizes the copies classifies {impact.same_label:,} correctly anyway. So "
        f"the reported accuracy is too high by at most {100 * impact.bound:.2f} "
        f"points, or by {impact.bound:.4f} · (1 − a) if a is the accuracy on the other "
        "images.",
        f"Estimate with a nearest-neighbor classifier: {100 * impact.estimate:+.2f} "
        f"points ({impact.correct_anyway:,} of the {leaked:,} are correct without the "
        "copies).",
    ]
    if impact.other_label:
        sentences.append(
            f"For {count_text(impact.other_label, 'image')} the copy "
            "has another label; memorizing "
            "these copies lowers the accuracy."
        )
    return " ".join(sentences).replace("%", "\u00a0%")


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakImpact:
    """Effect of leaked images on the accuracy of a split.

    A network that memorizes the copies classifies all `same_label` images correctly and
    all `other_label` images wrongly. Without memorizing, it would classify some of
    these images correctly anyway.
    """

    images: int  # number of images in the evaluated split
    same_label: int  # leaked images with a copy of the same label
    other_label: int  # leaked images with copies of other labels only
    # leaked images that a nearest-neighbor classifier gets right when the copies are
    # removed
    correct_anyway: int

    @property
    def bound(self) -> float:
        """Return the largest possible accuracy gain from the leak, as a fraction.

        Example:
            >>> counts = dict(same_label=12, other_label=0, correct_anyway=9)
            >>> LeakImpact(images=1000, **counts).bound
            0.012
        """
        return self.same_label / self.images

    @property
    def estimate(self) -> float:
        """Return the estimated accuracy gain from the leak, as a fraction.

        Example:
            >>> counts = dict(same_label=12, other_label=0, correct_anyway=9)
            >>> LeakImpact(images=1000, **counts).estimate
            0.003
        """
        return (self.same_label - self.correct_anyway) / self.images


def leak_impact(
    points: np.ndarray,
    labels: Sequence[str],
    evaluated: Sequence[int],
    train: Sequence[int],
    duplicates: Mapping[int, Sequence[int]],
) -> LeakImpact:
    """Return the effect of leaked images on the accuracy of the evaluated split."""
    nearest_labels = _nearest_labels(points, labels, train, duplicates)
    same_label = sum(
        labels[i] in {labels[m] for m in leaked} for i, leaked in duplicates.items()
    )
    return LeakImpact(
        images=len(evaluated),
        same_label=same_label,
        other_label=len(duplicates) - same_label,
        correct_anyway=sum(labels[i] == label for i, label in nearest_labels.items()),
    )


def _nearest_labels(
    points: np.ndarray,
    labels: Sequence[str],
    train: Sequence[int],
    duplicates: Mapping[int, Sequence[int]],
) -> dict[int, str]:
    """Return each leaked image's nearest training label, copies excluded."""
    train_points = points[np.asarray(train)]
    row = {position: k for k, position in enumerate(train)}
    nearest_labels: dict[int, str] = {}
    for i, leaked in duplicates.items():
        distance = ((train_points - points[i]) ** 2).sum(1)
        distance[[row[m] for m in leaked]] = np.inf
        nearest = int(distance.argmin())
        if np.isfinite(distance[nearest]):
            nearest_labels[i] = labels[train[nearest]]
    return nearest_labels
