"""Images of a run for an optimization: for the calibration, and to test accuracy."""

from __future__ import annotations

import numpy as np
import torch

from striate.core.errors import DataError
from striate.core.seeds import permutation
from striate.data.subset import Subset
from striate.run.run import Run

CALIBRATION_IMAGES = 300


def calibration_images(run: Run) -> np.ndarray:
    """Return images of the training split, chosen by a fixed seed.

    Shapes:
        (N, h, w, C) uint8
    """
    subset = run.data.subset("train")
    order = permutation(len(subset), "calibration", run.path.name)
    return _pixels(subset, order[:CALIBRATION_IMAGES])


def labeled_images(run: Run, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images of the validation split in a fixed random order, and their labels.

    Shapes:
        (N, h, w, C) uint8, (N,) class indices or (N, classes) multi-hot
    """
    subset = validation_subset(run)
    order = permutation(len(subset), "optimize", run.path.name)[:count]
    return _pixels(subset, order), subset.labels[order.tolist()].numpy()


def validation_subset(run: Run) -> Subset:
    """Return the validation split.

    Raises:
        DataError: The run has none.
    """
    subset = run.data.subsets.get("val")
    if subset is None or not len(subset):
        what = "the run has no val split, on which accuracy would be compared"
        raise DataError(what, where=run.path, fix="train with a validation split")
    return subset


def _pixels(subset: Subset, order: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(subset.gather(torch.from_numpy(order)).numpy())
