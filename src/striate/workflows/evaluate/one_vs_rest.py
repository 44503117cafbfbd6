"""A part of the images as a question about one class sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from striate.core.errors import DataError, SettingError
from striate.core.registry import unknown_name_error
from striate.data.cache.pixel_rows import PixelRows
from striate.data.sources.source import Skipped
from striate.data.subset import Subset
from striate.metrics.temperature import apply_temperature, log_losses
from striate.run import layout as names
from striate.run.images import subset_pixels
from striate.run.predictions import WIDE, Predictions
from striate.run.run import Run

CHOOSING = "val"


@dataclass(frozen=True, kw_only=True)
class Answered:
    """A part, what was said about it, and how its images are had.

    Args:
        split: What to call it.
        predictions: What was said.
        table: The CSV that it comes from; None where it is from none.
        skipped: Files that could not be used.
        pixels: Returns the images, or None where they are gone.
    """

    split: str
    predictions: Predictions = field(repr=False)
    table: Path | None
    skipped: tuple[Skipped, ...] = ()
    pixels: Callable[[], PixelRows | None] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A part's images, asked whether they are of one class.

    Args:
        split: What to call it.
        paths: Where each image came from.
        positive: (N,) whether it is of the class.
        plain: (N,) the network's own probability of it.
        probs: (N,) the same after temperature scaling.
        all_plain: (N, classes) the network's own probabilities.
        all_odds: (N, classes) the same after.
        truth: (N,) class numbers.
    """

    split: str
    paths: Sequence[str] = field(repr=False)
    positive: np.ndarray = field(repr=False)
    plain: np.ndarray = field(repr=False)
    probs: np.ndarray = field(repr=False)
    all_plain: np.ndarray = field(repr=False)
    all_probs: np.ndarray = field(repr=False)
    truth: np.ndarray = field(repr=False)

    @property
    def count(self) -> int:
        """Return the images."""
        return len(self.truth)

    @property
    def positives(self) -> int:
        """Return the images of the class."""
        return int(self.positive.sum())

    @property
    def costs(self) -> tuple[np.ndarray, np.ndarray]:
        """Return each image's cross-entropy before and after, (N,) each."""
        return log_losses(self.all_plain, self.truth), log_losses(
            self.all_probs, self.truth
        )


def seen(split: str, said: Predictions, number: int, temperature: float) -> Seen:
    """Return a part as a question about class `number` sees it."""
    plain = said.probs.astype(float)
    probs = apply_temperature(plain, temperature)
    return Seen(
        split=split,
        paths=said.paths,
        positive=said.truth == number,
        plain=plain[:, number],
        probs=probs[:, number],
        all_plain=plain,
        all_probs=probs,
        truth=said.truth,
    )


def class_number(run: Run, target: str) -> int:
    """Return a class's place in the network's output.

    Raises:
        UnknownNameError: There is no such class; lists the nearest.
    """
    if target not in run.labels.names:
        raise unknown_name_error("class", target, run.labels.names)
    return run.labels.index(target)


def validation(run: Run) -> Predictions:
    """Return what was said about the part that chooses.

    Raises:
        DataError: The run has none.
    """
    if _kept(run, CHOOSING):
        return run.predictions(CHOOSING)
    if CHOOSING not in run.data.subsets:
        what = (
            "the run has no validation split, and nothing else may choose a threshold"
        )
        fix = "train again with one: --val-fraction 0.15, or rows of 'val' in the CSV"
        raise DataError(what, where=run.path, fix=fix)
    return run.judge(run.data.subset(CHOOSING))


def judged(run: Run, data: str | None, split: str | None) -> Answered:
    """Return the part that is judged: the run's test split, or other images.

    Raises:
        SettingError: It is one that was learned from or that chooses.
        DataError: There is no test split.
    """
    if data is not None and not _is_own(run, data):
        return _others(run, data, split)
    if split not in (None, "test"):
        used = "chooses the threshold" if split == CHOOSING else "was learned from"
        what = f"the {split} split {used}, so it cannot judge"
        raise SettingError(what, where="--part", fix="judge test, or other --data")
    kept = _kept(run, "test")
    if not kept and "test" not in run.data.subsets:
        what = "the run has no test split to judge"
        fix = "give other labeled images: --data DATA"
        raise DataError(what, where=run.path, fix=fix)
    said = run.predictions("test") if kept else run.judge(run.data.subset("test"))
    return Answered(
        split="test",
        predictions=said,
        table=_table(run.origin),
        pixels=lambda: subset_pixels(run, "test", said.paths),
    )


def _kept(run: Run, split: str) -> bool:
    """Say whether the run kept every probability of a part."""
    path = run.path / names.predictions_file(split)
    return path.is_file() and len(run.labels) <= WIDE


def _is_own(run: Run, data: str) -> bool:
    own = run.origin
    return data == own or (bool(own) and Path(data).resolve() == Path(own))


def _others(run: Run, data: str, split: str | None) -> Answered:
    found, name, skipped = run.subset_for(data, split)
    return Answered(
        split=name if split is None else f"{split} of {data}",
        predictions=run.judge(found),
        table=_table(data),
        skipped=skipped,
        pixels=lambda: _pixels(found),
    )


def _pixels(subset: Subset) -> PixelRows:
    return subset.pixels


def _table(data: str) -> Path | None:
    path = Path(data)
    return path if path.suffix.lower() == ".csv" and path.is_file() else None
