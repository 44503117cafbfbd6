"""Pairs of runs on common images, and images that only one run predicts correctly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from striate.metrics.intervals import Interval
from striate.metrics.paired import (
    PairedCounts,
    balanced_accuracy_difference,
    mean_difference,
)
from striate.run.multi_label_predictions import MultiLabelPredictions
from striate.run.predict_images import NO_LABEL
from striate.workflows.compare.evaluated_run import EvaluatedRun, ImageKey


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairing:
    """Pair of runs, with the indices of the images that both runs evaluated."""

    first: EvaluatedRun  # the reference run
    second: EvaluatedRun  # the run compared with it
    # indices of the common images in the predictions of each run
    rows: tuple[np.ndarray, np.ndarray] = field(repr=False)
    relabeled: int  # number of images left out because the two runs disagree on labels

    @property
    def count(self) -> int:
        """Return the number of images that both runs evaluated."""
        return len(self.rows[0])

    @property
    def left_out(self) -> tuple[int, int]:
        """Return two counts: images evaluated only by the first or the second run."""
        return len(self.first.keys) - self.count, len(self.second.keys) - self.count

    @cached_property
    def correct(self) -> tuple[np.ndarray, np.ndarray]:
        """Return a bool array (N,) for each run: whether each prediction is correct."""
        return self.first.correct[self.rows[0]], self.second.correct[self.rows[1]]

    @cached_property
    def paired(self) -> PairedCounts:
        """Return the 2×2 table of correct and wrong predictions of the two runs."""
        first, second = self.correct
        return PairedCounts.of(first, second)

    @cached_property
    def classes(self) -> tuple[tuple[str, PairedCounts], ...]:
        """Return each class with the 2×2 table of the two runs: correct or wrong.

        For several labels per image, these are the images with the class, and correct
        is that the class is predicted.
        """
        reference, other = self.first.predictions, self.second.predictions
        if isinstance(reference, MultiLabelPredictions):
            actual = reference.truth[self.rows[0]] > 0
            hits = reference.predicted[self.rows[0]], other.predicted[self.rows[1]]
            return tuple(
                (name, PairedCounts.of(hits[0][own, i], hits[1][own, i]))
                for i, name in enumerate(reference.labels.names)
                if (own := actual[:, i]).any()
            )
        truth = self.first.predictions.truth[self.rows[0]]
        first, second = self.correct
        return tuple(
            (name, PairedCounts.of(first[truth == i], second[truth == i]))
            for i, name in enumerate(self.first.predictions.labels.names)
            if (truth == i).any()
        )

    @cached_property
    def balanced(self) -> tuple[float, Interval]:
        """Return the runs' difference in balanced accuracy, with its 95 % interval."""
        return balanced_accuracy_difference([paired for _, paired in self.classes])

    @cached_property
    def loss(self) -> tuple[float, Interval | None]:
        """Return the runs' difference in mean cross-entropy, with its 95 % interval."""
        return mean_difference(self.loss_differences)

    @cached_property
    def loss_differences(self) -> np.ndarray:
        """Return the loss difference of each image, second run minus first, (N,)."""
        first, second = self.first.predictions, self.second.predictions
        return np.asarray(second.losses[self.rows[1]] - first.losses[self.rows[0]])


def pair_runs(first: EvaluatedRun, second: EvaluatedRun) -> Pairing:
    """Pair two runs on the images that both runs evaluated with the same label."""
    positions = {key: i for i, key in enumerate(second.keys)}
    common = [(i, positions[k]) for i, k in enumerate(first.keys) if k in positions]
    rows = np.array(common, dtype=np.int64).reshape(-1, 2)
    only = set(first.keys) - set(second.keys), set(second.keys) - set(first.keys)
    relabeled = Counter(c for c, _, _ in only[0]) & Counter(c for c, _, _ in only[1])
    return Pairing(
        first=first,
        second=second,
        rows=(rows[:, 0], rows[:, 1]),
        relabeled=relabeled.total(),
    )


@dataclass(frozen=True, kw_only=True)
class FlippedImage:
    """An image on which one of two groups of runs is correct more often."""

    image_path: str  # path of the image file
    true: str  # true class
    # class predicted most often by the first and by the second group
    pred: tuple[str, str]
    confidence: tuple[float, float]  # mean probability of that class in each group
    # number of correct predictions of each group, out of `pairs`
    correct: tuple[int, int]
    pairs: int  # number of pairs of runs that evaluated the image
    loss_difference: float  # mean loss of the second group minus the first
    # a run that evaluated the image, and the index of the image in that run
    source: tuple[EvaluatedRun, int] = field(repr=False, compare=False)

    @property
    def gained(self) -> bool:
        """Return whether the second group is correct more often than the first."""
        return self.correct[1] > self.correct[0]


Occurrences = Sequence[tuple[Pairing, int]]  # of one image: a pairing and its row there


def flipped_images(pairings: Sequence[Pairing]) -> tuple[FlippedImage, ...]:
    """Return the images on which one of two groups of runs is correct more often."""
    by_image: dict[ImageKey, list[tuple[Pairing, int]]] = {}
    for pairing in pairings:
        for k, i in enumerate(pairing.rows[0]):
            by_image.setdefault(pairing.first.keys[i], []).append((pairing, k))
    images = [
        _flipped(each)
        for each in by_image.values()
        if _times_correct(each, 0) != _times_correct(each, 1)
    ]
    return tuple(sorted(images, key=_clearness))


def _clearness(image: FlippedImage) -> tuple[float, float]:
    share = abs(image.correct[1] - image.correct[0]) / image.pairs
    return -share, -abs(image.loss_difference)


def _flipped(occurrences: Occurrences) -> FlippedImage:
    pairing, k = occurrences[0]
    row = int(pairing.rows[0][k])
    predictions = pairing.first.predictions
    first, second = (_prediction(occurrences, side) for side in (0, 1))
    differences = [float(p.loss_differences[k]) for p, k in occurrences]
    sources = (pairing.first, row), (pairing.second, int(pairing.rows[1][k]))
    return FlippedImage(
        image_path=predictions.paths[row],
        true=predictions.true_label(row) or NO_LABEL,
        pred=(first[0], second[0]),
        confidence=(first[1], second[1]),
        correct=(_times_correct(occurrences, 0), _times_correct(occurrences, 1)),
        pairs=len(occurrences),
        loss_difference=sum(differences) / len(occurrences),
        source=max(sources, key=lambda source: source[0].input_area),
    )


def _times_correct(occurrences: Occurrences, side: int) -> int:
    return sum(int(pairing.correct[side][k]) for pairing, k in occurrences)


def _prediction(occurrences: Occurrences, side: int) -> tuple[str, float]:
    """Return the most frequent class predicted by a group, and its mean probability."""
    rows, labels_text = [], []
    for pairing, k in occurrences:
        predictions = (pairing.first, pairing.second)[side].predictions
        row = int(pairing.rows[side][k])
        rows.append(predictions.probs[row])
        labels_text.append(predictions.predicted_label(row))
    probs = np.stack(rows)
    if occurrences[0][0].first.predictions.labels.multi_label:
        text = Counter(labels_text).most_common(1)[0][0]
        return text or NO_LABEL, float(probs.max(1).mean())
    predicted = Counter(probs.argmax(1).tolist()).most_common(1)[0][0]
    labels = occurrences[0][0].first.predictions.labels
    return labels[predicted], float(probs[:, predicted].mean())
