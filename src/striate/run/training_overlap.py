"""Evaluated images that the network was trained on: their accuracy says nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from striate.core.format import count_text
from striate.data.split.split_file import read_split_rows
from striate.data.subset import Subset
from striate.report.format import percent
from striate.run import layout as names
from striate.run.predictions import Predictions
from striate.run.run import Run


@dataclass(frozen=True, kw_only=True)
class TrainingOverlap:
    """Accuracy on images with and without a copy in the training split."""

    trained_count: int  # number of images that were training images
    trained_accuracy: float
    other_count: int  # number of other images
    other_accuracy: float | None  # None without other images

    @property
    def sentence(self) -> str:
        """Return one sentence on the two accuracies, as a warning."""
        images = count_text(self.trained_count, "image")
        text = (
            f"{images} of {self.trained_count + self.other_count:,} also in the "
            f"training split, with accuracy {percent(self.trained_accuracy)}, which "
            "says nothing about new images"
        )
        if self.other_accuracy is None:
            return text
        others = count_text(self.other_count, "other image")
        return f"{text}; accuracy on the {others}: {percent(self.other_accuracy)}"

    def as_dict(self) -> dict[str, Any]:
        """Return the counts and accuracies as a JSON-serializable dict."""
        return asdict(self)


def training_overlap(
    run: Run, subset: Subset, predictions: Predictions
) -> TrainingOverlap | None:
    """Compare images of another data set with the training images, by their pixels.

    Returns:
        The overlap, or None if no image was a training image, or if the training images
        are not known (a bundle).
    """
    if not (run.path / names.SPLIT).is_file():
        return None
    rows = read_split_rows(run.path / names.SPLIT)
    trained = {row["content"] for row in rows if row["split"] == "train"}
    is_trained = np.array([content in trained for content in subset.contents], bool)
    if not is_trained.any():
        return None
    correct = np.asarray(predictions.correct)
    other_count = int((~is_trained).sum())
    return TrainingOverlap(
        trained_count=int(is_trained.sum()),
        trained_accuracy=float(correct[is_trained].mean()),
        other_count=other_count,
        other_accuracy=float(correct[~is_trained].mean()) if other_count else None,
    )
