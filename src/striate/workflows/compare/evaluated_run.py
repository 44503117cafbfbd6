"""Runs in a comparison: predictions, and a key that identifies each image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from striate.audit.meta_device import init_empty_weights
from striate.audit.network import audit
from striate.core.class_names import ClassNames
from striate.core.errors import RunError, SettingError, StriateError
from striate.core.files import hash_rows
from striate.core.format import count_text
from striate.data.sources.source import UNUSED
from striate.data.split.split_file import read_split_rows
from striate.metrics.classification import ClassificationMetrics
from striate.metrics.multi_label import MultiLabelMetrics
from striate.run import layout as names
from striate.run.check_run_files import check_history
from striate.run.multi_label_predictions import MultiLabelPredictions
from striate.run.predictions import Predictions
from striate.run.run import Run

ImageKey = tuple[str, str, int]  # content, label, and number among its copies
SPLITS = ("test", "val")
MAX_LISTED = 5
_SPLIT_COLUMNS = ("image_path", "label", "split", "content")


@dataclass(frozen=True, kw_only=True, eq=False)
class EvaluatedRun:
    """A finished run with its predictions for one split."""

    run: Run  # the run folder
    split: str  # `test` or `val`
    # predictions, with the classes in the order of the first run
    predictions: Predictions = field(repr=False)
    # key that identifies each image, independent of the image path
    keys: tuple[ImageKey, ...] = field(repr=False)
    split_counts: dict[str, int]  # number of images of each split
    # hash of all usable images and their labels, independent of the split
    data_hash: str

    @property
    def name(self) -> str:
        """Return the name of the run folder."""
        return self.run.path.name

    @property
    def seed(self) -> int:
        """Return the random seed of the training."""
        return self.run.recipe.seed

    @property
    def input_area(self) -> int:
        """Return the number of pixels of a network input."""
        return self.run.preprocess.height * self.run.preprocess.width

    @property
    def manifest(self) -> dict[str, Any]:
        """Return the manifest of the run."""
        return self.run.manifest

    @cached_property
    def score(self) -> ClassificationMetrics | MultiLabelMetrics:
        """Return the metrics over all images of the split."""
        return self.predictions.metrics()

    @cached_property
    def correct(self) -> np.ndarray:
        """Return whether each prediction is correct, (N,) bool."""
        return self.predictions.correct

    @cached_property
    def macs(self) -> int | None:
        """Return the MACs (multiply-adds) per image; None if unknown."""
        try:
            with init_empty_weights():
                model = self.run.fresh_model()
            return audit(model, self.run.preprocess.spec.shape).macs
        except StriateError:  # given as an object, or written by a later version
            return None


def evaluated_runs(
    runs: Sequence[Run | str | Path], split: str | None
) -> list[EvaluatedRun]:
    """Open runs and read their predictions for one split.

    Raises:
        SettingError: Fewer than two runs are given, or a run is given twice.
        RunError: A run is missing or unfinished, or the runs have different classes.
    """
    if len(runs) < 2:
        fix = "give at least two run folders"
        raise SettingError(f"compare needs at least two runs, got {len(runs)}", fix=fix)
    opened = [run if isinstance(run, Run) else Run(run) for run in runs]
    count = Counter(run.path.resolve() for run in opened)
    for run in opened:
        if count[run.path.resolve()] > 1:
            what, fix = "a run is given twice", "give each run only once"
            raise SettingError(what, where=run.path, fix=fix)
    common_split = _common_split(opened, split)
    _check_classes(opened)
    labels = opened[0].labels
    return [_evaluated_run(run, common_split, labels) for run in opened]


def _common_split(runs: Sequence[Run], split: str | None) -> str:
    """Return the requested split, or by default a split that all runs evaluated."""
    lacking = {
        name: [r for r in runs if not (r.path / names.predictions_file(name)).is_file()]
        for name in SPLITS
    }
    for name in (split,) if split else SPLITS:
        if not lacking[name]:
            return name
    name = split or min(SPLITS, key=lambda name: len(lacking[name]))
    missing = lacking[name]
    count = f"{len(missing)} of {count_text(len(runs), 'run')}"
    what = f"{count} have no predictions for the {name} split:"
    lines = [what, *(f"  {run.path}: {_reason(run)}" for run in missing[:MAX_LISTED])]
    if len(missing) > MAX_LISTED:
        lines.append(f"  … and {len(missing) - MAX_LISTED} more")
    fix = "remove these runs, or finish their training"
    raise RunError("\n".join(lines), fix=fix)


def _reason(run: Run) -> str:
    status = run.manifest.get("status", "unknown")
    if status == "stopped":
        return f"training stopped ({run.manifest.get('reason', 'unknown reason')})"
    if status == "running":
        return "training is still running, or was killed"
    return "this split does not exist, or its predictions file was deleted"


def _check_classes(runs: Sequence[Run]) -> None:
    first = set(runs[0].labels.names)
    for run in runs[1:]:
        if run.labels.multi_label != runs[0].labels.multi_label:
            what = "one run has several labels per image, and another run has one class"
            fix = "compare runs with the same kind of labels"
            raise RunError(what, where=run.path, fix=fix)
        other = set(run.labels.names)
        if other != first:
            what = (
                f"the runs have different classes: {_few(first - other)} only in "
                f"{runs[0].path.name}, {_few(other - first)} only in {run.path.name}"
            )
            fix = "compare runs with the same classes"
            raise RunError(what, where=run.path, fix=fix)


def _few(classes: set[str]) -> str:
    listed = ", ".join(sorted(classes)[:MAX_LISTED]) or "none"
    return listed + (" …" if len(classes) > MAX_LISTED else "")


def _evaluated_run(run: Run, split: str, labels: ClassNames) -> EvaluatedRun:
    predictions = _in_order(run.predictions(split), labels)
    check_history(run)
    path = run.path / names.SPLIT
    rows = read_split_rows(path)
    if not rows or any(rows[0].get(name) is None for name in _SPLIT_COLUMNS):
        what = "split.csv has no rows, or a required column is missing"
        raise RunError(what, where=path, fix="restore the run folder from a backup")
    return EvaluatedRun(
        run=run,
        split=split,
        predictions=predictions,
        keys=_keys(predictions, rows, path),
        split_counts=Counter(r["split"] for r in rows if r["split"] != UNUSED),
        data_hash=hash_rows(sorted((row["content"], row["label"]) for row in rows)),
    )


def _in_order(predictions: Predictions, labels: ClassNames) -> Predictions:
    """Return predictions with the classes in the order of `labels`."""
    if predictions.labels == labels:
        return predictions
    columns = [predictions.labels.index(name) for name in labels.names]
    if isinstance(predictions, MultiLabelPredictions):
        return predictions.with_classes(columns, labels)
    return replace(
        predictions,
        truth=np.argsort(columns)[predictions.truth],
        probs=predictions.probs[:, columns],
        labels=labels,
    )


def _keys(
    predictions: Predictions, rows: Sequence[dict[str, str]], path: Path
) -> tuple[ImageKey, ...]:
    """Return a key for each image: content hash, label, and index among duplicates.

    Copies give a network the same input, so it does not matter which copy of one run is
    paired with which of another.
    """
    contents = {row["image_path"]: row["content"] for row in rows}
    copies: Counter[tuple[str, str]] = Counter()
    keys = []
    for i, image_path in enumerate(predictions.paths):
        if image_path not in contents:
            what = f"an evaluated image is not in split.csv: {image_path}"
            raise RunError(what, where=path, fix="restore the run folder from a backup")
        same = contents[image_path], predictions.true_label(i)
        keys.append((*same, copies[same]))
        copies[same] += 1
    return tuple(keys)
