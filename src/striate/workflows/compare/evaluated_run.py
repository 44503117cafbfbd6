"""A run as a party to a comparison: its answers, and which images they are about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from striate.audit.meta_mode import init_empty_weights
from striate.audit.network import audit
from striate.core.class_names import ClassNames
from striate.core.errors import RunError, SettingError, StriateError
from striate.core.files import hash_rows, read_csv
from striate.data.split.split_file import SPARE
from striate.metrics.classification import ClassificationMetrics
from striate.run import layout as names
from striate.run.integrity import check_history
from striate.run.predictions import Predictions
from striate.run.run import Run

Key = tuple[str, str, int]  # content, label, and which of its copies
SPLITS = ("test", "val")
LISTED = 5
_FACTS = ("path", "label", "split", "content")


@dataclass(frozen=True, kw_only=True, eq=False)
class Contender:
    """A finished run, and what it said about every image of a part.

    Args:
        run: The run folder.
        split: `test` or `val`.
        predictions: Its answers, classes in the order of the first contender's.
        keys: What identifies each answered image, whatever its path.
        splits: Images of each part.
        data: One hash over all usable images and their labels, however split.
    """

    run: Run
    split: str
    predictions: Predictions = field(repr=False)
    keys: tuple[Key, ...] = field(repr=False)
    splits: dict[str, int]
    data: str

    @property
    def name(self) -> str:
        """Return the folder's name."""
        return self.run.path.name

    @property
    def seed(self) -> int:
        """Return the seed it was trained with."""
        return self.run.recipe.seed

    @property
    def facts(self) -> dict[str, Any]:
        """Return what the manifest says."""
        return self.run.manifest

    @cached_property
    def score(self) -> ClassificationMetrics:
        """Return the figures of merit over all its images."""
        return self.predictions.score()

    @cached_property
    def right(self) -> np.ndarray:
        """Return which answers are right, (N,) bool."""
        found: np.ndarray = self.predictions.predicted == self.predictions.truth
        return found

    @cached_property
    def macs(self) -> int | None:
        """Return the network's multiply-adds for an image, None where unknown."""
        try:
            with init_empty_weights():
                model = self.run.fresh_model()
            return audit(model, self.run.preprocess.spec.shape).macs
        except StriateError:  # handed in as an object, or of a later version
            return None


def contenders(given: Sequence[Run | str | Path], split: str | None) -> list[Contender]:
    """Open runs and read what they said about one part.

    Args:
        given: Runs, folders, or names below `runs/train`.
        split: `test` or `val`; the test split where all judged it, else validation.

    Raises:
        SettingError: Fewer than two runs, or one of them twice.
        RunError: A run is missing or unfinished, or their classes differ.
    """
    if len(given) < 2:
        fix = "name two or more run folders"
        raise SettingError(f"to compare takes two runs, got {len(given)}", fix=fix)
    runs = [one if isinstance(one, Run) else Run(one) for one in given]
    _refuse_twins(runs)
    chosen = _split_of(runs, split)
    _check_classes(runs)
    labels = runs[0].labels
    return [_contender(run, chosen, labels) for run in runs]


def _refuse_twins(runs: Sequence[Run]) -> None:
    count = Counter(run.path.resolve() for run in runs)
    twice = [str(run.path) for run in runs if count[run.path.resolve()] > 1]
    if twice:
        raise SettingError("a run is given twice", where=twice[0], fix="name it once")


def _split_of(runs: Sequence[Run], split: str | None) -> str:
    """Return the part that all runs were judged on."""
    lacking = {name: [r for r in runs if not _judged(r, name)] for name in SPLITS}
    for name in (split,) if split else SPLITS:
        if not lacking[name]:
            return name
    wanted = split or min(SPLITS, key=lambda name: len(lacking[name]))
    silent = lacking[wanted]
    told = "".join(f"\n  {run.path}: {_why(run)}" for run in silent[:LISTED])
    rest = len(silent) - LISTED
    more = f"\n  … and {rest} more" if rest > 0 else ""
    what = f"{len(silent)} of {len(runs)} runs have no answers about a {wanted} split:"
    fix = "leave them out, or train them to the end"
    raise RunError(f"{what}{told}{more}", fix=fix)


def _judged(run: Run, split: str) -> bool:
    return (run.path / names.predictions_file(split)).is_file()


def _why(run: Run) -> str:
    status = run.manifest.get("status", "unknown")
    if status == "stopped":
        return f"it stopped ({run.manifest.get('reason', 'no reason is known')})"
    if status == "running":
        return "it is still running, or was killed"
    return "it has no such split, or the file is gone"


def _check_classes(runs: Sequence[Run]) -> None:
    first = set(runs[0].labels.names)
    for run in runs[1:]:
        other = set(run.labels.names)
        if other != first:
            what = (
                f"the runs know different classes: {_few(first - other)} only in "
                f"{runs[0].path.name}, {_few(other - first)} only in {run.path.name}"
            )
            fix = "compare runs that answer the same question"
            raise RunError(what, where=run.path, fix=fix)


def _few(classes: set[str]) -> str:
    listed = ", ".join(sorted(classes)[:LISTED]) or "none"
    return listed + (" …" if len(classes) > LISTED else "")


def _contender(run: Run, split: str, labels: ClassNames) -> Contender:
    predictions = _in_order(run.predictions(split), labels)
    check_history(run)
    path = run.path / names.SPLIT
    rows = read_csv(path)
    if not rows or any(rows[0].get(fact) is None for fact in _FACTS):
        raise RunError("split.csv lists no images with their content", where=path)
    return Contender(
        run=run,
        split=split,
        predictions=predictions,
        keys=_keys(predictions, rows, path),
        splits=dict(Counter(row["split"] for row in rows if row["split"] != SPARE)),
        data=hash_rows(sorted((row["content"], row["label"]) for row in rows)),
    )


def _in_order(predictions: Predictions, labels: ClassNames) -> Predictions:
    """Bring the classes into another order of the same names."""
    if predictions.labels == labels:
        return predictions
    columns = [predictions.labels.index(name) for name in labels.names]
    return replace(
        predictions,
        truth=np.argsort(columns)[predictions.truth],
        probs=predictions.probs[:, columns],
        labels=labels,
    )


def _keys(
    predictions: Predictions, rows: Sequence[dict[str, str]], path: Path
) -> tuple[Key, ...]:
    """Identify each image by content and label; copies are told apart by order.

    Two copies show a network the same numbers, so it does not matter which copy of one
    run is paired with which of another.
    """
    contents = {row["path"]: row["content"] for row in rows}
    copies: Counter[tuple[str, str]] = Counter()
    keys = []
    for where, true in zip(predictions.paths, predictions.truth, strict=True):
        if where not in contents:
            what = f"a judged image is not in the split: {where}"
            raise RunError(what, where=path, fix="restore the run from a copy")
        same = contents[where], predictions.labels[int(true)]
        keys.append((*same, copies[same]))
        copies[same] += 1
    return tuple(keys)
