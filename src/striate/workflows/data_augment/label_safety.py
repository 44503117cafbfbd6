"""Label safety: per-class accuracy of a trained network on transformed images.

Augmentation assumes that a transformed image keeps the label of the original. If the
label changes (a mirrored 2, a 6 turned upside down), the network learns an error. The
errors of a trained network on new images show such cases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from striate.core import device as devices
from striate.data.augment.augment import Augment
from striate.data.augment.pipeline import augment_batch
from striate.data.augment.single_transform import (
    SingleTransform,
    random_signs,
    range_ends,
    single_params,
)
from striate.data.subset import Subset
from striate.engine.evaluate import evaluate
from striate.metrics.classification import confusion_matrix
from striate.metrics.intervals import wilson_interval
from striate.metrics.significance import holm_correction, sign_test
from striate.run.evaluation_batch_size import evaluation_batch_size
from striate.run.run import Run

# Amounts at which each transform is measured, besides the end of its range.
AMOUNTS: dict[str, tuple[float, ...]] = {
    "rotate": (5, 10, 15, 20, 30, 45, 90, 180),
    "shear": (5, 10, 20, 30, 45),
    "warp": (0.02, 0.05, 0.08, 0.12),
    "crop": (0.1, 0.2, 0.3, 0.5),
    "color": (0.05, 0.1, 0.2, 0.3, 0.5),
    "scale": (0.1, 0.25, 0.5, 1.0),
    "shift": (0.05, 0.1, 0.2, 0.3),
}
ALPHA = 0.05  # probability of any false alarm over all classes and transforms
MIN_LOSS = 0.05  # a smaller loss gives no warning, even if significant
# A class is mistaken for another if most of its new errors are predicted as that one,
# and the remaining classes are predicted as it at most a quarter as often. Without the
# second condition, a class that the network predicts for any unusual image would count.
MIN_SHARE, MAX_OTHER_SHARE = 0.5, 0.25


def _is_mistaken(share: float, other_share: float) -> bool:
    return share > MIN_SHARE and other_share <= MAX_OTHER_SHARE * share


@dataclass(frozen=True, kw_only=True)
class TransformedAccuracy:
    """Predictions for images with one transform, compared with the original images."""

    transform: SingleTransform  # the transform and its amount
    # (classes, classes) confusion matrix, rows: true class
    counts: np.ndarray = field(repr=False)
    # (classes,) number of images that the transform makes wrong
    lost: np.ndarray = field(repr=False)
    # (classes,) number of images that the transform makes correct
    gained: np.ndarray = field(repr=False)
    # (classes, classes) confusion matrix of the lost images
    lost_counts: np.ndarray = field(repr=False)

    @property
    def correct(self) -> np.ndarray:
        """Return the number of correct predictions of each class, (classes,)."""
        return self.counts.diagonal()

    @property
    def accuracy(self) -> float:
        """Return the accuracy over all images."""
        return float(self.correct.sum() / self.counts.sum())

    def errors(self, k: int) -> tuple[int, float, float]:
        """Return the most frequent wrong prediction for class k, and its frequency.

        Returns:
            The predicted class, the share of class k predicted as it, and the share of
            the remaining classes predicted as it.
        """
        wrong = self.counts[k].copy()
        wrong[k] = 0
        other = int(wrong.argmax())
        rest = np.ones(len(wrong), bool)
        rest[[k, other]] = False
        images = max(int(self.counts[rest].sum()), 1)
        other_share = float(self.counts[rest, other].sum() / images)
        share = float(wrong[other] / max(int(self.counts[k].sum()), 1))
        return other, share, other_share

    def mistaken_for(self, k: int) -> tuple[int, float] | None:
        """Return the class that class k is mistaken for, and the share of images."""
        other, predicted_share, other_share = self.errors(k)
        mistaken = _is_mistaken(predicted_share, other_share)
        return (other, predicted_share) if mistaken else None


@dataclass(frozen=True, kw_only=True)
class UnsafeLabel:
    """A class that loses accuracy significantly at the maximum of a transform range."""

    transform: SingleTransform  # the transform and its amount
    label: str  # the class
    before: float  # accuracy of the class on original images
    after: float  # accuracy of the class on transformed images
    interval: tuple[float, float]  # Wilson's 95 % interval of `after`
    count: int  # number of images of the class
    p_value: float  # p-value of McNemar's exact test, Holm-corrected
    predicted: str  # most frequent prediction for the images that become wrong
    predicted_share: float  # share of these images with that prediction
    other_share: float  # share of the remaining classes' images with that prediction

    @property
    def mistaken(self) -> bool:
        """Return whether the transform makes the class look like one other class."""
        return _is_mistaken(self.predicted_share, self.other_share)


@dataclass(frozen=True, kw_only=True)
class LabelSafety:
    """Accuracy by transform amount and class, on images not used for training."""

    split: str  # split that was evaluated
    labels: tuple[str, ...]  # class names
    # results by transform name, for increasing amounts from 0
    curves: dict[str, tuple[TransformedAccuracy, ...]] = field(repr=False)
    ends: dict[str, float]  # end of the requested range, by transform name
    # classes with a significant loss of accuracy, the largest loss first
    unsafe: tuple[UnsafeLabel, ...]

    @property
    def images(self) -> int:
        """Return the number of evaluated images."""
        first = next(iter(self.curves.values()))[0]
        return int(first.counts.sum())


def measure_label_safety(
    run: Run,
    augment: Augment,
    tick: Callable[[int, int], None] = lambda count, total: None,
) -> LabelSafety:
    """Evaluate the network of a run on images transformed by increasing amounts.

    Every transform is measured alone, in random directions, on the validation split:
    the test split is only for the final evaluation.
    """
    images = run.data.subset("val")
    ends = range_ends(augment)
    transforms = [
        SingleTransform(end.name, amount)
        for end in ends
        for amount in sorted({0.0, *AMOUNTS.get(end.name, ()), end.amount})
    ]
    total = 1 + sum(transform.amount != 0 for transform in transforms)
    baseline = _predictions(run, images, SingleTransform("rotate", 0.0), augment.border)
    done = 1
    tick(done, total)
    points: dict[str, list[TransformedAccuracy]] = {}
    for transform in transforms:
        predictions = baseline
        if transform.amount:
            predictions = _predictions(run, images, transform, augment.border)
            done += 1
            tick(done, total)
        point = _transformed_accuracy(run, images, transform, baseline, predictions)
        points.setdefault(transform.name, []).append(point)
    curves = {name: tuple(curve) for name, curve in points.items()}
    unsafe = unsafe_labels(curves, ends, run.labels.names)
    return LabelSafety(
        split="val",
        labels=run.labels.names,
        curves=curves,
        ends={range_end.name: range_end.amount for range_end in ends},
        unsafe=unsafe,
    )


def _predictions(
    run: Run, subset: Subset, transform: SingleTransform, border: str
) -> np.ndarray:
    device = devices.select_device(run.recipe.device)
    model = run.model.to(device)
    batches = _batches(run, subset, transform, border, device)
    return np.asarray(evaluate(model, batches).logits.argmax(1).numpy())


def _batches(
    run: Run,
    subset: Subset,
    transform: SingleTransform,
    border: str,
    device: torch.device,
) -> Iterator[tuple[Tensor, Tensor]]:
    augment = transform.augment(border)
    signs = random_signs(len(subset), transform, run.recipe.seed)
    size = evaluation_batch_size(run.preprocess.height, run.preprocess.width)
    for index in torch.split(torch.arange(len(subset)), size):
        params = single_params(transform, run.preprocess.spec, signs[index])
        pixels = subset.gather(index).to(device)
        x = augment_batch(pixels, params, run.preprocess, augment)
        yield x, subset.labels[index]


def _transformed_accuracy(
    run: Run,
    subset: Subset,
    transform: SingleTransform,
    baseline: np.ndarray,
    predictions: np.ndarray,
) -> TransformedAccuracy:
    truth, size = subset.labels.numpy(), len(run.labels)
    before, after = baseline == truth, predictions == truth
    lost = before & ~after
    return TransformedAccuracy(
        transform=transform,
        counts=confusion_matrix(truth, predictions, size),
        lost=np.bincount(truth[lost], minlength=size),
        gained=np.bincount(truth[~before & after], minlength=size),
        lost_counts=confusion_matrix(truth[lost], predictions[lost], size),
    )


def unsafe_labels(
    curves: dict[str, tuple[TransformedAccuracy, ...]],
    ends: Iterable[SingleTransform],
    labels: Sequence[str],
) -> tuple[UnsafeLabel, ...]:
    """Return classes with a significant drop in accuracy (McNemar's test with Holm)."""
    cases = [
        (point, k)
        for range_end in ends
        for point in curves[range_end.name]
        if point.transform == range_end
        for k in range(len(labels))
        if point.counts[k].sum()
    ]
    p_values = [sign_test(int(p.lost[k]), int(p.gained[k])) for p, k in cases]
    unsafe = [
        _unsafe_label(point, k, p_value, labels)
        for (point, k), p_value in zip(cases, holm_correction(p_values), strict=True)
        if p_value < ALPHA
        and (point.lost[k] - point.gained[k]) >= MIN_LOSS * point.counts[k].sum()
    ]
    return tuple(sorted(unsafe, key=lambda d: d.after - d.before))


def _unsafe_label(
    point: TransformedAccuracy, k: int, p_value: float, labels: Sequence[str]
) -> UnsafeLabel:
    count, correct = int(point.counts[k].sum()), int(point.correct[k])
    predicted, _, other_share = point.errors(k)
    return UnsafeLabel(
        transform=point.transform,
        label=labels[k],
        before=(correct + int(point.lost[k]) - int(point.gained[k])) / count,
        after=correct / count,
        interval=wilson_interval(correct, count),
        count=count,
        p_value=p_value,
        predicted=labels[predicted],
        predicted_share=float(point.lost_counts[k][predicted] / point.lost[k]),
        other_share=other_share,
    )
