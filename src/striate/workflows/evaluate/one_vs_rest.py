"""Labels and probabilities of a split, for one class against all others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from striate.core.errors import DataError, SettingError
from striate.core.registry import unknown_name_error
from striate.data.cache.image_rows import PixelRows, display_rows
from striate.data.sources.source import Skipped
from striate.metrics.temperature import apply_temperature, log_losses
from striate.run import layout as names
from striate.run.predictions import MAX_PROBABILITY_COLUMNS, Predictions
from striate.run.report_images import subset_pixels
from striate.run.run import Run


@dataclass(frozen=True, kw_only=True)
class EvaluatedSplit:
    """An evaluated split: predictions, images, and the CSV that lists the images."""

    split: str  # name of the split
    predictions: Predictions = field(repr=False)  # the model's predictions
    csv: Path | None  # the CSV that lists the images; None if there is none
    skipped: tuple[Skipped, ...] = ()  # files that could not be used
    # function that returns the images; None if no image can be read
    pixels: Callable[[], PixelRows | None] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class OneVsRest:
    """A split as a binary classification problem: one class against all others."""

    split: str  # name of the split
    paths: Sequence[str] = field(repr=False)  # path of each image
    # (N,) whether the image belongs to the class
    positive: np.ndarray = field(repr=False)
    # (N,) probability of the class before temperature scaling
    uncalibrated: np.ndarray = field(repr=False)
    # (N,) probability of the class after temperature scaling
    probs: np.ndarray = field(repr=False)
    # (N, classes) probabilities before temperature scaling
    all_uncalibrated: np.ndarray = field(repr=False)
    # (N, classes) probabilities after temperature scaling
    all_probs: np.ndarray = field(repr=False)
    truth: np.ndarray = field(repr=False)  # (N,) index of the true class

    @property
    def count(self) -> int:
        """Return the number of images."""
        return len(self.truth)

    @property
    def positives(self) -> int:
        """Return the number of positive images, which belong to the class."""
        return int(self.positive.sum())

    @property
    def log_losses(self) -> tuple[np.ndarray, np.ndarray]:
        """Return cross-entropies before and after temperature scaling, (N,) each."""
        before = log_losses(self.all_uncalibrated, self.truth)
        return before, log_losses(self.all_probs, self.truth)


def one_vs_rest(
    split: str, predictions: Predictions, class_index: int, temperature: float
) -> OneVsRest:
    """Return a split as a binary problem, with and without temperature scaling.

    `predictions` are scaled with `temperature`, as all predictions of a run.
    """
    probs = predictions.probs.astype(float)
    uncalibrated = probs
    if temperature != 1:
        uncalibrated = apply_temperature(probs, 1 / temperature)
    return OneVsRest(
        split=split,
        paths=predictions.paths,
        positive=predictions.truth == class_index,
        uncalibrated=uncalibrated[:, class_index],
        probs=probs[:, class_index],
        all_uncalibrated=uncalibrated,
        all_probs=probs,
        truth=predictions.truth,
    )


def class_index_of(run: Run, target: str) -> int:
    """Return the output index of a class.

    Raises:
        UnknownNameError: The class does not exist; the message lists similar names.
    """
    if target not in run.labels.names:
        raise unknown_name_error("class", target, run.labels.names)
    return run.labels.index(target)


def validation_predictions(run: Run) -> Predictions:
    """Return the predictions of the validation split.

    Raises:
        DataError: The run has no validation split.
    """
    if _has_all_probs(run, "val"):
        return run.predictions("val")
    if "val" not in run.data.subsets:
        what = "the run has no validation split, which is needed to choose a threshold"
        fix = "train again with --val-fraction 0.15, or with split 'val' in the CSV"
        raise DataError(what, where=run.path, fix=fix)
    return run.predict_subset(run.data.subset("val"))


def split_to_evaluate(run: Run, data: str | None, split: str | None) -> EvaluatedSplit:
    """Return the split to evaluate: the test split of the run, or other images.

    Raises:
        SettingError: The split was used for training or for choosing the threshold.
        DataError: There is no test split.
    """
    own = run.origin
    if data not in (None, own) and not (own and Path(data).resolve() == Path(own)):
        return _other_images(run, data, split)
    if split not in (None, "test"):
        use = "for choosing the threshold" if split == "val" else "for training"
        too_good = "results on this split would be too good"
        what = f"the {split} split was used {use}: {too_good}"
        fix = "use --split test, or other images with --data"
        raise SettingError(what, where="--split", fix=fix)
    saved = _has_all_probs(run, "test")
    if not saved and "test" not in run.data.subsets:
        what = "the run has no test split to evaluate"
        fix = "give other labeled images: --data DATA"
        raise DataError(what, where=run.path, fix=fix)
    if saved:
        predictions = run.predictions("test")
    else:
        predictions = run.predict_subset(run.data.subset("test"))
    return EvaluatedSplit(
        split="test",
        predictions=predictions,
        csv=_csv(run.origin),
        pixels=lambda: subset_pixels(run, "test", predictions.paths),
    )


def _has_all_probs(run: Run, split: str) -> bool:
    """Return whether the saved predictions have the probabilities of all classes."""
    path = run.path / names.predictions_file(split)
    return path.is_file() and len(run.labels) <= MAX_PROBABILITY_COLUMNS


def _other_images(run: Run, data: str, split: str | None) -> EvaluatedSplit:
    subset, name, skipped = run.subset_for(data, split)
    return EvaluatedSplit(
        split=name if split is None else f"{split} of {data}",
        predictions=run.predict_subset(subset),
        csv=_csv(data),
        skipped=skipped,
        pixels=lambda: display_rows(subset.pixels, run.preprocess),
    )


def _csv(data: str) -> Path | None:
    path = Path(data)
    return path if path.suffix.lower() == ".csv" and path.is_file() else None
