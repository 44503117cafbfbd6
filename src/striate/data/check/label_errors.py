"""Label errors by confident learning, from out-of-sample predictions.

Northcutt, Jiang and Chuang 2021, "Confident learning: Estimating uncertainty in dataset
labels", JAIR 70, sections 3 and 4. A network is confident in a class if its probability
is at least the mean probability of that class over the images with this label. Counts
of images with confidence in another class than the label, scaled to the class sizes,
estimate the number of label errors for each pair of classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from striate.core.format import count_text
from striate.data.check.finding import Finding, ImageGroup

NONE = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelConfusion:
    """An off-diagonal cell of the joint distribution of given and true labels."""

    label: int  # index of the given class
    suggested: int  # index of the class that the networks predict
    suspected_count: int  # number of images listed as this label error
    estimate: float  # estimated number of images with this label error


@dataclass(frozen=True, kw_only=True)
class ConfidentLearning:
    """Confident learning on labels and out-of-sample probabilities.

    Example:
        >>> of_first = np.array([0.9, 0.8, 0.1, 0.2, 0.1])
        >>> probs = np.stack([of_first, 1 - of_first], 1)
        >>> result = ConfidentLearning(probs=probs, labels=np.array([0, 0, 1, 1, 0]))
        >>> result.suspected.tolist(), round(result.estimate, 1)
        ([4], 1.0)
    """

    # (N, C) probabilities; all zeros for an image without a prediction
    probs: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)  # (N,) class indices
    # (N,) True if the image was predicted by a network that was trained on its class
    has_prediction: np.ndarray = field(
        default_factory=lambda: np.array(True), repr=False
    )

    def __post_init__(self) -> None:
        mask = np.broadcast_to(self.has_prediction, self.labels.shape)
        object.__setattr__(self, "has_prediction", mask)

    @property
    def classes(self) -> int:
        """Return the number of classes."""
        return int(self.probs.shape[1])

    @cached_property
    def self_confidence(self) -> np.ndarray:
        """Return the predicted probability of each image's label, (N,)."""
        return np.asarray(self.probs[np.arange(len(self.labels)), self.labels])

    @cached_property
    def thresholds(self) -> np.ndarray:
        """Return the confidence threshold of each class, (C,).

        The threshold is the mean probability of the class over images with this label
        (equation 2 of the paper), or infinite for a class without predictions.
        """
        labels = self.labels[self.has_prediction]
        confidence = self.self_confidence[self.has_prediction]
        totals = np.bincount(labels, confidence, self.classes)
        counts = np.bincount(labels, minlength=self.classes)
        means = np.full(self.classes, np.inf)
        np.divide(totals, counts, out=means, where=counts > 0)
        return means

    @cached_property
    def confident_class(self) -> np.ndarray:
        """Return for each image the class whose threshold is reached, or `NONE`, (N,).

        If an image reaches several thresholds, the most probable class (equation 1).
        """
        reached = np.where(self.probs >= self.thresholds, self.probs, NONE)
        best: np.ndarray = reached.argmax(1)
        best[~self.has_prediction | (reached.max(1) < 0)] = NONE
        return best

    @cached_property
    def suggested(self) -> np.ndarray:
        """Return the suggested class of each image, never its given label, (N,).

        It is the confident class if there is one, else the most probable other class.
        """
        others = self.probs.astype(np.float64)
        others[np.arange(len(self.labels)), self.labels] = -np.inf
        best = others.argmax(1)
        return np.where(self._conflicts, self.confident_class, best)

    @cached_property
    def label_quality(self) -> np.ndarray:
        """Return the quality of each label, (N,): 0 is worst, 1 is the class average.

        The probability of the label divided by its mean over the class, so that a hard
        class is not suspected as a whole. The paper's normalized margin ranks images of
        two similar classes before planted errors (docs/notebook/data-check.md).
        """
        thresholds = self.thresholds[self.labels]
        quality = np.zeros(len(thresholds))
        valid = (thresholds > 0) & np.isfinite(thresholds)
        np.divide(self.self_confidence, thresholds, out=quality, where=valid)
        return quality

    @property
    def _conflicts(self) -> np.ndarray:
        confident = self.confident_class
        return np.asarray((confident != NONE) & (confident != self.labels))

    @cached_property
    def ranking_order(self) -> np.ndarray:
        """Return image indices by ascending label quality, unchecked images last."""
        quality = np.where(self.has_prediction, self.label_quality, np.inf)
        return np.asarray(np.argsort(quality, kind="stable"))

    @cached_property
    def suspected(self) -> np.ndarray:
        """Return indices of suspected label errors, the lowest label quality first.

        These images are in off-diagonal cells of the confident joint: the networks are
        confident in another class. If the given label is still more probable, the image
        is counted in the joint but not listed, because users would not understand why.
        """
        suggested_probs = self.probs[np.arange(len(self.labels)), self.suggested]
        suspected = self._conflicts & (suggested_probs > self.self_confidence)
        return np.asarray(self.ranking_order[suspected[self.ranking_order]])

    @cached_property
    def confusions(self) -> tuple[LabelConfusion, ...]:
        """Return the off-diagonal cells of the confident joint, the largest first.

        Counts are scaled from confident images to all images of a label (equation 3). A
        label without confident images is assumed to be correct.
        """
        has_class = self.confident_class != NONE
        pairs = self.labels[has_class] * self.classes + self.confident_class[has_class]
        cells, counts = np.unique(pairs, return_counts=True)
        rows, columns = np.divmod(cells, self.classes)
        sizes = np.bincount(self.labels[self.has_prediction], minlength=self.classes)
        class_counts = np.bincount(rows, counts, self.classes)
        suspected = self.labels[self.suspected] * self.classes
        suspected += self.confident_class[self.suspected]
        suspected_counts = Counter(suspected.tolist())
        confusions = [
            LabelConfusion(
                label=int(i),
                suggested=int(j),
                suspected_count=suspected_counts[int(cell)],
                estimate=float(n / class_counts[i] * sizes[i]),
            )
            for cell, i, j, n in zip(cells, rows, columns, counts, strict=True)
            if i != j
        ]
        confusions.sort(key=lambda cell: (-cell.estimate, cell.label, cell.suggested))
        return tuple(confusions)

    @property
    def estimate(self) -> float:
        """Return the estimated number of label errors."""
        return sum(cell.estimate for cell in self.confusions)

    @property
    def agreement(self) -> float:
        """Return the fraction of images whose predicted class equals the label."""
        correct = (self.probs.argmax(1) == self.labels)[self.has_prediction]
        return float(correct.mean()) if len(correct) else 0.0


LABEL_ERROR = "label-error"


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedLabel:
    """Entry of the label ranking; predicted values are None without a prediction."""

    rank: int  # rank from 1, the lowest label quality
    position: int  # index of the image in the check
    label: str  # the given label
    suggested_label: str | None = None  # the class that the networks suggest
    probability: float | None = None  # probability of the suggested label
    label_probability: float | None = None  # probability of the given label
    # `label_probability` divided by its mean over the class
    label_quality: float | None = None
    suspected: bool = False  # whether the image is listed as a label error


@dataclass(frozen=True, kw_only=True)
class LabelErrors:
    """Result of a label check by cross-validation."""

    # probabilities and labels, in the order of the checked images
    analysis: ConfidentLearning = field(repr=False)
    names: tuple[str, ...] = field(repr=False)  # class names by index
    model: str  # name of the network
    method: str  # description of the classifiers, for texts
    reason: str = ""  # why small networks were trained instead of a pretrained network
    folds: int  # number of cross-validation folds
    epochs: int  # training epochs of each network; 0 for logistic regression
    seconds: float  # duration in seconds

    @property
    def unchecked(self) -> int:
        """Return the number of images without a prediction."""
        return int((~self.analysis.has_prediction).sum())

    def labels_of(self, position: int) -> tuple[str, str, float]:
        """Return the label, the suggested label and the suggestion's probability."""
        label = int(self.analysis.labels[position])
        suggested = int(self.analysis.suggested[position])
        prob = float(self.analysis.probs[position, suggested])
        return self.names[label], self.names[suggested], prob

    def ranking(self) -> Iterator[RankedLabel]:
        """Yield every image by ascending label quality, unchecked images last."""
        analysis = self.analysis
        suspected_set = set(analysis.suspected.tolist())
        for rank, i in enumerate(analysis.ranking_order.tolist(), start=1):
            label, suggested, prob = self.labels_of(i)
            row = RankedLabel(rank=rank, position=i, label=label)
            if analysis.has_prediction[i]:
                row = replace(
                    row,
                    suggested_label=suggested,
                    probability=round(prob, 4),
                    label_probability=round(float(analysis.self_confidence[i]), 4),
                    label_quality=round(float(analysis.label_quality[i]), 4),
                    suspected=i in suspected_set,
                )
            yield row


def label_error_findings(label_errors: LabelErrors) -> list[Finding]:
    """Return findings about suspected label errors and unchecked labels."""
    return [f for f in (_suspected(label_errors), _unchecked(label_errors)) if f]


def _suspected(label_errors: LabelErrors) -> Finding | None:
    suspected = label_errors.analysis.suspected.tolist()
    count = int(label_errors.analysis.has_prediction.sum())
    if not count:
        return None
    agreement = f"{label_errors.analysis.agreement:.1%}".replace("%", "\u00a0%")
    classifiers = "networks" if label_errors.epochs else "classifiers"
    method = (
        f"{label_errors.folds} {classifiers} predicted images that they were not "
        f"trained on, and agree with {agreement} of the labels"
    )
    if not suspected:
        what = f"no label errors suspected in {count_text(count, 'label')}"
        why = f"{method}. {_method_text(label_errors)}"
        return Finding(kind=LABEL_ERROR, tone="note", what=what, why=why)
    estimate = round(label_errors.analysis.estimate)
    groups = []
    for i in suspected:
        label, suggested, prob = label_errors.labels_of(i)
        share = min(max(round(100 * prob), 1), 99)  # in percent
        note = f"label {label}, predicted {suggested}, {share}\u00a0%"
        groups.append(ImageGroup(members=(i,), note=note))
    return Finding(
        kind=LABEL_ERROR,
        tone="warning",
        what=f"{count_text(len(suspected), 'suspected label error')} in "
        f"{count_text(count, 'label')}; estimated total: {estimate:,}",
        why=f"{method}. For these images they predict another class. Some of these "
        "labels are wrong; others belong to rare or difficult images. If classes look "
        f"similar, the estimate is too high. {_method_text(label_errors)}",
        fix="look at each image, and correct the label if it is wrong",
        groups=tuple(groups),
    )


def _method_text(label_errors: LabelErrors) -> str:
    """Return a sentence on the classifiers, and why they are not better ones."""
    because = f", because {label_errors.reason}" if label_errors.reason else ""
    return f"Used: {label_errors.method}{because}."


def _unchecked(label_errors: LabelErrors) -> Finding | None:
    positions = (~label_errors.analysis.has_prediction).nonzero()[0].tolist()
    if not positions:
        return None
    return Finding(
        kind="unchecked-labels",
        tone="note",
        what=f"{count_text(len(positions), 'label')} could not be checked",
        why="Labels are checked by cross-validation, and no other fold has an image of "
        "the same class: it has too few images, or all are duplicates or in one group.",
        groups=tuple(ImageGroup(members=(i,)) for i in positions),
    )
