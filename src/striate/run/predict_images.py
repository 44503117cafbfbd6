"""Prediction of classes for image files, preprocessed exactly as in training."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from striate.core.class_names import SEPARATOR, split_label
from striate.core.errors import DataError
from striate.core.files import refuse_existing, write_csv, write_json
from striate.core.findings import Cell, Column, Table
from striate.core.format import count_text
from striate.core.hooks import evaluation_mode
from striate.core.notebook import NotebookResult
from striate.core.preprocess_config import Preprocess
from striate.data.decode.file_bytes import UndecodableError, read_file
from striate.data.decode.preprocess import file_to_input, normalize
from striate.data.sources.folder import files_below
from striate.data.sources.source import Skipped
from striate.engine.tta import TTA, no_tta
from striate.report.format import NO_BREAK_SPACE, one_line, probability_text
from striate.report.terminal import blocks_text
from striate.run.evaluation_batch_size import evaluation_batch_size
from striate.run.multi_label_calibration import LabelCalibration
from striate.run.review_rule import ReviewRule

TOP = 5  # most probable classes shown for each image
MAX_PREDICTIONS = 40  # predictions shown in the terminal
NO_LABEL = "(none)"  # shown for an image without any predicted class


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Prediction for one image: class, and probability of every class by name."""

    image_path: str
    pred: str  # class with the highest probability
    probability: float  # probability of this class
    probs: dict[str, float]  # probability of every class, in the order of the outputs
    review: str = ""  # `needs review`, or empty
    decision: str = ""  # class by the operating point; empty without one

    def top(self, count: int = TOP) -> list[tuple[str, float]]:
        """Return the most probable classes with their probabilities."""
        pairs = sorted(self.probs.items(), key=lambda pair: -pair[1])
        return pairs[:count]

    def other_classes(self, count: int = TOP) -> str:
        """Return the most probable classes after the first, as text."""
        return ", ".join(class_text(*pair) for pair in self.top(count)[1:])


@dataclass(frozen=True, kw_only=True)
class PredictResult(NotebookResult):
    """Predictions, and skipped files with the reason why each could not be read."""

    predictions: tuple[Prediction, ...]
    skipped: tuple[Skipped, ...]
    rule: ReviewRule  # rule that marks predictions for a review
    temperature: float  # divisor of the logits

    @property
    def to_review(self) -> tuple[Prediction, ...]:
        """Return the predictions that need review, least confident first."""
        marked = [each for each in self.predictions if each.review]
        return tuple(sorted(marked, key=lambda each: each.probability))

    def as_dict(self) -> dict[str, Any]:
        """Return predictions and skipped files as a JSON-serializable dict."""
        return {
            "predictions": [
                {
                    "image_path": each.image_path,
                    "pred": each.pred,
                    "probability": each.probability,
                    **self._marks(each),
                    "probabilities": each.probs,
                }
                for each in self.predictions
            ],
            "skipped": [skipped_dict(skip) for skip in self.skipped],
            "temperature": self.temperature,
            **(self.rule.as_dict() if self.rule.is_active else {}),
        }

    def _marks(self, prediction: Prediction) -> dict[str, str]:
        """Return the values that exist only with a review rule."""
        marks = {}
        if self.rule.operating_point is not None:
            marks["decision"] = prediction.decision
        if self.rule.is_active:
            marks["review"] = prediction.review
        return marks

    def save(self, path: str | Path, overwrite: bool = False) -> None:
        """Write predictions as JSON if the file name ends in `.json`, else as CSV.

        Raises:
            RunError: The file already exists, and `overwrite` is off.
        """
        path = Path(path)
        refuse_existing(path, overwrite)
        if path.suffix.lower() == ".json":
            write_json(path, self.as_dict())
            return
        first = self.predictions[0]
        classes = [f"p_{name}" for name in first.probs]
        columns = ["image_path", "pred", "probability", *self._marks(first), *classes]
        write_csv(path, columns, map(self._csv_row, self.predictions))

    def _csv_row(self, each: Prediction) -> list[Any]:
        marks = self._marks(each).values()
        probs = each.probs.values()
        return [each.image_path, each.pred, each.probability, *marks, *probs]

    def table(self, top: int = TOP, most: int = MAX_PREDICTIONS) -> Table:
        """Return the table of the first predictions, with the most probable classes."""
        rows = tuple(self._row(each, top) for each in self.predictions[:most])
        marks = [Column(name) for name in self._marks(self.predictions[0])]
        others = min(top, len(self.predictions[0].probs)) > 1
        columns = (
            Column("image_path"),
            Column("pred"),
            Column("probability", "probability"),
            *marks,
            *([Column("other classes")] if others else []),
        )
        return Table(columns=columns, rows=rows, note="\n".join(self.notes(most)))

    def _row(self, each: Prediction, top: int) -> tuple[Cell, ...]:
        marks = self._marks(each).values()
        others = each.other_classes(top)
        return (each.image_path, each.pred, each.probability, *marks, others)

    def lines(self, top: int = TOP, most: int = MAX_PREDICTIONS) -> list[str]:
        """Return two lines for each of the first predictions, for narrow terminals."""
        lines = []
        for each in self.predictions[:most]:
            words = [f"{probability_text(each.probability):>7}", each.pred]
            if each.decision:
                words.append(f"decision (operating point): {each.decision}")
            if each.review:
                words.append(each.review)
            lines.append(one_line("  ".join([*words, each.image_path])))
            if others := each.other_classes(top):
                lines.append(f"         other: {others}")
        return [*lines, *self.notes(most)]

    def notes(self, most: int = MAX_PREDICTIONS) -> list[str]:
        """Return sentences on the review, and the number of predictions not shown."""
        notes = self.rule.sentences
        if self.rule.is_active:
            count = count_text(len(self.predictions), "image")
            notes.append(f"Marked for review: {len(self.to_review):,} of {count}.")
        rest = len(self.predictions) - most
        if rest > 0:
            notes.append(f"… and {rest:,} more; --out FILE.csv writes all.")
        return notes

    def __str__(self) -> str:
        lines = [blocks_text([self.table()])]
        lines += [f"not used: {s.path}: {s.reason} ({s.detail})" for s in self.skipped]
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class LabelSetsResult(PredictResult):
    """Predictions of several labels per image, and skipped files with reasons."""

    calibration: LabelCalibration  # scaling and threshold of each class

    def as_dict(self) -> dict[str, Any]:
        """Return predictions and skipped files as a JSON-serializable dict."""
        classes = self.calibration.classes.items()
        return {
            "predictions": [
                {
                    "image_path": each.image_path,
                    "pred": each.pred,
                    "labels": list(split_label(each.pred)),
                    "probabilities": each.probs,
                }
                for each in self.predictions
            ],
            "skipped": [skipped_dict(skip) for skip in self.skipped],
            "thresholds": {name: decision.threshold for name, decision in classes},
        }

    def table(self, top: int = TOP, most: int = MAX_PREDICTIONS) -> Table:
        """Return the table of the first predictions, with the most probable classes."""
        columns = Column("image_path"), Column("pred"), Column("most probable")
        rows = tuple(
            (each.image_path, each.pred or NO_LABEL, self._most_probable(each, top))
            for each in self.predictions[:most]
        )
        return Table(columns=columns, rows=rows, note="\n".join(self.notes(most)))

    def lines(self, top: int = TOP, most: int = MAX_PREDICTIONS) -> list[str]:
        """Return two lines for each of the first predictions, for narrow terminals."""
        lines = []
        for each in self.predictions[:most]:
            lines.append(one_line(f"{each.pred or NO_LABEL}  {each.image_path}"))
            lines.append(f"         {self._most_probable(each, top)}")
        return [*lines, *self.notes(most)]

    def _most_probable(self, each: Prediction, top: int) -> str:
        return ", ".join(class_text(*pair) for pair in each.top(top))


def label_set_prediction(
    path: str, probs: Mapping[str, float], calibration: LabelCalibration
) -> Prediction:
    """Return the prediction of an image: the classes above their thresholds."""
    limits = calibration.classes
    names = [n for n, prob in probs.items() if prob >= limits[n].threshold]
    return Prediction(
        image_path=path,
        pred=SEPARATOR.join(names),
        probability=round(max(probs.values()), 7),
        probs={name: round(prob, 7) for name, prob in probs.items()},
    )


def class_text(name: str, prob: float) -> str:
    """Format a class and its probability; the number and `%` stay on one line.

    Example:
        >>> class_text("cat", 0.081).replace("\u00a0", " ")
        'cat (8.1 %)'
    """
    text = probability_text(prob).replace(" ", NO_BREAK_SPACE)
    return f"{name} ({text})"


def skipped_dict(skip: Skipped) -> dict[str, str]:
    """Return a skipped file as a JSON-serializable dict."""
    return {"image_path": skip.path, "reason": skip.reason, "detail": skip.detail}


@dataclass(frozen=True, kw_only=True)
class ImagePredictor:
    """A network with all that it needs to predict the classes of image files."""

    model: nn.Module
    device: torch.device
    preprocess: Preprocess
    classes: Sequence[str]  # class names in the order of the outputs
    temperature: float = 1.0  # divisor of the logits
    # scaling and thresholds of several labels per image; None: one class per image
    calibration: LabelCalibration | None = None
    tta: TTA = no_tta  # test-time augmentation
    # pixels of an image that is only in memory, by its path
    in_memory: Callable[[str], Tensor | None] = field(default=lambda path: None)

    def predict(self, inputs: Sequence[str | Path], rule: ReviewRule) -> PredictResult:
        """Predict the classes of images, given as files, folders or glob patterns.

        Raises:
            DataError: An input matches no file, or no file is a usable image.
        """
        paths = [path for item in inputs for path in self._paths(item)]
        size = evaluation_batch_size(self.preprocess.height, self.preprocess.width)
        predictions: list[Prediction] = []
        skipped: list[Skipped] = []
        with evaluation_mode(self.model, analysis=False), torch.inference_mode():
            for start in range(0, len(paths), size):
                usable, batch = self._read(paths[start : start + size], skipped)
                if usable:
                    rows = self._probs(batch).tolist()
                    pairs = zip(usable, rows, strict=True)
                    predictions += [self._prediction(p, row, rule) for p, row in pairs]
        if not predictions:
            first = skipped[0]
            what = f"none of {count_text(len(skipped), 'file')} is a usable image; "
            what += "first error: "
            raise DataError(f"{what}{first.reason} ({first.detail})", where=first.path)
        result = PredictResult(
            predictions=tuple(predictions),
            skipped=tuple(skipped),
            rule=rule,
            temperature=self.temperature,
        )
        if self.calibration is None:
            return result
        return LabelSetsResult(**vars(result), calibration=self.calibration)

    def _paths(self, item: str | Path) -> list[Path]:
        in_memory = self.in_memory(str(item)) is not None
        return [Path(item)] if in_memory else expand_inputs(item)

    def _read(
        self, paths: Sequence[Path], skipped: list[Skipped]
    ) -> tuple[list[Path], Tensor]:
        usable, inputs = [], []
        for path in paths:
            try:
                inputs.append(self.read_input(path))
                usable.append(path)
            except UndecodableError as error:
                skipped.append(Skipped.of(str(path), error))
        return usable, torch.stack(inputs) if inputs else torch.empty(0)

    def read_input(self, path: Path) -> Tensor:
        """Read an image as stored pixels (H, W, C) at the input size of the network.

        Raises:
            UndecodableError: The file is not a usable image.
        """
        pixels = self.in_memory(str(path))
        if pixels is not None:
            return pixels
        return file_to_input(read_file(path), self.preprocess)

    def _probs(self, batch: Tensor) -> Tensor:
        x = normalize(batch.to(self.device), self.preprocess)
        logits = self.tta(self.model, x).float()
        if self.calibration is not None:
            return self.calibration.probabilities(logits)
        return (logits / self.temperature).softmax(1).cpu()

    def _prediction(
        self, path: Path, row: Sequence[float], rule: ReviewRule
    ) -> Prediction:
        probs = dict(zip(self.classes, row, strict=True))
        if self.calibration is not None:
            return label_set_prediction(str(path), probs, self.calibration)
        pred = max(probs, key=probs.__getitem__)
        rounded = {name: round(prob, 7) for name, prob in probs.items()}
        return Prediction(
            image_path=str(path),
            pred=pred,
            probability=rounded[pred],
            probs=rounded,
            review=rule.review(probs),
            decision=rule.decision(probs),
        )


def expand_inputs(item: str | Path) -> list[Path]:
    """Return the files of a path, folder or glob pattern.

    Links to missing files, pipes, and folders without permission are among them, so
    that they are listed as not used.

    Raises:
        DataError: No file matches.
    """
    if not isinstance(item, str | os.PathLike):
        what = f"images are given as paths of files, got: {type(item).__name__}"
        fix = "save the image, for example PIL.Image.fromarray(pixels).save('x.png')"
        raise DataError(what, fix=fix)
    path = Path(item)
    if path.is_dir():
        files = files_below(path)
        what = "the folder contains no files"
    elif path.exists():
        return [path]
    else:
        # glob, not Path.glob: the pattern may be absolute.
        matches = sorted(glob.glob(str(item), recursive=True))  # noqa: PTH207
        files = [p for p in map(Path, matches) if not p.is_dir()]
        is_pattern = glob.has_magic(str(item))
        what = "no file matches this pattern" if is_pattern else "no such file"
    if not files:
        fix = "give an image file, a folder, or a glob pattern in quotes"
        raise DataError(what, where=item, fix=fix)
    return files
